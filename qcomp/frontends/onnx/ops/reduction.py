"""Reductions, arg-extrema and running sums."""

from __future__ import annotations

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.types import DType

_REDUCE = {
    "ReduceMean": "reduce_mean",
    "ReduceSum": "reduce_sum",
    "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod",
    "ReduceL1": "reduce_l1",
    "ReduceL2": "reduce_l2",
    "ReduceSumSquare": "reduce_sum_square",
}


def reduced_axes(node: OnnxNode, x: Value) -> tuple[int, ...] | None:
    """The axes to reduce, ascending; None for none at all (noop_with_empty_axes)."""
    rank = len(x.shape)
    if node.optional(1) is not None:
        axes = node.constant_ints(1, "the axes")
    else:
        axes = node.attr_ints("axes", ())
    if not axes:
        return None if node.attr_int("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({node.normalize(a, rank) for a in axes}))


def reduce(node: OnnxNode, op: str, x: Value) -> Value:
    axes = reduced_axes(node, x)
    # Without axes each element is reduced by itself: |x| for L1, x² for a sum of squares, x for the others.
    if x.dtype is DType.BOOL:
        return node.cast(
            node.emit(op, [node.cast(x, DType.U8)], {"axes": axes or (), "keepdims": _keep(node)}), DType.BOOL
        )
    if axes is None:
        if op == "reduce_sum_square":
            return node.emit("mul", [x, x])
        return node.emit("abs", [x]) if op in ("reduce_l1", "reduce_l2") else x
    return node.emit(op, [x], {"axes": axes, "keepdims": _keep(node)})


def _keep(node: OnnxNode) -> bool:
    return bool(node.attr_int("keepdims", 1))


@onnx_op(*_REDUCE)
def convert_reduce(node: OnnxNode) -> Value:
    return reduce(node, _REDUCE[node.proto.op_type], node.value(0))


@onnx_op("ReduceLogSum")
def reduce_log_sum(node: OnnxNode) -> Value:
    return node.emit("log", [reduce(node, "reduce_sum", node.value(0))])


@onnx_op("ReduceLogSumExp")
def reduce_log_sum_exp(node: OnnxNode) -> Value:
    """log Σ exp(x − max) + max, so that nothing overflows."""
    x = node.value(0)
    axes = reduced_axes(node, x)
    if axes is None:
        return x
    if any(x.shape[a] == 0 for a in axes):
        return node.emit("log", [reduce(node, "reduce_sum", node.emit("exp", [x]))])
    top = node.emit("reduce_max", [x], {"axes": axes, "keepdims": True})
    total = node.emit("reduce_sum", [node.emit("exp", [node.emit("sub", [x, top])])], {"axes": axes, "keepdims": True})
    result = node.emit("add", [node.emit("log", [total]), top])
    if _keep(node):
        return result
    return node.reshape(result, tuple(d for i, d in enumerate(x.shape) if i not in axes))


@onnx_op("ArgMax", "ArgMin")
def arg_extremum(node: OnnxNode) -> Value:
    x = node.value(0)
    axis = node.axis(len(x.shape), 0)
    op = node.proto.op_type.lower()
    last = bool(node.attr_int("select_last_index", 0))
    if last:
        x = flip(node, x, axis)
    index = node.emit(op, [x], {"axis": axis, "keepdims": _keep(node)})
    return node.emit("sub", [node.scalar(x.shape[axis] - 1, index), index]) if last else index


def flip(node: OnnxNode, x: Value, axis: int) -> Value:
    """The value with one axis reversed."""
    order = node.const(np.arange(x.shape[axis] - 1, -1, -1, dtype=np.int64))
    return node.emit("gather", [x, order], {"axis": axis})


@onnx_op("CumSum")
def cumulative_sum(node: OnnxNode) -> Value:
    x = node.value(0)
    rank = len(x.shape)
    axis = node.normalize(node.constant_ints(1, "the axis")[0], rank)
    if node.attr_int("reverse", 0):
        x = flip(node, x, axis)
    if node.attr_int("exclusive", 0):
        # Sums of what comes before: shift by one, zero first.
        first = tuple(1 if d == axis else 0 for d in range(rank))
        padded = node.emit("pad", [x], {"pads": (*first, *(0,) * rank), "mode": "constant", "value": 0.0})
        x = node.emit("slice", [padded], {"starts": (0,) * rank, "ends": x.shape, "steps": (1,) * rank})
    y = node.emit("cumsum", [x], {"axis": axis})
    return flip(node, y, axis) if node.attr_int("reverse", 0) else y
