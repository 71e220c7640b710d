"""Ops that select elements by index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.intervals import collapse, operand_interval, span
from qcomp.ir.ops.movement import cast_array
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.shapes import check_axis, moved_quant
from qcomp.ir.types import DType, TensorType


@register
class Gather(Op):
    """Slices of x along `axis` at `indices` (integers): [pre.., indices.shape.., post..]; quantization passes through.

    A negative index counts from the end; one still outside is clamped to the first or last slice.
    """

    name = "gather"
    operands = ("x", "indices")
    attributes = {"axis": Attr("int")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, indices = call.type(0), call.type(1)
        axis = check_axis(call, call.int("axis"), x.rank)
        size, constant = x.shape[axis], call.constant(1)
        if not indices.dtype.is_integer or indices.quant is not None:
            raise call.fail(f"indices are {indices.dtype.value}, not plain integers")
        if constant is not None and constant.size and not (-size <= constant.min() and constant.max() < size):
            raise call.fail(f"indices {constant.min()}..{constant.max()} leave axis {axis} of size {size}")
        if size == 0 and indices.elements:
            raise call.fail(f"axis {axis} has no elements to gather")
        kept = {a: a if a < axis else a + indices.rank - 1 for a in range(x.rank) if a != axis}
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        return [x.with_shape(shape).with_quant(moved_quant(call, x, kept))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, indices = operands
        assert x is not None and indices is not None
        axis = call.int("axis")
        size = x.shape[axis]
        wide = indices.astype(np.int64)
        wide = np.clip(np.where(wide < 0, wide + size, wide), 0, max(0, size - 1))
        return [np.asarray(np.take(x, wide, axis=axis), order="C")]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        axis, rank = call.int("axis"), call.type(0).rank
        x = collapse(operand_interval(call, operands, 0), rank, (axis,))
        shape = (*x.lo.shape[:axis], *(1,) * call.type(1).rank, *x.lo.shape[axis + 1 :])
        return [Interval(x.lo.reshape(shape), x.hi.reshape(shape))]


@register
class OneHot(Op):
    """A new axis of size `depth` that holds `on` at the index and `off` elsewhere; indices outside give only `off`.

    A negative index counts from the end.
    """

    name = "one_hot"
    operands = ("indices",)
    attributes = {
        "depth": Attr("int"),
        "on": Attr("float", 1.0),
        "off": Attr("float", 0.0),
        "axis": Attr("int"),
        "dtype": Attr("dtype", DType.F32),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        indices, depth = call.type(0), call.int("depth")
        axis = check_axis(call, call.int("axis"), indices.rank + 1)
        if not indices.dtype.is_integer or indices.quant is not None:
            raise call.fail(f"indices are {indices.dtype.value}, not plain integers")
        if depth < 1:
            raise call.fail(f"depth {depth} is not positive")
        return [TensorType(call.dtype("dtype"), (*indices.shape[:axis], depth, *indices.shape[axis:]))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (indices,) = operands
        assert indices is not None
        depth, axis = call.int("depth"), call.int("axis")
        wide = indices.astype(np.int64)
        wide = np.expand_dims(np.where(wide < 0, wide + depth, wide), axis)
        classes = np.arange(depth).reshape((-1,) + (1,) * (wide.ndim - 1 - axis))
        values = np.where(wide == classes, call.float("on"), call.float("off"))
        return [cast_array(values, call.dtype("dtype"))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        ends = cast_array(np.asarray([call.float("on"), call.float("off")]), call.dtype("dtype")).astype(np.float64)
        return [span(Interval(ends, ends))]
