"""Distances of outputs, and answers that are read off them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.quantize.answers import Answers
from qcomp.quantize.fidelity import Fidelity, SampleFidelity, compare


def logits(*rows: int, classes: int = 4) -> list[np.ndarray]:
    """One output [1, rows, classes] whose rows are largest at the given classes."""
    return [np.eye(classes, dtype=np.float32)[list(rows)][None]]


def test_energies_and_cosine_of_known_outputs() -> None:
    found = compare([np.array([[3.0, 4.0]], np.float32)], [np.array([[3.0, 3.0]], np.float32)])
    assert (found.signal, found.noise) == (25.0, 1.0)
    assert found.cosine == pytest.approx(21 / math.sqrt(25 * 18))
    whole = Fidelity.of([found, found])
    assert whole.sqnr_db == pytest.approx(10 * math.log10(25))


def test_the_order_of_samples_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    samples = [SampleFidelity(*generator.random(5)) for _ in range(100)]
    assert Fidelity.of(samples) == Fidelity.of(samples[::-1])


def test_all_outputs_count_and_the_first_has_the_answers() -> None:
    second = np.ones((1, 2), np.float32)
    found = compare([*logits(1), second], [*logits(1), second * 2])
    assert (found.noise, found.agrees) == (2.0, 1.0)


def test_every_row_is_an_answer() -> None:
    assert compare(logits(1, 2, 3, 0), logits(1, 2, 0, 0)).agrees == 0.75


def test_one_number_a_row_has_no_answer() -> None:
    found = compare([np.ones((1, 1), np.float32)], [np.ones((1, 1), np.float32)], np.array([0]))
    assert (found.agrees, found.right, Fidelity.of([found]).agreement) == (None, None, None)


def test_lost_and_gained_answers_are_told_apart() -> None:
    found = compare(logits(1, 2, 3, 0), logits(1, 3, 2, 0), np.array([1, 2, 2, 1]))
    assert (found.agrees, found.right, found.lost, found.gained) == (0.5, 0.5, 0.25, 0.25)


@pytest.mark.parametrize(
    ("rows", "ignore", "expected"),
    [((0, 1, 1, 0, 1, 2), (), [1, 1, 2]), ((0, 0), (), []), ((3, 0, 1, 3), (3,), [1]), ((1, 3, 1), (3,), [1, 1])],
)
def test_sequences_lose_repeats_blanks_and_ignored_classes(
    rows: tuple[int, ...], ignore: tuple[int, ...], expected: list[int]
) -> None:
    found = Answers("ctc", ignore).of(logits(*rows))
    assert found is not None and found.tolist() == expected


def test_a_sequence_is_right_as_a_whole() -> None:
    answers = Answers("ctc", (3,))
    assert compare(logits(1, 0, 2), logits(1, 2, 2), np.array([1, 3, 2]), answers).right == 1.0
    assert compare(logits(1, 0, 2), logits(1, 0, 1), np.array([1, 2]), answers).lost == 1.0


@pytest.mark.parametrize(("decode", "ignore"), [("beam", ()), ("argmax", (1,))])
def test_decoders_that_there_are_not_are_refused(decode: str, ignore: tuple[int, ...]) -> None:
    with pytest.raises(QcompError):
        Answers(decode, ignore)


def test_outputs_that_are_no_numbers_are_refused() -> None:
    found = compare([np.array([[np.nan, 1.0]], np.float32)], [np.ones((1, 2), np.float32)])
    with pytest.raises(QcompError, match="NaN or infinity"):
        Fidelity.of([found])


def test_the_error_of_a_drop_counts_what_changed() -> None:
    label = np.array([1])
    lost, gained = compare(logits(1), logits(2), label), compare(logits(2), logits(1), label)
    same = compare(logits(1), logits(1), label)
    whole = Fidelity.of([lost, gained, same, same])
    assert (whole.accuracy, whole.drop_error) == (0.75, pytest.approx(2**0.5 / 4))
    assert Fidelity.of([same, same]).drop_error == 0.0
    assert Fidelity.of([compare(logits(1), logits(2)), compare(logits(1), logits(1))]).drop_error == 0.5
