"""Export rules of the quantization and integer ops: dequantize, the float op, quantize.

The real scales come from the types of operands and results; where a type carries none, 1 stands in, and the op's
multiplier becomes the scale of the weights.  Either way dequantized numbers, products and the result's rounding agree
with the op up to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcomp.ir.graph import Node, Value
from qcomp.ir.onnx_export.emitter import ELEMENT_TYPES, TO_NCHW, TO_NHWC, Emitter, Rule
from qcomp.ir.onnx_export.float_rules import direct
from qcomp.ir.onnx_export.pooling_rules import average
from qcomp.ir.ops.attention import TOP
from qcomp.ir.requantize import rounded_dtype
from qcomp.ir.types import DType, Quantization


def _scale(value: Value) -> float:
    return value.quant.scale[0] if value.quant is not None and value.quant.axis is None else 1.0


def _dequantized(e: Emitter, value: Value, scale: float, zero_point: int) -> str:
    return e.dequantize(e.name(value), Quantization.per_tensor(scale, zero_point), value.dtype)


def _finish(e: Emitter, node: Node, real: str, scale: float, table: Value | None) -> None:
    """Clamp, quantize and look up: what requantization and the optional table do."""
    call = node.call
    zp, lo, hi, dtype = call.int("zp"), call.int("lo"), call.int("hi"), rounded_dtype(call)
    if (lo, hi) != dtype.limits:
        bounds = [e.float((b - zp) * scale, h) for b, h in ((lo, "lo"), (hi, "hi"))]
        real = e.op("Clip", [real, *bounds])
    quant = Quantization.per_tensor(scale, zp)
    if table is None:
        e.quantize(real, quant, dtype, node.output.name)
    else:
        _look_up(e, e.quantize(real, quant, dtype), table, node.output.name)


def _look_up(e: Emitter, x: str, table: Value, result: str) -> None:
    """y = table[x + 128]."""
    index = e.op("Cast", [x], to=ELEMENT_TYPES[DType.I32])
    index = e.op("Add", [index, e.tensor(np.asarray(128, np.int32), "offset")])
    e.op("Gather", [e.name(table), index], result, axis=0)


def _weights(e: Emitter, node: Node, order: tuple[int, ...], axis: int, y_scale: float) -> tuple[str, str]:
    """Dequantized weights (axes brought to `order`, scales along `axis`) and bias of a product."""
    w, bias, mult = (e.array(node.input(i)) for i in (1, 2, 3))
    x_scale = _scale(node.input(0))
    # a channel whose multiplier is 0 gives 0, and scales are positive
    real = np.maximum(mult.astype(np.float64), 1e-30) * y_scale
    scales = (real / x_scale).astype(np.float32)
    quant = Quantization.per_channel(scales, axis)
    turned = e.tensor(w.transpose(order), "weights")
    products = Quantization.per_channel(real.astype(np.float32), 0)
    return e.dequantize(turned, quant, DType.I8), e.dequantize(e.tensor(bias, "bias"), products, DType.I32)


def _product(e: Emitter, node: Node, emit: Callable[[str, float, str], str]) -> None:
    """Shared frame of products: `emit(x, y_scale, result)` writes the float op."""
    y_scale = _scale(node.output)
    x = _dequantized(e, node.input(0), _scale(node.input(0)), node.call.int("x_zp"))
    if node.call.dtype("dtype") is DType.F32:
        emit(x, 1.0, node.output.name)
        return
    real, residual = emit(x, y_scale, ""), node.optional(5)
    if residual is not None:
        factor = node.call.float("r_mult") * y_scale
        term = _dequantized(e, residual, abs(factor) or 1.0, node.call.int("r_zp"))
        real = e.op("Add", [real, e.op("Mul", [term, e.float(float(np.sign(factor)), "sign")])])
    _finish(e, node, real, y_scale, node.optional(4))


def _qconv2d(e: Emitter, node: Node) -> None:
    call = node.call

    def emit(x: str, y_scale: float, result: str) -> str:
        w, bias = _weights(e, node, (0, 3, 1, 2), 0, y_scale)
        y = e.op(
            "Conv",
            [e.op("Transpose", [x], perm=TO_NCHW), w, bias],
            kernel_shape=node.input(1).shape[1:3],
            strides=call.ints("strides"),
            dilations=call.ints("dilations"),
            pads=call.ints("pads"),
            group=call.int("groups"),
        )
        return e.op("Transpose", [y], result, perm=TO_NHWC)

    _product(e, node, emit)


def _qconv_transpose2d(e: Emitter, node: Node) -> None:
    call = node.call

    def emit(x: str, y_scale: float, result: str) -> str:
        w, bias = _weights(e, node, (3, 0, 1, 2), 1, y_scale)
        y = e.op(
            "ConvTranspose",
            [e.op("Transpose", [x], perm=TO_NCHW), w, bias],
            kernel_shape=node.input(1).shape[1:3],
            strides=call.ints("strides"),
            dilations=call.ints("dilations"),
            pads=call.ints("pads"),
            output_padding=call.ints("output_pads"),
        )
        return e.op("Transpose", [y], result, perm=TO_NHWC)

    _product(e, node, emit)


def _qgemm(e: Emitter, node: Node) -> None:
    def emit(x: str, y_scale: float, result: str) -> str:
        w, bias = _weights(e, node, (1, 0), 1, y_scale)
        return e.op("Add", [e.op("MatMul", [x, w]), bias], result)

    _product(e, node, emit)


def _qadd(e: Emitter, node: Node) -> None:
    call, y_scale = node.call, _scale(node.output)
    sides = [
        _dequantized(e, node.input(i), call.float(f"{n}_mult") * y_scale, call.int(f"{n}_zp"))
        for i, n in enumerate("ab")
    ]
    _finish(e, node, e.op("Add", sides), y_scale, node.optional(2))


def _qmul(e: Emitter, node: Node) -> None:
    call, y_scale, a_scale = node.call, _scale(node.output), _scale(node.input(0))
    a = _dequantized(e, node.input(0), a_scale, call.int("a_zp"))
    b = _dequantized(e, node.input(1), call.float("mult") * y_scale / a_scale, call.int("b_zp"))
    _finish(e, node, e.op("Mul", [a, b]), y_scale, node.optional(2))


def _rescale(e: Emitter, node: Node) -> None:
    call, y_scale = node.call, _scale(node.output)
    factor = call.float("mult") * y_scale
    x = _dequantized(e, node.input(0), abs(factor) or 1e-30, call.int("x_zp"))
    _finish(e, node, e.op("Mul", [x, e.float(float(np.sign(factor)), "sign")]), y_scale, None)


def _table(e: Emitter, node: Node) -> None:
    _look_up(e, e.name(node.input(0)), node.input(1), node.output.name)


def _qavg_pool(e: Emitter, node: Node) -> None:
    call, y_scale = node.call, _scale(node.output)
    x = _dequantized(e, node.input(0), call.float("ratio") * y_scale, call.int("x_zp"))
    y = average(e, node, e.op("Transpose", [x], perm=TO_NCHW), "")
    _finish(e, node, e.op("Transpose", [y], perm=TO_NHWC), y_scale, None)


def _qattention(e: Emitter, node: Node) -> None:
    call, y_scale = node.call, _scale(node.output)
    # Where types carry no scales, that of q takes the whole factor.
    k_scale, v_scale = _scale(node.input(1)), call.float("mult") * y_scale
    scales = [call.float("scale") / k_scale, k_scale, v_scale]
    q, k, v = (
        _dequantized(e, node.input(i), abs(s) or 1e-30, call.int(f"{n}_zp"))
        for i, (n, s) in enumerate(zip("qkv", scales, strict=True))
    )
    scores = e.op("MatMul", [e.op("Transpose", [q], perm=(0, 2, 1, 3)), e.op("Transpose", [k], perm=(0, 2, 3, 1))])
    scores = e.op("Mul", [scores, e.float(float(np.sign(call.float("scale"))), "sign")])
    mask = node.optional(3)
    if mask is not None:
        scores = e.op("Add", [scores, e.name(mask)])
    # The weights are integers: their rounding would not be seen in a Softmax.
    last = e.ints((-1,), "axes")
    weights = e.op("Exp", [e.op("Sub", [scores, e.op("ReduceMax", [scores, last], keepdims=1)])])
    weights = e.op("Round", [e.op("Mul", [weights, e.float(TOP, "top")])])
    mean = e.op("MatMul", [weights, e.op("Transpose", [v], perm=(0, 2, 1, 3))])
    mean = e.op("Div", [mean, e.op("ReduceSum", [weights, last], keepdims=1)])
    mean = e.op("Mul", [mean, e.float(float(np.sign(call.float("mult"))), "sign")])
    y = e.op("Transpose", [mean], perm=(0, 2, 1, 3))
    if call.dtype("dtype") is DType.F32:
        e.op("Identity", [y], node.output.name)
    else:
        _finish(e, node, y, y_scale, None)


def _qsoftmax(e: Emitter, node: Node) -> None:
    """The table as it is: what it holds need not be exponentials."""
    call, y_scale, last = node.call, _scale(node.output), e.ints((-1,), "axes")
    x = e.op("Cast", [e.name(node.input(0))], to=ELEMENT_TYPES[DType.I32])
    index = e.op("Sub", [e.op("ReduceMax", [x, last], keepdims=1), x])
    table = e.tensor(e.array(node.input(1)).astype(np.float32), "table")
    weights = e.op("Gather", [table, index], axis=0)
    y = e.op("Div", [weights, e.op("ReduceSum", [weights, last], keepdims=1)])
    real = call.dtype("dtype") is DType.F32
    factor = e.float(call.float("mult") * (1.0 if real else y_scale), "mult")
    y = e.op("Mul", [y, factor], node.output.name if real else "")
    if not real:
        _finish(e, node, y, y_scale, None)


def _qlayer_norm(e: Emitter, node: Node) -> None:
    """On the integers themselves, as float64: their zero point cancels."""
    call, y_scale, count = node.call, _scale(node.output), node.input(0).shape[-1]
    x = e.op("Cast", [e.name(node.input(0))], to=ELEMENT_TYPES[DType.F64])
    last = e.ints((-1,), "axes")
    centred = e.op("Sub", [x, e.op("ReduceMean", [x, last], keepdims=1)])
    variance = e.op("ReduceMean", [e.op("Mul", [centred, centred]), last], keepdims=1)
    epsilon = e.tensor(np.asarray(max(call.float("epsilon") / count**2, 1e-30)), "epsilon")
    y = e.op("Div", [centred, e.op("Sqrt", [e.op("Add", [variance, epsilon])])])
    y = e.op("Cast", [y], to=ELEMENT_TYPES[DType.F32])
    y = e.op("Add", [e.op("Mul", [y, e.name(node.input(1))]), e.name(node.input(2))])
    real = call.dtype("dtype") is DType.F32
    y = e.op("Mul", [y, e.float(1.0 if real else y_scale, "scale")], node.output.name if real else "")
    if not real:
        _finish(e, node, y, y_scale, None)


def _qmatmul(e: Emitter, node: Node) -> None:
    call, y_scale, a_scale = node.call, _scale(node.output), _scale(node.input(0))
    a = _dequantized(e, node.input(0), a_scale, call.int("a_zp"))
    b = _dequantized(e, node.input(1), call.float("mult") * y_scale / a_scale, call.int("b_zp"))
    if call.dtype("dtype") is DType.F32:
        e.op("MatMul", [a, b], node.output.name)
    else:
        _finish(e, node, e.op("MatMul", [a, b]), y_scale, None)


def _fake_quant(e: Emitter, node: Node) -> None:
    quant, dtype = node.call.quant("quant"), node.call.dtype("dtype")
    e.dequantize(e.quantize(e.name(node.input(0)), quant, dtype), quant, dtype, node.output.name)


def _quantize(e: Emitter, node: Node) -> None:
    x, perm = e.name(node.input(0)), node.call.ints("perm")
    x = e.op("Transpose", [x], perm=perm) if perm else x
    e.quantize(x, node.call.quant("quant"), node.call.dtype("dtype"), node.output.name)


def _dequantize(e: Emitter, node: Node) -> None:
    x = node.input(0)
    assert x.quant is not None
    e.dequantize(e.name(x), x.quant, x.dtype, node.output.name)


def _conv_integer(e: Emitter, node: Node) -> None:
    call = node.call
    e.op(
        "ConvInteger",
        [e.name(v) for v in node.inputs],
        node.output.name,
        strides=call.ints("strides"),
        dilations=call.ints("dilations"),
        pads=call.ints("pads"),
        group=call.int("groups"),
    )


INTEGER_RULES: dict[str, Rule] = {
    "fake_quant": _fake_quant,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "matmul_integer": direct("MatMulInteger"),
    "conv_integer": _conv_integer,
    "qconv2d": _qconv2d,
    "qconv_transpose2d": _qconv_transpose2d,
    "qgemm": _qgemm,
    "qadd": _qadd,
    "qmul": _qmul,
    "rescale": _rescale,
    "table": _table,
    "qavg_pool": _qavg_pool,
    "qattention": _qattention,
    "qmatmul": _qmatmul,
    "qsoftmax": _qsoftmax,
    "qlayer_norm": _qlayer_norm,
}
