"""Export rules of the ops that move, select or convert elements."""

from __future__ import annotations

import math

import numpy as np

from qcomp.ir.graph import Node
from qcomp.ir.onnx_export.emitter import ELEMENT_TYPES, TO_NCHW, TO_NHWC, Emitter, Rule, out_names
from qcomp.ir.onnx_export.float_rules import direct
from qcomp.ir.ops.movement import Pad, cast_array
from qcomp.ir.ops.resize import resized_axes
from qcomp.ir.types import DType

_INT64_MIN = -(2**63)


def _reshape(e: Emitter, node: Node) -> None:
    shape = node.call.ints("shape")
    # a 0 would mean "as before" without allowzero
    e.op("Reshape", [e.name(node.input(0)), e.ints(shape, "shape")], node.output.name, allowzero=int(0 in shape))


def _slice(e: Emitter, node: Node) -> None:
    call = node.call
    ends = [_INT64_MIN if end < 0 else end for end in call.ints("ends")]
    axes = range(len(ends))
    triples = ((call.ints("starts"), "starts"), (ends, "ends"), (axes, "axes"), (call.ints("steps"), "steps"))
    e.op("Slice", [e.name(node.input(0)), *(e.ints(tuple(v), h) for v, h in triples)], node.output.name)


def _pad(e: Emitter, node: Node) -> None:
    call = node.call
    mode = call.str("mode")
    operands = [e.name(node.input(0)), e.ints(call.ints("pads"), "pads")]
    if mode == "constant":
        operands.append(e.tensor(Pad.fill(call), "value"))
    e.op("Pad", operands, node.output.name, mode=mode)


def _split(e: Emitter, node: Node) -> None:
    operands = [e.name(node.input(0)), e.ints(node.call.ints("sizes"), "sizes")]
    e.op("Split", operands, out_names(node), axis=node.call.int("axis"))


def _with_ints(op_type: str, attribute: str) -> Rule:
    """An ONNX op that takes one of our attributes as its second operand."""

    def rule(e: Emitter, node: Node) -> None:
        e.op(op_type, [e.name(node.input(0)), e.ints(node.call.ints(attribute), attribute)], node.output.name)

    return rule


def _resize(e: Emitter, node: Node) -> None:
    call, x = node.call, node.input(0)
    axes, mode = resized_axes(call), call.str("mode")
    sizes = call.ints("sizes")
    scales = tuple(float(s) for s in call.attrs["scales"])  # type: ignore[union-attr]
    source, shape = e.name(x), x.shape
    # Runtimes interpolate the two last axes; channels-last images are turned for them.
    turned = mode != "nearest" and x.type.rank == 4 and set(axes) <= {1, 2} and 1 in axes
    if turned:
        source = e.op("Transpose", [source], perm=TO_NCHW)
        shape, sizes = tuple(shape[a] for a in TO_NCHW), tuple(sizes[a] for a in TO_NCHW)
        scales = tuple(scales[a] for a in TO_NCHW)
    # Sizes imply the scales out / in; other scales have to be given, and then imply the sizes.
    implied = all(math.isclose(s, o / i, rel_tol=1e-6) for s, o, i in zip(scales, sizes, shape, strict=True))
    if implied:
        operands = [source, "", "", e.ints(sizes, "sizes")]
    else:
        operands = [source, "", e.tensor(np.asarray(scales, np.float32), "scales")]
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": call.str("coordinates"),
        "nearest_mode": call.str("rounding"),
        "cubic_coeff_a": call.float("cubic_a"),
    }
    if turned:
        e.op("Transpose", [e.op("Resize", operands, **attributes)], node.output.name, perm=TO_NHWC)
    else:
        e.op("Resize", operands, node.output.name, **attributes)


def _depth_to_space(e: Emitter, node: Node) -> None:
    x, b = node.input(0), node.call.int("block")
    if x.dtype.is_float:
        e.image_op(node, "DepthToSpace", [e.name(x)], blocksize=b, mode=node.call.str("mode"))
        return
    # Runtimes have DepthToSpace for floats; any type moves as reshape, transpose, reshape.
    image = e.image(node, e.name(x))
    n, c, h, w = (x.shape[a] for a in TO_NCHW) if node.attrs["layout"] == "NHWC" else x.shape
    depth_first = node.call.str("mode") == "DCR"
    parts = (n, b, b, c // (b * b), h, w) if depth_first else (n, c // (b * b), b, b, h, w)
    perm = (0, 3, 4, 1, 5, 2) if depth_first else (0, 1, 4, 2, 5, 3)
    _shuffle(e, node, image, parts, perm, (n, c // (b * b), h * b, w * b))


def _space_to_depth(e: Emitter, node: Node) -> None:
    x, b = node.input(0), node.call.int("block")
    if x.dtype.is_float:
        e.image_op(node, "SpaceToDepth", [e.name(x)], blocksize=b)
        return
    image = e.image(node, e.name(x))
    n, c, h, w = (x.shape[a] for a in TO_NCHW) if node.attrs["layout"] == "NHWC" else x.shape
    parts = (n, c, h // b, b, w // b, b)
    _shuffle(e, node, image, parts, (0, 3, 5, 1, 2, 4), (n, c * b * b, h // b, w // b))


def _shuffle(
    e: Emitter, node: Node, image: str, parts: tuple[int, ...], perm: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """Reshape an NCHW image, transpose, reshape; back to the node's layout."""
    apart = e.op("Transpose", [e.op("Reshape", [image, e.ints(parts, "parts")])], perm=perm)
    last = e.ints(shape, "shape")
    if node.attrs["layout"] == "NHWC":
        e.op("Transpose", [e.op("Reshape", [apart, last])], node.output.name, perm=TO_NHWC)
    else:
        e.op("Reshape", [apart, last], node.output.name)


def _one_hot(e: Emitter, node: Node) -> None:
    call = node.call
    values = cast_array(np.asarray([call.float("off"), call.float("on")]), call.dtype("dtype"))
    # runtimes have OneHot for few index types
    indices = e.op("Cast", [e.name(node.input(0))], to=ELEMENT_TYPES[DType.I64])
    depth = e.tensor(np.asarray(call.int("depth"), np.int64), "depth")
    operands = [indices, depth, e.tensor(values, "values")]
    if node.input(0).shape:
        e.op("OneHot", operands, node.output.name, axis=call.int("axis"))
        return
    operands[0] = e.op("Reshape", [indices, e.ints((1,), "one")])  # OneHot takes no scalars
    row = e.op("OneHot", operands, axis=1)
    e.op("Reshape", [row, e.ints(node.output.shape, "shape")], node.output.name)


def _cast(e: Emitter, node: Node) -> None:
    e.op("Cast", [e.name(node.input(0))], node.output.name, to=ELEMENT_TYPES[node.call.dtype("dtype")])


def _gather(e: Emitter, node: Node) -> None:
    indices = e.name(node.input(1))
    if node.input(1).dtype.bits not in (32, 64):
        indices = e.op("Cast", [indices], to=ELEMENT_TYPES[DType.I64])
    e.op("Gather", [e.name(node.input(0)), indices], node.output.name, axis=node.call.int("axis"))


MOVEMENT_RULES: dict[str, Rule] = {
    "identity": direct("Identity"),
    "reshape": _reshape,
    "transpose": direct("Transpose", {"perm": "perm"}),
    "concat": direct("Concat", {"axis": "axis"}),
    "slice": _slice,
    "pad": _pad,
    "split": _split,
    "expand": _with_ints("Expand", "shape"),
    "tile": _with_ints("Tile", "repeats"),
    "resize": _resize,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "gather": _gather,
    "one_hot": _one_hot,
    "cast": _cast,
}
