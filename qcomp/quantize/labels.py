"""Labels: the right answers of every sample, from a file.

An .npy or .npz of integers [n] or [n, k] (its only array, or the key "labels"), a .json list of numbers or of lists, or
a text with a line a sample: numbers with blanks or commas between, and remarks behind a #.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError

Labels = tuple[NDArray[np.int64], ...]

_DAMAGED = (ValueError, KeyError, EOFError, SyntaxError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_FIX = "give whole numbers, one a sample or one a row of its output: .npy, .npz (key labels), .json, .txt"


def read_labels(path: Path) -> Labels:
    """The labels in a file, int64 [answers] for each sample; QcompError for anything else."""
    try:
        return labels_of(_content(path), str(path))
    except OSError as error:
        raise QcompError(f"cannot be read: {error.strerror or error}", where=str(path), fix=_FIX) from None
    except _DAMAGED:
        raise QcompError("these are no labels", where=str(path), fix=_FIX) from None


def labels_of(labels: Any, where: str = "labels") -> Labels:
    """int64 [answers] for each sample, from a sequence of numbers or of sequences; QcompError for other things."""
    try:
        arrays = tuple(np.atleast_1d(np.asarray(label)) for label in labels)
    except (TypeError, ValueError):
        arrays = ()
    if not arrays or any(a.ndim != 1 or (a.size and a.dtype.kind not in "iu") for a in arrays):
        raise QcompError("these are no labels", where=where, fix=_FIX)
    return tuple(array.astype(np.int64) for array in arrays)


def check_count(labels: Labels, samples: int, where: str = "labels") -> None:
    """QcompError unless there is one label for each sample."""
    if len(labels) != samples:
        raise QcompError(f"{len(labels)} labels for {samples} samples", where=where, fix="give one for each sample")


def check_classes(labels: Labels, classes: int, where: str = "labels") -> None:
    """QcompError for a label that is not one of so many classes."""
    check_numbers(labels, classes, where)
    for index, label in enumerate(labels):
        if label.size and not (label.min() >= 0 and label.max() < classes):
            raise QcompError(
                f"the labels of sample {index} are {label[:8].tolist()}, and the model has {classes} classes",
                where=where, fix="give class indices from 0",
            )  # fmt: skip


def check_numbers(labels: Iterable[NDArray[np.int64]], classes: int, where: str = "labels") -> None:
    """QcompError for rows with a column for each of so many classes and a 1 in one of them: each of their 0s and 1s
    would count as a class."""
    if classes > 1 and all(
        row.size == classes and np.count_nonzero(row) == 1 and row.max() == 1 == row.sum() for row in labels
    ):
        raise QcompError("these look one-hot", where=where, fix="give class numbers (argmax along the last axis)")


def _content(path: Path) -> Any:
    kind = path.suffix.lower()
    if kind == ".npy":
        return np.load(path, allow_pickle=False)
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as file:
            keys = file.files
            if "labels" not in keys and len(keys) != 1:
                found = ", ".join(keys) or "nothing"
                raise QcompError(f"no key 'labels' (found: {found})", where=str(path), fix="save labels under that key")
            return file["labels" if "labels" in keys else keys[0]]
    text = path.read_text(encoding="utf-8")
    if kind == ".json":
        return json.loads(text)
    lines = (line.split("#")[0].replace(",", " ").split() for line in text.splitlines())
    return [[int(word) for word in words] for words in lines if words]
