"""Labels from files of several kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.quantize.labels import check_classes, check_count, labels_of, read_labels


def test_the_same_labels_in_every_kind_of_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([3, 1]))
    np.savez(tmp_path / "a.npz", labels=np.array([3, 1]), other=np.zeros(2))
    np.savez(tmp_path / "b.npz", anything=np.array([3, 1], np.uint8))
    (tmp_path / "a.json").write_text("[3, 1]")
    (tmp_path / "b.json").write_text("[[3], [1]]")
    (tmp_path / "a.txt").write_text("3\n1\n")
    (tmp_path / "b.txt").write_text("# two of them\n3 # cat\n\n1\n")
    for file in sorted(tmp_path.iterdir()):
        assert [label.tolist() for label in read_labels(file)] == [[3], [1]], file.name


def test_sequences_may_differ_in_length(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("3 4 5\n1, 2\n")
    assert [label.tolist() for label in read_labels(tmp_path / "a.txt")] == [[3, 4, 5], [1, 2]]
    assert [label.tolist() for label in labels_of([[3, 4, 5], [1]])] == [[3, 4, 5], [1]]


@pytest.mark.parametrize("content", ["cat\n", "0.5\n", ""])
def test_other_texts_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(QcompError, match=r"a\.txt: these are no labels"):
        read_labels(tmp_path / "a.txt")


@pytest.mark.parametrize("labels", [[0.5], 3, [], ["a"], [[[1]]]])
def test_other_things_are_refused(labels: object) -> None:
    with pytest.raises(QcompError, match="no labels"):
        labels_of(labels)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(QcompError, match=r"lost\.npy: cannot be read"):
        read_labels(tmp_path / "lost.npy")


def test_there_is_one_label_for_each_sample() -> None:
    with pytest.raises(QcompError, match="2 labels for 3 samples"):
        check_count(labels_of([1, 2]), 3)


def test_labels_are_classes_of_the_model() -> None:
    check_classes(labels_of([0, [1, 10]]), 11)
    for wrong in (-5, 11):
        with pytest.raises(QcompError, match="labels of sample 1 are .* and the model has 11 classes"):
            check_classes(labels_of([0, wrong]), 11)


def test_one_hot_rows_are_no_class_numbers() -> None:
    with pytest.raises(QcompError, match=r"a\.npy: these look one-hot; give class numbers"):
        check_classes(labels_of(np.eye(3, dtype=np.int64)[[2, 0, 1, 1]]), 3, "a.npy")
    for numbers in ([[1, 0, 1], [0, 1, 0]], [[0, 0, 2], [1, 0, 0]], [[0, 1], [1, 0]], [1, 0]):
        check_classes(labels_of(numbers), 3)
