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
from qcomp.ir.types import DType, Quantization


def _scale(value: Value) -> float:
    return value.quant.scale[0] if value.quant is not None and value.quant.axis is None else 1.0


def _dequantized(e: Emitter, value: Value, scale: float, zero_point: int) -> str:
    return e.dequantize(e.name(value), Quantization.per_tensor(scale, zero_point), DType.I8)


def _finish(e: Emitter, node: Node, real: str, scale: float, table: Value | None) -> None:
    """Clamp, quantize and look up: what requantization and the optional table do."""
    call = node.call
    zp, lo, hi = call.int("zp"), call.int("lo"), call.int("hi")
    if (lo, hi) != (-128, 127):
        bounds = [e.float((b - zp) * scale, h) for b, h in ((lo, "lo"), (hi, "hi"))]
        real = e.op("Clip", [real, *bounds])
    quant = Quantization.per_tensor(scale, zp)
    if table is None:
        e.quantize(real, quant, DType.I8, node.output.name)
    else:
        _look_up(e, e.quantize(real, quant, DType.I8), table, node.output.name)


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


def _table(e: Emitter, node: Node) -> None:
    _look_up(e, e.name(node.input(0)), node.input(1), node.output.name)


def _qavg_pool(e: Emitter, node: Node) -> None:
    call, y_scale = node.call, _scale(node.output)
    x = _dequantized(e, node.input(0), call.float("ratio") * y_scale, call.int("x_zp"))
    y = average(e, node, e.op("Transpose", [x], perm=TO_NCHW), "")
    _finish(e, node, e.op("Transpose", [y], perm=TO_NHWC), y_scale, None)


def _fake_quant(e: Emitter, node: Node) -> None:
    quant, dtype = node.call.quant("quant"), node.call.dtype("dtype")
    e.dequantize(e.quantize(e.name(node.input(0)), quant, dtype), quant, dtype, node.output.name)


def _quantize(e: Emitter, node: Node) -> None:
    e.quantize(e.name(node.input(0)), node.call.quant("quant"), node.call.dtype("dtype"), node.output.name)


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
    "table": _table,
    "qavg_pool": _qavg_pool,
}
