"""Export rules of what is quantized at run time, with the arithmetic of its ops on finite numbers, and of recurrent
layers; their state stays float where its weights are int8."""

from __future__ import annotations

import numpy as np

from qcomp.ir.graph import Node
from qcomp.ir.onnx_export.emitter import ELEMENT_TYPES, Emitter, Rule, out_names
from qcomp.ir.types import DType


def _float(e: Emitter, name: str) -> str:
    return e.op("Cast", [name], to=ELEMENT_TYPES[DType.F32])


def _integers(e: Emitter, real: str, dtype: DType, result: str) -> None:
    if dtype is DType.I8:
        real = e.op("Sub", [real, e.float(128.0, "offset")])
    e.op("Cast", [real], result, to=ELEMENT_TYPES[dtype])


def _dynamic_quantize(e: Emitter, node: Node) -> None:
    x, dtype, per_row = e.name(node.input(0)), node.call.dtype("dtype"), node.call.bool("per_row")
    results = out_names(node)
    if dtype is DType.U8 and not per_row:
        e.op("DynamicQuantizeLinear", [x], results)
        return
    rank = node.input(0).type.rank
    axes = e.ints((rank - 1,) if per_row else tuple(range(rank)), "axes")
    zero, steps = e.float(0.0, "zero"), e.float(255.0, "steps")
    lo = e.op("Min", [e.op("ReduceMin", [x, axes], keepdims=1), zero])
    hi = e.op("Max", [e.op("ReduceMax", [x, axes], keepdims=1), zero])
    scale = e.op("Div", [e.op("Sub", [hi, lo]), steps])
    scale = e.op("Where", [e.op("Equal", [scale, zero]), e.float(1.0, "one"), scale])
    offset = e.op("Clip", [e.op("Round", [e.op("Div", [e.op("Neg", [lo]), scale])]), zero, steps])
    q = e.op("Clip", [e.op("Add", [e.op("Round", [e.op("Div", [x, scale])]), offset]), zero, steps])
    _integers(e, q, dtype, results[0])
    e.op("Squeeze", [scale, axes], results[1])
    _integers(e, e.op("Squeeze", [offset, axes]), dtype, results[2])


def _dynamic_qgemm(e: Emitter, node: Node) -> None:
    x, scale, zp, w, w_scale = (e.name(v) for v in node.inputs[:5])
    centred, weights = _float(e, x), _float(e, e.op("Transpose", [w], perm=(1, 0)))
    zero, last = _float(e, zp), e.ints((-1,), "last")
    if node.input(1).shape:
        zero, scale = e.op("Unsqueeze", [zero, last]), e.op("Unsqueeze", [scale, last])
    if node.optional(6) is not None:
        weights = e.op("Sub", [weights, _float(e, e.name(node.optional(6)))])
    acc = e.op("MatMul", [e.op("Sub", [centred, zero]), weights])
    bias = node.optional(5)
    product = [acc, e.op("Mul", [scale, w_scale])]
    if bias is None:
        e.op("Mul", product, node.output.name)
    else:
        e.op("Add", [e.op("Mul", product), e.name(bias)], node.output.name)


def _recurrent(e: Emitter, node: Node, op_type: str, bias: str, states: tuple[str, ...], **attributes: int) -> None:
    """The layer on one direction, with the identity as weights of its input."""
    first, second = e.ints((0,), "first"), e.ints((1,), "second")
    width, hidden = node.input(1).shape
    r = e.name(node.input(1))
    if node.optional(4) is not None:
        scale = e.op("Unsqueeze", [e.name(node.optional(4)), second])
        r = e.op("Mul", [_float(e, r), scale])
    identity = e.tensor(np.eye(width, dtype=np.float32)[None], "identity")
    initial = [e.op("Unsqueeze", [s, first]) if s else "" for s in states]
    operands = [e.name(node.input(0)), identity, e.op("Unsqueeze", [r, first]), bias, "", *initial]
    inner = [e.fresh(f"{name}__directions") for name in out_names(node)]
    direction = "reverse" if node.call.bool("reverse") else "forward"
    e.op(op_type, operands, inner, hidden_size=hidden, direction=direction, **attributes)
    for index, (directions, name) in enumerate(zip(inner, out_names(node), strict=True)):
        e.op("Squeeze", [directions, first if index else second], name)


def _lstm(e: Emitter, node: Node) -> None:
    _recurrent(e, node, "LSTM", "", (e.name(node.optional(2)), e.name(node.optional(3))))


def _gru(e: Emitter, node: Node) -> None:
    width, hidden = node.input(1).shape
    bias = ""
    if node.optional(2) is not None:
        before = e.tensor(np.zeros(width + 2 * hidden, np.float32), "before")
        joined = e.op("Concat", [before, e.name(node.optional(2))], axis=0)
        bias = e.op("Unsqueeze", [joined, e.ints((0,), "first")])
    linear = int(node.call.bool("linear_before_reset"))
    _recurrent(e, node, "GRU", bias, (e.name(node.optional(3)),), linear_before_reset=linear)


DYNAMIC_RULES: dict[str, Rule] = {
    "dynamic_quantize": _dynamic_quantize,
    "dynamic_qgemm": _dynamic_qgemm,
    "lstm": _lstm,
    "gru": _gru,
}
