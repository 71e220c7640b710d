"""Gathers and scatters of single elements: all are one gather of a flat tensor."""

from __future__ import annotations

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.ops.elementwise import same_dtype
from qcomp.frontends.onnx.ops.movement import take_flat
from qcomp.frontends.onnx.table import onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.types import DType


def _positions(node: OnnxNode, x: Value, indices: np.ndarray, axis: int) -> np.ndarray:
    """Flat position in x of each element that GatherElements or ScatterElements names."""
    index: list[np.ndarray] = list(np.indices(indices.shape))
    size = x.shape[axis]
    index[axis] = np.where(indices < 0, indices + size, indices)
    return _ravel(node, index, x)


def _ravel(node: OnnxNode, index: list[np.ndarray], x: Value) -> np.ndarray:
    try:
        return np.asarray(np.ravel_multi_index(tuple(index), x.shape))
    except ValueError:
        raise node.fail(f"an index is outside a tensor of shape {list(x.shape)}") from None


def _positions_nd(node: OnnxNode, x: Value, indices: np.ndarray, batch: int = 0) -> np.ndarray:
    """Flat positions that GatherND or ScatterND names: indices.shape[:-1] + the part of x.shape not indexed."""
    depth = indices.shape[-1]
    rest = x.shape[batch + depth :]
    outer = indices.shape[:-1]
    whole = np.indices((*outer, *rest))
    columns = []
    for d in range(depth):
        column = indices[..., d]
        column = np.where(column < 0, column + x.shape[batch + d], column)
        columns.append(np.broadcast_to(column.reshape(*outer, *(1,) * len(rest)), (*outer, *rest)))
    return _ravel(node, [*whole[:batch], *columns, *whole[len(outer) :]], x)


def take_computed(node: OnnxNode, x: Value, base: np.ndarray, parts: list[tuple[Value, int, int]]) -> Value:
    """Elements of x at base + Σ index · stride, for (index, size, stride) of axes whose indices come at run time."""
    position = node.const(base.astype(np.int64))
    for index, size, stride in parts:
        wide = node.cast(index, DType.I64)
        behind = node.emit("add", [wide, node.scalar(size, wide)])
        index = node.emit("where", [node.emit("less", [wide, node.scalar(0, wide)]), behind, wide])
        position = node.emit("add", [position, node.emit("mul", [index, node.scalar(stride, index)])])
    return node.emit("gather", [node.reshape(x, (x.type.elements,)), position], {"axis": 0})


def strides_of(shape: tuple[int, ...]) -> list[int]:
    """Elements from one index to the next along each axis."""
    return [int(np.prod(shape[d + 1 :], dtype=np.int64)) for d in range(len(shape))]


@onnx_op("GatherElements")
def gather_elements(node: OnnxNode) -> Value:
    x, indices = node.value(0), node.value(1)
    axis = node.axis(len(x.shape), 0)
    if indices.data is not None:
        return take_flat(node, x, _positions(node, x, indices.data.astype(np.int64), axis))
    strides, grid = strides_of(x.shape), np.indices(indices.shape)
    base = sum(
        (g * s for d, (g, s) in enumerate(zip(grid, strides, strict=True)) if d != axis), np.zeros(indices.shape)
    )
    return take_computed(node, x, np.asarray(base), [(indices, x.shape[axis], strides[axis])])


@onnx_op("GatherND")
def gather_nd(node: OnnxNode) -> Value:
    x, indices, batch = node.value(0), node.value(1), node.attr_int("batch_dims", 0)
    if indices.data is not None:
        return take_flat(node, x, _positions_nd(node, x, indices.data.astype(np.int64), batch))
    outer, depth = indices.shape[:-1], indices.shape[-1]
    rest, strides = x.shape[batch + depth :], strides_of(x.shape)
    grid = np.indices((*outer, *rest))
    kept = [*enumerate(grid[:batch]), *enumerate(grid[len(outer) :], batch + depth)]
    base = sum((g * strides[d] for d, g in kept), np.zeros((*outer, *rest)))
    parts = []
    for d in range(depth):
        column = node.emit("gather", [indices, node.const(d, DType.I64)], {"axis": len(outer)})
        column = node.reshape(column, (*outer, *(1,) * len(rest)))
        parts.append((column, x.shape[batch + d], strides[batch + d]))
    return take_computed(node, x, np.asarray(base), parts)


_COMBINE = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}


def scatter(node: OnnxNode, x: Value, positions: np.ndarray, updates: Value) -> Value:
    """x with updates written to (or combined with) flat positions, later ones last."""
    reduction = node.attr_str("reduction", "none")
    x, updates = same_dtype(node, x, updates)
    flat = positions.reshape(-1)
    if reduction == "none":
        sources = np.arange(x.type.elements)
        sources[flat] = x.type.elements + np.arange(flat.size)
        both = node.emit(
            "concat", [node.reshape(x, (x.type.elements,)), node.reshape(updates, (flat.size,))], {"axis": 0}
        )
        return node.reshape(take_flat(node, both, sources), x.shape)
    # Positions named more than once are combined in rounds, each naming a position once at most.
    op = _COMBINE[reduction]
    result = node.reshape(x, (x.type.elements,))
    seen: dict[int, int] = {}
    rounds = np.asarray([seen.setdefault(int(p), -1) for p in flat])
    for i, p in enumerate(flat):
        seen[int(p)] += 1
        rounds[i] = seen[int(p)]
    listed = node.reshape(updates, (flat.size,))
    for turn in range(int(rounds.max(initial=-1)) + 1):
        chosen = np.flatnonzero(rounds == turn)
        touched = np.zeros(x.type.elements, np.bool_)
        touched[flat[chosen]] = True
        source = np.zeros(x.type.elements, np.int64)
        source[flat[chosen]] = chosen
        combined = node.emit(op, [result, take_flat(node, listed, source)])
        result = node.emit("where", [node.const(touched), combined, result])
    return node.reshape(result, x.shape)


@onnx_op("ScatterElements", "Scatter")
def scatter_elements(node: OnnxNode) -> Value:
    x, indices = node.value(0), node.constant(1, "the indices").astype(np.int64)
    return scatter(node, x, _positions(node, x, indices, node.axis(len(x.shape), 0)), node.value(2))


@onnx_op("ScatterND")
def scatter_nd(node: OnnxNode) -> Value:
    x, indices = node.value(0), node.constant(1, "the indices").astype(np.int64)
    return scatter(node, x, _positions_nd(node, x, indices), node.value(2))


@onnx_op("Compress")
def compress(node: OnnxNode) -> Value:
    x, condition = node.value(0), node.constant(1, "the condition")
    if not node.has("axis"):
        x, axis = node.reshape(x, (x.type.elements,)), 0
    else:
        axis = node.axis(len(x.shape), 0)
    kept = np.flatnonzero(condition).astype(np.int64)
    return node.emit("gather", [x, node.const(kept)], {"axis": axis})
