"""A streaming histogram whose bins never move, so that merging is plain addition of integers.

A bin holds the float32 values that share sign, exponent and the 9 leading mantissa bits: 512 bins an octave,
a bin is never wider than 1/512 of its values, and an outlier of any size costs the other values no resolution.
Values with |x| < 2^-40 (about 1e-12), zeros among them, are counted as zeros.  As the bins do not depend on
the data, the state after any split of the data, merged in any order, is the same bit for bit.
Memory: 16 bytes × 512 × (octaves between 2^-40 and the largest magnitude), about 360 KB for values up to 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Float64Array = NDArray[np.float64]
CountArray = NDArray[np.int64]

SMALLEST = 2.0**-40
BINS_PER_OCTAVE = 512
_SHIFT = 23 - 9
_MAGNITUDE = 0x7FFFFFFF >> _SHIFT
# Bin 0 is zero; bin 1 starts at SMALLEST.
_BASE = (int(np.float32(SMALLEST).view(np.int32)) >> _SHIFT) - 1
# Temporaries of this many values stay in the L2 cache.
_CHUNK = 1 << 15


def bin_edges(bins: NDArray[np.integer]) -> Float64Array:
    """Left edges (magnitudes) of bins >= 1; the right edge of a bin is the left edge of the next one."""
    bits = (np.asarray(bins, np.int64) + _BASE) << _SHIFT
    return bits.astype(np.int32).view(np.float32).astype(np.float64)


class Histogram:
    """Counts by sign and magnitude: row 0 of `counts` holds x >= 0 (bin 0: zeros), row 1 holds x < 0."""

    __slots__ = ("counts",)

    def __init__(self, counts: CountArray | None = None) -> None:
        self.counts: CountArray = np.zeros((2, 1), np.int64) if counts is None else counts

    def update(self, values: NDArray[np.float32]) -> None:
        """Count finite float32 values of any shape (non-finite ones must have been refused before)."""
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if flat.size == 0:
            return
        size = min(flat.size, _CHUNK)
        head, index = np.empty(size, np.int32), np.empty(size, np.int64)
        for start in range(0, flat.size, _CHUNK):
            bits = flat[start : start + _CHUNK].view(np.int32)
            sign_and_bin, bins = head[: bits.size], index[: bits.size]
            np.right_shift(bits, _SHIFT, out=sign_and_bin)
            np.bitwise_and(sign_and_bin, _MAGNITUDE, out=bins)
            bins -= _BASE
            np.maximum(bins, 0, out=bins)
            self._grow(int(bins.max()) + 1)
            if int(sign_and_bin.min()) < 0:
                sign_and_bin >>= 31
                sign_and_bin &= self.counts.shape[1]
                bins += sign_and_bin
            np.add.at(self.counts.reshape(-1), bins, 1)
        # A negative zero, or a tiny negative value, is a zero too.
        self.counts[0, 0] += self.counts[1, 0]
        self.counts[1, 0] = 0

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both streams; neither operand changes."""
        width = max(self.counts.shape[1], other.counts.shape[1])
        total = np.zeros((2, width), np.int64)
        for part in (self.counts, other.counts):
            total[:, : part.shape[1]] += part
        return Histogram(total)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def row(self, sign: int) -> CountArray:
        """Counts of one sign (0: x >= 0, 1: x < 0) up to its last filled bin: the canonical form."""
        filled = np.flatnonzero(self.counts[sign])
        return self.counts[sign, : int(filled[-1]) + 1 if filled.size else 0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and all(
            np.array_equal(self.row(sign), other.row(sign)) for sign in (0, 1)
        )

    __hash__ = None  # type: ignore[assignment]

    def density(self, lo: float | None = None, hi: float | None = None) -> Density:
        """The filled bins from left to right; `lo` and `hi`, the exact extremes, tighten the outer bins."""
        positive, negative = np.flatnonzero(self.counts[0, 1:]) + 1, np.flatnonzero(self.counts[1]) [::-1]
        zeros = int(self.counts[0, 0])
        middle = np.zeros(1 if zeros else 0)
        left = np.concatenate([-bin_edges(negative + 1), middle, bin_edges(positive)])
        right = np.concatenate([-bin_edges(negative), middle, bin_edges(positive + 1)])
        count = np.concatenate(
            [self.counts[1, negative], np.full(middle.size, zeros), self.counts[0, positive]]
        ).astype(np.float64)
        if left.size:
            if lo is not None and left[0] != right[0]:
                left[0] = lo
            if hi is not None and left[-1] != right[-1]:
                right[-1] = hi
            lo = float(left[0]) if lo is None else lo
            hi = float(right[-1]) if hi is None else hi
        return Density(left, right, count, 0.0 if lo is None else lo, 0.0 if hi is None else hi)

    def _grow(self, width: int) -> None:
        have = self.counts.shape[1]
        if width > have:
            width = -(-width // BINS_PER_OCTAVE) * BINS_PER_OCTAVE
            grown = np.zeros((2, width), np.int64)
            grown[:, :have] = self.counts
            self.counts = grown


@dataclass(frozen=True)
class Density:
    """A distribution as disjoint intervals in ascending order, each with a count spread evenly over it.

    `left`, `right`, `count`: float64 of one length.  An interval of width zero is an atom (the zeros, or an
    extreme that alone fills its bin).  `lo` and `hi`: the exact extremes of the values.
    """

    left: Float64Array
    right: Float64Array
    count: Float64Array
    lo: float
    hi: float

    @property
    def total(self) -> float:
        return float(self.count.sum())

    def coarse(self) -> Density:
        """The same with fewer bins in the lower octaves, where a bin is far narrower than an int8 step.

        512 bins in the top octave, 256 and 128 in the next two, 64 in each one below.
        """
        if self.count.size == 0:
            return self
        # An interval lies inside one bin, so its right edge (its outer one, if negative) names the octave.
        inner = np.where(self.right > 0, self.left, self.right)
        fraction, octave = np.frexp(inner)
        octave = np.where(inner == 0, -1000, octave)
        drop = np.clip(octave.max() - octave, 0, 3)
        step = np.floor(np.abs(fraction) * 1024).astype(np.int64) >> drop
        key = np.stack([np.sign(inner).astype(np.int64), octave, step])
        first = np.flatnonzero(np.concatenate([[True], (key[:, 1:] != key[:, :-1]).any(axis=0)]))
        last = np.append(first[1:], inner.size) - 1
        return Density(
            self.left[first], self.right[last], np.add.reduceat(self.count, first), self.lo, self.hi
        )
