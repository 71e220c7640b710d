"""Reductions over axes: 16 interleaved partial results, then a fixed tree (see `qcomp.ir.ordered`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qcomp.ir.intervals import (
    collapse,
    full_rank,
    magnitude,
    operand_interval,
    outward,
    rounded,
    unless_overflow,
    with_zero,
)
from qcomp.ir.ordered import interleaved, ordered_sum, select_max, select_min, to_rows
from qcomp.ir.registry import Attr, Call, Interval, Op, full_interval, register
from qcomp.ir.shapes import check_axes, check_axis, unquantized
from qcomp.ir.types import DType, TensorType

Reduction = Callable[[np.ndarray], np.ndarray]
Rule = Callable[[Interval, int], Interval]


@dataclass(frozen=True)
class Row:
    """One reduction: a function of rows [M, R] -> [M], and its bounds from those of an element and R."""

    name: str
    function: Reduction
    rule: Rule | None = None
    passes_quant: bool = False
    doc: str = ""


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    if keepdims:
        return tuple(1 if a in axes else d for a, d in enumerate(shape))
    return tuple(d for a, d in enumerate(shape) if a not in axes)


class Reduce(Op):
    """Reduces `axes` of x, any numeric type, to one element each; keepdims leaves them with size 1."""

    attributes = {"axes": Attr("ints"), "keepdims": Attr("bool", True)}
    row: ClassVar[Row]

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        if x.dtype is DType.BOOL:
            raise call.fail("operand is bool, not a number", fix="cast it first")
        if not self.row.passes_quant or (x.quant is not None and x.quant.axis is not None):
            unquantized(call, x)
        axes = check_axes(call, call.ints("axes"), x.rank)
        return [x.with_shape(reduced_shape(x.shape, axes, call.bool("keepdims")))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        with np.errstate(all="ignore"):
            y = self.row.function(to_rows(x, call.ints("axes")))
        return [np.asarray(y, x.dtype).reshape(call.results[0].shape)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        axes, type = call.ints("axes"), call.type(0)
        count = int(np.prod([type.shape[a] for a in axes], dtype=np.int64))
        if self.row.rule is None or not count:
            return [full_interval(call.results[0])]
        x = collapse(operand_interval(call, operands, 0), type.rank, axes)
        bound = self.row.rule(x, count)
        # every partial result errs by half a unit of a number of its own size
        relative = (count / 16 + 10) * 2.0**-23
        if type.dtype.is_float:
            slack = relative * count * np.maximum(np.abs(x.lo), np.abs(x.hi)) if self.row.name in _CANCELS else 0.0
            with np.errstate(all="ignore"):
                bound = outward(bound.lo - slack, bound.hi + slack, relative)
                if self.row.name in _CANCELS:
                    bound = unless_overflow(bound, magnitude(x) * count)
            if self.row.name in _NEVER_NEGATIVE:
                bound = Interval(np.maximum(bound.lo, 0.0), bound.hi)
        else:
            bound = rounded(bound.lo, bound.hi, type)
        if call.bool("keepdims"):
            return [bound]
        bound = full_rank(bound, type.rank)
        kept = tuple(d for a, d in enumerate(bound.lo.shape) if a not in axes)
        return [Interval(bound.lo.reshape(kept), bound.hi.reshape(kept))]


_CANCELS = ("reduce_sum", "reduce_mean")
_NEVER_NEGATIVE = ("reduce_l1", "reduce_l2", "reduce_sum_square")


def mean(rows: np.ndarray) -> np.ndarray:
    """ordered_sum / float32(R); integers: the sum divided, truncated toward zero."""
    total = ordered_sum(rows)
    if rows.dtype.kind == "f":
        return np.asarray(total / rows.dtype.type(rows.shape[1]))
    return np.asarray(np.trunc(total / max(1, rows.shape[1])), rows.dtype)


def _product(rows: np.ndarray) -> np.ndarray:
    return interleaved(rows, np.multiply, 1)


def lowest(dtype: np.dtype[Any]) -> object:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def highest(dtype: np.dtype[Any]) -> object:
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def row_max(rows: np.ndarray) -> np.ndarray:
    return interleaved(rows, select_max, lowest(rows.dtype))


def row_min(rows: np.ndarray) -> np.ndarray:
    return interleaved(rows, select_min, highest(rows.dtype))


def _norm1(rows: np.ndarray) -> np.ndarray:
    return ordered_sum(np.abs(rows))


def _sum_square(rows: np.ndarray) -> np.ndarray:
    return ordered_sum(rows * rows)


def _norm2(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(_sum_square(rows)))


def _scaled(x: Interval, count: int) -> Interval:
    return Interval(x.lo * count, x.hi * count)


def _same(x: Interval, count: int) -> Interval:
    return x


def _size(x: Interval) -> Interval:
    """Bounds of |x|."""
    zero = with_zero(x)
    least = np.where((x.lo <= 0) & (x.hi >= 0), 0.0, np.minimum(np.abs(x.lo), np.abs(x.hi)))
    return Interval(least, np.maximum(-zero.lo, zero.hi))


def _norm1_rule(x: Interval, count: int) -> Interval:
    return _scaled(_size(x), count)


def _sum_square_rule(x: Interval, count: int) -> Interval:
    size = _size(x)
    # squares below the smallest normal number lose their relative precision
    return Interval(np.maximum(size.lo**2 * count - 1e-37 * count, 0.0), size.hi**2 * count + 1e-37 * count)


def _norm2_rule(x: Interval, count: int) -> Interval:
    square = _sum_square_rule(x, count)
    # squares beyond float32 overflow to infinity
    hi = np.where(square.hi > 3e38, np.inf, np.sqrt(square.hi))
    return Interval(np.sqrt(square.lo), hi)


ROWS = (
    Row("reduce_sum", ordered_sum, _scaled, doc="Sum; 0 for no elements."),
    Row("reduce_mean", mean, _same, doc=mean.__doc__ or ""),
    Row("reduce_max", row_max, _same, True, doc="v > best ? v : best from −∞."),
    Row("reduce_min", row_min, _same, True, doc="v < best ? v : best from ∞."),
    Row("reduce_prod", _product, doc="Product; 1 for no elements."),
    Row("reduce_l1", _norm1, _norm1_rule, doc="Sum of |x|."),
    Row("reduce_l2", _norm2, _norm2_rule, doc="sqrt of the sum of x · x."),
    Row("reduce_sum_square", _sum_square, _sum_square_rule, doc="Sum of x · x."),
)


def _define(row: Row) -> None:
    body: dict[str, Any] = {"name": row.name, "row": row, "__doc__": row.doc}
    register(type(row.name, (Reduce,), body))


for _row in ROWS:
    _define(_row)


class _ArgExtreme(Op):
    """Index i64 of the first extreme element along `axis`; NaN is never extreme."""

    attributes = {"axis": Attr("int"), "keepdims": Attr("bool", True)}
    sign: ClassVar[int]

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        axis = check_axis(call, call.int("axis"), x.rank)
        if x.shape[axis] < 1:
            raise call.fail(f"axis {axis} has no elements")
        return [TensorType(DType.I64, reduced_shape(x.shape, (axis,), call.bool("keepdims")))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        worst = lowest(x.dtype) if self.sign > 0 else highest(x.dtype)
        if x.dtype.kind == "f":
            x = np.where(np.isnan(x), x.dtype.type(worst), x)
        index = (np.argmax if self.sign > 0 else np.argmin)(x, axis=call.int("axis"))
        return [np.asarray(index, np.int64).reshape(call.results[0].shape)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [Interval.of(0, call.type(0).shape[call.int("axis")] - 1)]


@register
class ArgMax(_ArgExtreme):
    """Index i64 of the first largest element along `axis`; NaN is passed over."""

    name = "argmax"
    sign = 1


@register
class ArgMin(_ArgExtreme):
    """Index i64 of the first smallest element along `axis`; NaN is passed over."""

    name = "argmin"
    sign = -1


@register
class CumSum(Op):
    """Running sum along `axis`, in order: y[0] = x[0], y[i] = y[i−1] + x[i]."""

    name = "cumsum"
    attributes = {"axis": Attr("int")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = unquantized(call, call.type(0))
        if x.dtype is DType.BOOL:
            raise call.fail("operand is bool, not a number", fix="cast it first")
        check_axis(call, call.int("axis"), x.rank)
        return [x]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        return [np.add.accumulate(x, axis=call.int("axis"), dtype=x.dtype)]
