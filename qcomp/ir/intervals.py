"""Interval arithmetic for the ops' range rules: always outward, so a bound holds for the rounded arithmetic too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qcomp.ir.registry import Call, Interval, full_interval
from qcomp.ir.types import TensorType

ULP = 2.0**-23
REALS = Interval.of(-np.inf, np.inf)


def outward(lo: np.ndarray, hi: np.ndarray, relative: float = ULP) -> Interval:
    """Widens both ends by `relative` of their size and by the smallest float32; NaN ends become unbounded."""
    lo, hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    with np.errstate(all="ignore"):
        low = np.where(np.isinf(lo), lo, lo - np.abs(lo) * relative - 1e-44)
        high = np.where(np.isinf(hi), hi, hi + np.abs(hi) * relative + 1e-44)
    low, high = np.where(low < -3.4e38, -np.inf, low), np.where(high > 3.4e38, np.inf, high)
    return Interval(np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high))


def rounded(lo: np.ndarray, hi: np.ndarray, type: TensorType) -> Interval:
    """The interval of a result of `type`: outward for floats; integers that may wrap get the dtype's range."""
    if type.dtype.is_float:
        return outward(lo, hi)
    if not type.dtype.is_integer:
        return Interval.of(0, 1)
    least, most = type.dtype.limits
    if not (np.all(lo >= least) and np.all(hi <= most)):
        return Interval.of(least, most)
    return Interval(lo, hi)


def corners(combine: Callable[[np.ndarray, np.ndarray], np.ndarray], a: Interval, b: Interval) -> Interval:
    """Bounds of a function monotone in each operand: the extremes over the four corners; 0·∞ counts as 0."""
    with np.errstate(all="ignore"):
        values = [np.asarray(combine(x, y), np.float64) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    values = [np.where(np.isnan(v), 0.0, v) for v in values]
    lo = np.minimum(np.minimum(values[0], values[1]), np.minimum(values[2], values[3]))
    hi = np.maximum(np.maximum(values[0], values[1]), np.maximum(values[2], values[3]))
    return Interval(lo, hi)


def union(*intervals: Interval) -> Interval:
    lo, hi = intervals[0].lo, intervals[0].hi
    for other in intervals[1:]:
        lo, hi = np.minimum(lo, other.lo), np.maximum(hi, other.hi)
    return Interval(lo, hi)


def with_zero(x: Interval) -> Interval:
    """The interval grown to hold 0: what padding with zeros adds."""
    return Interval(np.minimum(x.lo, 0.0), np.maximum(x.hi, 0.0))


def span(x: Interval) -> Interval:
    """One interval for all elements."""
    if x.lo.size == 0:
        return Interval.of(0, 0)
    return Interval.of(x.lo.min(), x.hi.max())


def full_rank(x: Interval, rank: int) -> Interval:
    """The same bounds with one dimension for each of the tensor's."""
    lo, hi = np.broadcast_arrays(x.lo, x.hi)
    shape = (1,) * (rank - lo.ndim) + lo.shape
    return Interval(lo.reshape(shape), hi.reshape(shape))


def collapse(x: Interval, rank: int, axes: tuple[int, ...]) -> Interval:
    """Bounds that do not vary along `axes`; full rank, size 1 there."""
    x = full_rank(x, rank)
    return Interval(x.lo.min(axis=axes, keepdims=True), x.hi.max(axis=axes, keepdims=True))


def magnitude(x: Interval) -> np.ndarray:
    return np.asarray(np.maximum(np.abs(x.lo), np.abs(x.hi)))


def unless_overflow(x: Interval, partial: np.ndarray) -> Interval:
    """x, but unbounded where sums on the way, as large as `partial`, may overflow float32."""
    risky = ~(np.asarray(partial) < 3.4e38)
    return Interval(np.where(risky, -np.inf, x.lo), np.where(risky, np.inf, x.hi))


def operand_interval(call: Call, operands: Sequence[Interval | None], index: int) -> Interval:
    """Bounds of an operand: what the analysis knows, else the constant itself, else all its dtype holds."""
    known = operands[index] if index < len(operands) else None
    if known is not None:
        return known
    data = call.constant(index)
    if data is not None and data.size and not np.isnan(data).any():
        exact = data.astype(np.float64)
        return Interval(exact, exact)
    return full_interval(call.type(index))
