"""Reading labels: class indices in an .npy, an .npz or a text."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError

_DAMAGED = (OSError, EOFError, ValueError, KeyError, SyntaxError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read_labels(path: Path) -> NDArray[np.int64]:
    """Labels [n, accepted]: an integer array [n] or [n, k] of an .npy or .npz (its only array, or the key "labels"), or
    a text with a line a sample.  Several classes of a sample are all right; -1 fills up rows.

    QcompError for anything else.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        return _from_array(path, _load(path))
    try:
        lines = [line.split("#")[0].replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [[int(word) for word in words] for words in lines if words]
    except OSError as error:
        raise QcompError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except ValueError as error:  # UnicodeDecodeError is one
        reason = "this is no text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise QcompError(f"no labels: {reason}", where=str(path), fix="write one integer a line, or an .npy") from None
    if not rows:
        raise QcompError("it holds no labels", where=str(path), fix="write one integer a line, or an .npy")
    labels = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for index, row in enumerate(rows):
        labels[index, : len(row)] = row
    return labels


def _load(path: Path) -> NDArray[np.generic]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            keys = list(found.files)
            key = "labels" if "labels" in keys else keys[0] if len(keys) == 1 else None
            if key is not None:
                return np.asarray(found[key])
    except _DAMAGED:
        raise QcompError(
            "no labels: it is no .npz or .npy file of numbers, or damaged", where=str(path),
            fix="write integers with numpy.save",
        ) from None  # fmt: skip
    raise QcompError(
        f"no key 'labels' (found: {', '.join(keys) or 'nothing'})", where=str(path), fix="save labels under that key"
    )


def _from_array(path: Path, array: NDArray[np.generic]) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or array.size == 0:
        raise QcompError(
            f"labels are integers of shape [n] or [n, k], not {array.dtype}{list(array.shape)}", where=str(path),
            fix="save class indices",
        )  # fmt: skip
    return array.astype(np.int64).reshape(len(array), -1)
