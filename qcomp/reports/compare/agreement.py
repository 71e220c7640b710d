"""How close the artifact's outputs are to the float model's: decisions, signal to noise, cosine, largest error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.quantize.fidelity import sqnr_db

Array = NDArray[np.generic]


class Noise:
    """Powers of a signal and of what differs from it, summed over any number of arrays, in float64.

    Elements that are NaN or infinite in either array are left out; those that differ are counted in `unlike`.
    """

    def __init__(self) -> None:
        self.count = self.unlike = 0
        self.signal = self.noise = self.other = self.product = 0.0
        self.largest = 0.0

    def add(self, reference: Array, result: Array) -> None:
        """Two arrays of one shape, any real dtype."""
        a, b = np.asarray(reference, np.float64).ravel(), np.asarray(result, np.float64).ravel()
        finite = np.isfinite(a) & np.isfinite(b)
        if not finite.all():
            odd = ~finite & (a != b) & ~(np.isnan(a) & np.isnan(b))
            self.unlike += int(np.count_nonzero(odd))
            a, b = a[finite], b[finite]
        error = b - a
        self.count += a.size
        self.signal += float(a @ a)
        self.other += float(b @ b)
        self.product += float(a @ b)
        self.noise += float(error @ error)
        self.largest = max(self.largest, float(np.abs(error).max(initial=0.0)))

    @property
    def sqnr_db(self) -> float:
        return sqnr_db(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two; 1 for two zero vectors, 0 where one of them is."""
        if self.signal == 0.0 or self.other == 0.0:
            return float(self.signal == self.other)
        return self.product / math.sqrt(self.signal * self.other)

    @property
    def rms_error(self) -> float:
        return math.sqrt(self.noise / self.count) if self.count else 0.0


@dataclass(frozen=True)
class OutputFigures:
    """One output over all samples.  `sqnr_db` is None where every number is equal; errors are in the output's unit.

    `unlike` elements are NaN or infinite on one side and something else on the other; the figures leave them out.
    """

    name: str
    elements: int
    sqnr_db: float | None
    cosine: float
    max_error: float
    rms_error: float
    unlike: int = 0

    @staticmethod
    def of(name: str, noise: Noise) -> OutputFigures:
        sqnr = noise.sqnr_db if math.isfinite(noise.sqnr_db) else None
        if noise.noise > 0.0 and sqnr is None:  # a reference of zeros alone
            sqnr = -200.0
        return OutputFigures(name, noise.count, sqnr, noise.cosine, noise.largest, noise.rms_error, noise.unlike)


def choice_axis(array: Array, class_axis: int | None) -> int | None:
    """The axis along which an output's largest element is its decision; None where there is nothing to choose from:
    integers, which are decisions themselves, scalars, one class.

    Without a class axis it is 1 for outputs of rank 4 (NCHW), else the last one.
    """
    if array.dtype.kind in "iub" or array.ndim == 0:
        return None
    axis = class_axis if class_axis is not None else (1 if array.ndim == 4 else array.ndim - 1)
    if not -array.ndim <= axis < array.ndim:
        raise QcompError(
            f"the output has {array.ndim} dimensions, no axis {axis}", where="--class-axis",
            fix=f"give a number below {array.ndim}",
        )  # fmt: skip
    return axis if array.shape[axis] > 1 else None


def decisions(output: Array, class_axis: int | None) -> NDArray[np.int64]:
    """What an output decides: the index of the largest element along the class axis, for each remaining position.

    Integers are decisions themselves.  Empty where there is no choice (see `choice_axis`).
    """
    array = np.asarray(output)
    if array.dtype.kind in "iub":
        return array.reshape(-1).astype(np.int64)
    axis = choice_axis(array, class_axis)
    return np.zeros(0, np.int64) if axis is None else np.asarray(np.argmax(array, axis), np.int64).reshape(-1)


@dataclass(frozen=True)
class Decisions:
    """Counts over all samples: decisions in all, equal ones, and right ones of each side where labels were given."""

    total: int
    equal: int
    float_right: int | None = None
    int8_right: int | None = None

    @property
    def agreement(self) -> float | None:
        """Share of decisions that are the float model's; None where nothing is decided."""
        return self.equal / self.total if self.total else None

    @property
    def float_top1(self) -> float | None:
        return None if self.float_right is None else self.float_right / self.total

    @property
    def int8_top1(self) -> float | None:
        return None if self.int8_right is None else self.int8_right / self.total

    @property
    def drop(self) -> float | None:
        """Accuracy lost, as a share: 0.01 is one percentage point; negative where int8 is better."""
        if self.float_right is None or self.int8_right is None:
            return None
        return (self.float_right - self.int8_right) / self.total


def count_decisions(
    reference: NDArray[np.int64], result: NDArray[np.int64], labels: NDArray[np.int64] | None, where: str = "--labels"
) -> Decisions:
    """Compares decisions [n] with each other and with labels [n, accepted classes]; a label of -1 fits nothing.

    QcompError when the number of labels is not that of the decisions.
    """
    total, equal = reference.size, int(np.count_nonzero(reference == result))
    if labels is None:
        return Decisions(total, equal)
    if len(labels) != total:
        raise QcompError(
            f"{len(labels)} labels for {total} decisions of the first output", where=where,
            fix="give one label for each decision, in the order of the samples",
        )  # fmt: skip
    right = [int((labels == side[:, None]).any(axis=1).sum()) for side in (reference, result)]
    return Decisions(total, equal, right[0], right[1])
