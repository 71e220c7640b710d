"""Operators on integers (QLinear..., QGemm): written as dequantize -> float op -> quantize.

One set of passes then treats them and the Q/DQ form alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.ops.convolution import convolution
from qcomp.frontends.onnx.ops.elementwise import binary
from qcomp.frontends.onnx.ops.matrix import product
from qcomp.frontends.onnx.ops.movement import concat_of
from qcomp.frontends.onnx.ops.pooling import average, global_pooling
from qcomp.frontends.onnx.ops.quantization import Grid, dequantize, quantize, read_grid
from qcomp.frontends.onnx.table import MICROSOFT, onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.types import DType, Quantization


def real(node: OnnxNode, index: int, axis: int = 0) -> Value:
    """The reals of the integer input at `index`, whose scale and zero point are the next two inputs."""
    q = node.value(index)
    return dequantize(node, q, read_grid(node, index + 1, index + 2, len(q.shape), axis, q.dtype))


def integers(node: OnnxNode, y: Value, scale: int, like: int | None = None) -> Value:
    """y on the grid of the inputs `scale` and `scale + 1`."""
    dtype = node.value(like).dtype if like is not None and node.optional(scale + 1) is None else None
    return quantize(node, y, read_grid(node, scale, scale + 1, len(y.shape), 1, dtype))


def bias_of(node: OnnxNode, index: int, factors: Sequence[np.ndarray]) -> Value | None:
    """An int32 bias, on the grid whose scale is the product of the operands' scales."""
    bias = node.optional(index)
    if bias is None:
        return None
    scales = np.asarray(np.prod(np.broadcast_arrays(*[f.astype(np.float32).reshape(-1) for f in factors]), axis=0))
    scales = scales.astype(np.float32)
    if scales.size == 1:
        quant = Quantization.per_tensor(float(scales[0]))
    else:
        quant = Quantization.per_channel(scales, len(bias.shape) - 1)
    return dequantize(node, bias, Grid(quant, DType.I32))


@onnx_op("QLinearConv")
@onnx_op("QLinearConv", domain=MICROSOFT)
def qlinear_conv(node: OnnxNode) -> Value:
    if node.attr_int("channels_last", 0):
        raise node.unsupported("channels_last", "export with channels first")
    bias = bias_of(node, 8, [node.constant(1, "the scale"), node.constant(4, "the scale")])
    y = convolution(node, real(node, 0), real(node, 3), bias)
    return integers(node, y, 6)


@onnx_op("QLinearMatMul")
def qlinear_matmul(node: OnnxNode) -> Value:
    # One scale a row of the left operand, one a column of the right.
    return integers(node, product(node, real(node, 0, -2), real(node, 3, -1)), 6)


@onnx_op("QGemm", domain=MICROSOFT)
def qgemm(node: OnnxNode) -> Value:
    transposed = bool(node.attr_int("transB", 0))
    alpha = node.attr_float("alpha", 1.0)
    scales = [node.constant(1, "the scale"), node.constant(4, "the scale"), np.asarray([alpha], np.float32)]
    attrs = {
        "alpha": alpha,
        "beta": 1.0,
        "trans_a": bool(node.attr_int("transA", 0)),
        "trans_b": transposed,
    }
    y = node.emit("gemm", [real(node, 0), real(node, 3, 0 if transposed else 1), bias_of(node, 6, scales)], attrs)
    return y if node.optional(7) is None else integers(node, y, 7, like=0)


_BINARY = {"QLinearAdd": "add", "QLinearMul": "mul"}


@onnx_op(*_BINARY, domain=MICROSOFT)
def qlinear_binary(node: OnnxNode) -> Value:
    y = binary(node, _BINARY[node.proto.op_type], real(node, 0), real(node, 3))
    return integers(node, y, 6, like=0)


@onnx_op("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_activation(node: OnnxNode) -> Value:
    x = real(node, 0)
    if node.proto.op_type == "QLinearSigmoid":
        y = node.emit("sigmoid", [x])
    else:
        y = node.emit("leaky_relu", [x], {"alpha": node.attr_float("alpha", 0.01)})
    return integers(node, y, 3, like=0)


@onnx_op("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(node: OnnxNode) -> Value:
    x = real(node, 0)
    rank = len(x.shape)
    axis = node.axis(rank, -1)
    if node.attr_int("opset", 13) >= 13 or axis == rank - 1:
        return integers(node, node.emit("softmax", [x], {"axis": axis}), 3, like=0)
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    flat = node.emit("softmax", [node.reshape(x, (rows, x.type.elements // rows))], {"axis": 1})
    return integers(node, node.reshape(flat, x.shape), 3, like=0)


def _moved(node: OnnxNode, x: Value, first: bool) -> Value:
    """Channels last to first, or back."""
    rank = len(x.shape)
    perm = (0, rank - 1, *range(1, rank - 1)) if first else (0, *range(2, rank), 1)
    return node.emit("transpose", [x], {"perm": perm})


@onnx_op("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_pool(node: OnnxNode) -> Value:
    x, last = real(node, 0), bool(node.attr_int("channels_last", 0))
    if last:
        x = _moved(node, x, True)
    y = average(node, x) if node.proto.op_type == "QLinearAveragePool" else global_pooling(node, x, "avg_pool")
    return integers(node, _moved(node, y, False) if last else y, 3, like=0)


@onnx_op("QLinearReduceMean", domain=MICROSOFT)
def qlinear_reduce_mean(node: OnnxNode) -> Value:
    x = real(node, 0)
    rank = len(x.shape)
    axes = tuple(sorted(node.normalize(a, rank) for a in node.attr_ints("axes", range(rank))))
    y = node.emit("reduce_mean", [x], {"axes": axes, "keepdims": bool(node.attr_int("keepdims", 1))})
    return integers(node, y, 3, like=0)


@onnx_op("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: OnnxNode) -> Value:
    values = [real(node, i) for i in range(2, len(node.proto.input), 3)]
    return integers(node, concat_of(node, values, node.axis(len(values[0].shape), 0)), 0, like=2)


@onnx_op("QLinearWhere", domain=MICROSOFT)
def qlinear_where(node: OnnxNode) -> Value:
    return integers(node, node.emit("where", [node.value(0), real(node, 1), real(node, 4)]), 7, like=1)


@onnx_op("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(node: OnnxNode) -> Value:
    """(A − a_zp)·(B − b_zp) in int32, times a_scale · b_scale, plus a bias."""
    zeros = [node.optional(4), node.optional(5)]
    y = product(node, node.value(0), node.value(1), "matmul_integer", zeros)
    return _scaled(node, y, node.value(2), node.value(3), node.optional(6))


@onnx_op("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(node: OnnxNode) -> Value:
    q, scale, zero = node.emit_all("dynamic_quantize", [node.value(0)])
    y = product(node, q, node.value(1), "matmul_integer", [zero, node.optional(3)])
    return _scaled(node, y, scale, node.value(2), node.optional(4))


def _scaled(node: OnnxNode, y: Value, a_scale: Value, b_scale: Value, bias: Value | None) -> Value:
    result = node.emit("mul", [node.cast(y, DType.F32), node.emit("mul", [a_scale, b_scale])])
    return result if bias is None else node.emit("add", [result, bias])
