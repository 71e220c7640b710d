"""Export rules of what is quantized at run time, with the arithmetic of its ops on finite numbers."""

from __future__ import annotations

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


DYNAMIC_RULES: dict[str, Rule] = {
    "dynamic_quantize": _dynamic_quantize,
    "dynamic_qgemm": _dynamic_qgemm,
}
