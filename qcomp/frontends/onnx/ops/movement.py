"""Ops that move data without computing on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.ops.elementwise import same_dtype
from qcomp.frontends.onnx.table import onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.registry import Attribute
from qcomp.ir.types import DType


@onnx_op("Reshape")
def reshape(node: OnnxNode) -> Value:
    x = node.value(0)
    wanted = list(node.attr_ints("shape")) if node.opset < 5 else list(node.constant_ints(1, "the shape"))
    if not node.attr_int("allowzero", 0):
        try:
            wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
        except IndexError:
            raise node.fail(f"shape {wanted} keeps a dimension that {list(x.shape)} does not have") from None
    if wanted.count(-1) == 1:
        known = int(np.prod([d for d in wanted if d != -1], dtype=np.int64))
        wanted[wanted.index(-1)] = x.type.elements // known if known else 0
    if any(d < 0 for d in wanted) or int(np.prod(wanted, dtype=np.int64)) != x.type.elements:
        raise node.fail(f"cannot reshape {list(x.shape)} to {wanted}", "check the shapes given for the inputs")
    return node.reshape(x, wanted)


@onnx_op("Flatten")
def flatten(node: OnnxNode) -> Value:
    x = node.value(0)
    axis = node.axis(len(x.shape), 1, end=True)
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return node.reshape(x, (rows, int(np.prod(x.shape[axis:], dtype=np.int64))))


def _axes(node: OnnxNode) -> tuple[int, ...]:
    if node.optional(1) is not None:
        return node.constant_ints(1, "the axes")
    return node.attr_ints("axes", ())


@onnx_op("Squeeze")
def squeeze(node: OnnxNode) -> Value:
    x = node.value(0)
    rank = len(x.shape)
    axes = {node.normalize(a, rank) for a in _axes(node)} or {i for i, d in enumerate(x.shape) if d == 1}
    if any(x.shape[a] != 1 for a in axes):
        raise node.fail(f"cannot squeeze axes {sorted(axes)} of {list(x.shape)}")
    return node.reshape(x, tuple(d for i, d in enumerate(x.shape) if i not in axes))


@onnx_op("Unsqueeze")
def unsqueeze(node: OnnxNode) -> Value:
    x, wanted = node.value(0), _axes(node)
    rank = len(x.shape) + len(wanted)
    axes = {node.normalize(a, rank) for a in wanted}
    rest = iter(x.shape)
    return node.reshape(x, tuple(1 if i in axes else next(rest) for i in range(rank)))


@onnx_op("Transpose")
def transpose(node: OnnxNode) -> Value:
    x = node.value(0)
    perm = node.attr_ints("perm", tuple(reversed(range(len(x.shape)))))
    return node.emit("transpose", [x], {"perm": perm})


@onnx_op("Concat")
def concat(node: OnnxNode) -> Value:
    values = [node.value(i) for i in range(len(node.proto.input))]
    axis = node.axis(len(values[0].shape), 1 if node.opset < 4 else 0)
    return concat_of(node, values, axis)


def concat_of(node: OnnxNode, values: Sequence[Value], axis: int) -> Value:
    if len({v.dtype for v in values}) > 1 and all(v.dtype.is_float for v in values):
        values = [node.cast(v, DType.F32) for v in values]
    return values[0] if len(values) == 1 else node.emit("concat", values, {"axis": axis})


@onnx_op("Slice")
def slice_(node: OnnxNode) -> Value:
    x = node.value(0)
    rank = len(x.shape)
    if node.opset < 10:
        starts, ends = node.attr_ints("starts"), node.attr_ints("ends")
        axes, steps = node.attr_ints("axes", range(len(starts))), (1,) * len(starts)
    else:
        starts, ends = node.constant_ints(1, "the starts"), node.constant_ints(2, "the ends")
        axes = tuple(range(len(starts))) if node.optional(3) is None else node.constant_ints(3, "the axes")
        steps = (1,) * len(starts) if node.optional(4) is None else node.constant_ints(4, "the steps")
    full = [(0, d, 1) for d in x.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        d = node.normalize(axis, rank)
        if step == 0:
            raise node.fail("a step is 0")
        first, last, stride = slice(start, end, step).indices(x.shape[d])
        # `indices` counts a negative end as one before the first element, as ONNX does after clamping.
        full[d] = (first, last, stride)
    return slice_of(node, x, full)


def slice_of(node: OnnxNode, x: Value, ranges: Sequence[tuple[int, int, int]]) -> Value:
    """x with (start, end, step) applied to each dimension, in the sense of Python's range."""
    for d, (start, end, step) in enumerate(ranges):
        if step < 0:
            # Reversed ranges are gathers of known indices.
            order = np.asarray(range(start, end, step), np.int64)
            x = node.emit("gather", [x, node.const(order)], {"axis": d})
    forward = [
        (0, x.shape[d], 1) if step < 0 else (start, max(start, end), step)
        for d, (start, end, step) in enumerate(ranges)
    ]
    if all(r == (0, d, 1) for r, d in zip(forward, x.shape, strict=True)):
        return x
    starts, ends, steps = (tuple(column) for column in zip(*forward, strict=True))
    return node.emit("slice", [x], {"starts": starts, "ends": ends, "steps": steps})


@onnx_op("Split")
def split(node: OnnxNode) -> Sequence[Value]:
    x = node.value(0)
    axis = node.axis(len(x.shape), 0)
    size = x.shape[axis]
    if node.optional(1) is not None:
        sizes = node.constant_ints(1, "the sizes")
    elif node.has("split"):
        sizes = node.attr_ints("split")
    else:
        count = node.attr_int("num_outputs", len(node.proto.output))
        chunk = -(-size // count)
        sizes = tuple(max(0, min(chunk, size - i * chunk)) for i in range(count))
    if sum(sizes) != size or len(sizes) != len(node.proto.output):
        raise node.fail(f"cannot split {size} elements into parts of {list(sizes)}")
    return node.emit_all("split", [x], {"axis": axis, "sizes": sizes})


@onnx_op("Gather")
def gather(node: OnnxNode) -> Value:
    x, indices = node.value(0), node.value(1)
    return gather_of(node, x, indices, node.axis(len(x.shape), 0))


def gather_of(node: OnnxNode, x: Value, indices: Value, axis: int) -> Value:
    """gather with constant indices counted from the front, and checked."""
    if indices.data is not None:
        size = x.shape[axis]
        data = indices.data.astype(np.int64)
        if data.size and not (-size <= data.min() and data.max() < size):
            raise node.fail(f"an index is outside axis {axis} of {list(x.shape)}")
        if data.size and data.min() < 0:
            indices = node.const(np.where(data < 0, data + size, data))
    return node.emit("gather", [x, indices], {"axis": axis})


@onnx_op("Expand")
def expand(node: OnnxNode) -> Value:
    x = node.value(0)
    wanted = node.constant_ints(1, "the shape")
    try:
        shape = np.broadcast_shapes(x.shape, wanted)
    except ValueError:
        raise node.fail(f"cannot expand {list(x.shape)} to {list(wanted)}") from None
    return x if shape == x.shape else node.emit("expand", [x], {"shape": tuple(int(d) for d in shape)})


@onnx_op("Tile")
def tile(node: OnnxNode) -> Value:
    x, repeats = node.value(0), node.constant_ints(1, "the repeats")
    return x if all(r == 1 for r in repeats) else node.emit("tile", [x], {"repeats": repeats})


@onnx_op("Pad")
def pad(node: OnnxNode) -> Value:
    x = node.value(0)
    rank = len(x.shape)
    if node.opset < 11:
        pads, value = node.attr_ints("pads"), node.attr_float("value", 0.0)
    else:
        pads = node.constant_ints(1, "the pads")
        given = node.optional_constant(2, "the padding value")
        value = 0.0 if given is None else float(given.reshape(-1)[0])
    if node.optional(3) is not None:
        axes = [node.normalize(a, rank) for a in node.constant_ints(3, "the axes")]
        full = [0] * (2 * rank)
        for i, a in enumerate(axes):
            full[a], full[rank + a] = pads[i], pads[len(axes) + i]
        pads = tuple(full)
    # Negative padding cuts off.
    cut = [
        (max(0, -b), x.shape[d] - max(0, -e), 1) for d, (b, e) in enumerate(zip(pads[:rank], pads[rank:], strict=True))
    ]
    x = slice_of(node, x, cut)
    pads = tuple(max(0, p) for p in pads)
    if not any(pads):
        return x
    return node.emit("pad", [x], {"pads": pads, "mode": node.attr_str("mode", "constant"), "value": value})


@onnx_op("DepthToSpace")
def depth_to_space(node: OnnxNode) -> Value:
    attrs: dict[str, Attribute] = {"block": node.attr_int("blocksize"), "mode": node.attr_str("mode", "DCR")}
    return node.emit("depth_to_space", [node.value(0)], attrs)


@onnx_op("SpaceToDepth")
def space_to_depth(node: OnnxNode) -> Value:
    x, block = node.value(0), node.attr_int("blocksize")
    if node.attr_str("mode", "DCR") == "DCR":
        return node.emit("space_to_depth", [x], {"block": block})
    n, c, h, w = x.shape
    split_up = node.reshape(x, (n, c, h // block, block, w // block, block))
    moved = node.emit("transpose", [split_up], {"perm": (0, 1, 3, 5, 2, 4)})
    return node.reshape(moved, (n, c * block * block, h // block, w // block))


@onnx_op("OneHot")
def one_hot(node: OnnxNode) -> Value:
    indices = node.cast(node.value(0), DType.I64)
    depth = node.constant_ints(1, "the depth")[0]
    values = node.value(2)
    axis = node.axis(len(indices.shape) + 1, -1)
    if values.data is not None:
        off, on = (float(v) for v in values.data.reshape(-1))
        attrs: dict[str, Attribute] = {"depth": depth, "on": on, "off": off, "axis": axis, "dtype": values.dtype}
        return node.emit("one_hot", [indices], attrs)
    hot = node.emit("one_hot", [indices], {"depth": depth, "on": 1.0, "off": 0.0, "axis": axis, "dtype": DType.BOOL})
    off_value = node.emit("gather", [values, node.const(0, DType.I64)], {"axis": 0})
    on_value = node.emit("gather", [values, node.const(1, DType.I64)], {"axis": 0})
    return node.emit("where", [hot, on_value, off_value])


@onnx_op("Trilu")
def trilu(node: OnnxNode) -> Value:
    x = node.value(0)
    given = node.optional_constant(1, "the diagonal")
    k = 0 if given is None else int(given.reshape(-1)[0])
    rows, columns = x.shape[-2:]
    below = np.tri(rows, columns, k if not node.attr_int("upper", 1) else k - 1, dtype=np.bool_)
    keep = ~below if node.attr_int("upper", 1) else below
    return node.emit("where", [node.const(keep), x, *same_dtype(node, node.scalar(0, x), x)[:1]])


@onnx_op("ReverseSequence")
def reverse_sequence(node: OnnxNode) -> Value:
    """With known lengths: a gather from the flattened pair of axes."""
    x, lengths = node.value(0), node.constant_ints(1, "the sequence lengths")
    batch, time = node.attr_int("batch_axis", 1), node.attr_int("time_axis", 0)
    index = np.indices(x.shape)
    limit = np.asarray(lengths).reshape([-1 if d == batch else 1 for d in range(len(x.shape))])
    index[time] = np.where(index[time] < limit, limit - 1 - index[time], index[time])
    return take_flat(node, x, np.ravel_multi_index(tuple(index), x.shape))


def take_flat(node: OnnxNode, x: Value, index: np.ndarray) -> Value:
    """Elements of x, by their position in the flattened tensor."""
    flat = node.reshape(x, (x.type.elements,))
    taken = node.emit("gather", [flat, node.const(index.reshape(-1).astype(np.int64))], {"axis": 0})
    return node.reshape(taken, index.shape)
