"""Sentences as a language model takes them: pieces of words, padding, and what is trained on is not tested on."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.zoo import minilm, movie_reviews
from qcomp.zoo.case import Case
from qcomp.zoo.wordpiece import WordPiece

PIECES = WordPiece(
    {p: i for i, p in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##like", "##ly", "cafe", "!", "$", "日"])}
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("unlikely", [4, 5, 6]),
        ("Café!", [7, 8]),
        ("un-like", [4, 1, 1]),
        ("$un\tcafe", [9, 4, 7]),
        ("日cafe", [10, 7]),
        ("u\u0000n", [4]),
        ("", []),
        ("un" * 51, [1]),
    ],
)
def test_words_become_the_longest_pieces(text: str, numbers: list[int]) -> None:
    assert PIECES.tokens(text) == numbers


def test_texts_are_padded_and_cut_to_one_length() -> None:
    ids, mask = PIECES.inputs(["unlikely", "cafe cafe unlikely"], 6)
    assert ids.tolist() == [[2, 4, 5, 6, 3, 0], [2, 7, 7, 4, 5, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert ids.dtype == mask.dtype == np.int64


def test_neighbours_of_one_label_are_joined() -> None:
    texts, labels = movie_reviews.joined(["a", "b", "c", "d"], np.array([1, 0, 1, 1]), [3, 4, 2, 1], longest=5)
    assert sorted(zip(texts, labels.tolist(), strict=True)) == [("a c", 1), ("b", 0), ("d", 1)]


def test_a_case_of_several_inputs_has_no_single_one() -> None:
    ids, mask = PIECES.inputs(["un", "cafe"], 4)
    inputs = {minilm.IDS: ids, minilm.MASK: mask}
    case = Case("two", None, {}, inputs, inputs, None, None, None, {})  # type: ignore[arg-type]
    assert case.samples == 2
    assert [{name: array.tolist() for name, array in feed.items()} for feed in case.feeds()] == [
        {"input_ids": [[2, 4, 3, 0]], "attention_mask": [[1, 1, 1, 0]]},
        {"input_ids": [[2, 7, 3, 0]], "attention_mask": [[1, 1, 1, 0]]},
    ]
    assert case.calibration_samples(1)["input_ids"].tolist() == [[2, 4, 3, 0]]
    assert [feed["attention_mask"].tolist() for feed in case.calibration_feeds(1)] == [[[1, 1, 1, 0]]]
    with pytest.raises(QcompError, match="case two: the model has 2 inputs: input_ids, attention_mask"):
        _ = case.inputs


@pytest.mark.slow
def test_no_sentence_is_both_fitted_and_tested_on() -> None:
    data = movie_reviews.sentences()
    assert (len(data.training), len(data.test)) == (4500, 1500)
    assert len({*data.training, *data.test}) == 6000
    assert 0.4 < data.test_labels.mean() < 0.6
