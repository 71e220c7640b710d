"""Elementwise arithmetic, comparison and logic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import onnx_op
from qcomp.frontends.onnx.tensors import computed_dtype
from qcomp.ir.graph import Value
from qcomp.ir.types import DType

_UNARY = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Neg": "neg",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}

_BINARY = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
}

_VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "add"}


@onnx_op(*_UNARY)
def unary(node: OnnxNode) -> Value:
    return node.emit(_UNARY[node.proto.op_type], [node.value(0)])


def same_dtype(node: OnnxNode, a: Value, b: Value) -> tuple[Value, Value]:
    """float64 constants next to float32 values are taken as float32."""
    if a.dtype is not b.dtype and a.dtype.is_float and b.dtype.is_float:
        return node.cast(a, DType.F32), node.cast(b, DType.F32)
    return a, b


def binary(node: OnnxNode, op: str, a: Value, b: Value) -> Value:
    return node.emit(op, same_dtype(node, a, b))


@onnx_op(*_BINARY)
def convert_binary(node: OnnxNode) -> Value:
    return binary(node, _BINARY[node.proto.op_type], node.value(0), node.value(1))


@onnx_op(*_VARIADIC)
def variadic(node: OnnxNode) -> Value:
    result = node.value(0)
    for index in range(1, len(node.proto.input)):
        result = binary(node, _VARIADIC[node.proto.op_type], result, node.value(index))
    return result


@onnx_op("Mean")
def mean(node: OnnxNode) -> Value:
    total = variadic_sum(node)
    return node.emit("div", [total, node.scalar(len(node.proto.input), total)])


def variadic_sum(node: OnnxNode) -> Value:
    result = node.value(0)
    for index in range(1, len(node.proto.input)):
        result = binary(node, "add", result, node.value(index))
    return result


@onnx_op("Pow")
def power(node: OnnxNode) -> Value:
    base, exponent = node.value(0), node.value(1)
    if base.dtype is exponent.dtype:
        return node.emit("pow", [base, exponent])
    # The result has the dtype of the base; mixed operands are computed in float.
    result = node.emit("pow", [node.cast(base, DType.F32), node.cast(exponent, DType.F32)])
    return result if base.dtype.is_float else node.cast(result, base.dtype)


@onnx_op("Mod")
def modulo(node: OnnxNode) -> Value:
    """The remainder, with the sign of the dividend (fmod=1) or of the divisor."""
    a, b = same_dtype(node, node.value(0), node.value(1))
    of_dividend = bool(node.attr_int("fmod", 0))
    if a.dtype.is_float:
        rest = node.emit("mod", [a, b])  # with the sign of a
        if of_dividend:
            return rest
        zero = node.scalar(0, a)
        signs = [node.emit("less", [v, zero]) for v in (rest, b)]
        differ = node.emit("logical_xor", signs)
        inexact = node.emit("logical_not", [node.emit("equal", [rest, zero])])
        moved = node.emit("where", [differ, node.emit("add", [rest, b]), rest])
        return node.emit("where", [inexact, moved, rest])
    if of_dividend:
        rest = node.emit("mod", [node.emit("abs", [a]), node.emit("abs", [b])])
        negative = node.emit("less", [a, node.scalar(0, a)])
        return node.emit("where", [negative, node.emit("neg", [rest]), rest])
    return node.emit("mod", [a, b])


@onnx_op("Where")
def where(node: OnnxNode) -> Value:
    return node.emit("where", [node.value(0), *same_dtype(node, node.value(1), node.value(2))])


@onnx_op("Clip")
def clip(node: OnnxNode) -> Value:
    x = node.value(0)
    if node.opset < 11:
        bounds: list[Value | None] = [
            node.scalar(node.attr_float(name), x) if node.has(name) else None for name in ("min", "max")
        ]
    else:
        bounds = [node.optional(1), node.optional(2)]
    lo, hi = bounds
    constants = [b.data for b in bounds if b is not None]
    if x.dtype is DType.F32 and constants and all(c is not None and c.size == 1 for c in constants):
        low = float(lo.array.reshape(-1)[0]) if lo is not None else -float("inf")
        high = float(hi.array.reshape(-1)[0]) if hi is not None else float("inf")
        if low <= high:
            return node.emit("clip", [x], {"lo": float(np.float32(low)), "hi": float(np.float32(high))})
    # max first, then min: a lower bound above the upper one gives the upper.
    if lo is not None:
        x = binary(node, "maximum", x, lo)
    if hi is not None:
        x = binary(node, "minimum", x, hi)
    return x


@onnx_op("IsNaN")
def is_nan(node: OnnxNode) -> Value:
    x = node.value(0)
    return node.emit("logical_not", [node.emit("equal", [x, x])])


@onnx_op("IsInf")
def is_inf(node: OnnxNode) -> Value:
    x = node.value(0)
    positive, negative = node.attr_int("detect_positive", 1), node.attr_int("detect_negative", 1)
    if positive and negative:
        return node.emit("equal", [node.emit("abs", [x]), node.scalar(np.inf, x)])
    if not positive and not negative:
        return node.const(np.zeros(x.shape, np.bool_))
    return node.emit("equal", [x, node.scalar(np.inf if positive else -np.inf, x)])


@onnx_op("Tan")
def tan(node: OnnxNode) -> Value:
    x = node.value(0)
    return node.emit("div", [node.emit("sin", [x]), node.emit("cos", [x])])


@onnx_op("Sinh", "Cosh")
def hyperbolic(node: OnnxNode) -> Value:
    x = node.value(0)
    up, down = node.emit("exp", [x]), node.emit("exp", [node.emit("neg", [x])])
    both = node.emit("sub" if node.proto.op_type == "Sinh" else "add", [up, down])
    return node.emit("mul", [both, node.scalar(0.5, x)])


@onnx_op("Asinh", "Acosh")
def inverse_hyperbolic(node: OnnxNode) -> Value:
    """log(x + sqrt(x² ± 1)); asinh through |x|, where the sum does not cancel."""
    x = node.value(0)
    odd = node.proto.op_type == "Asinh"
    size = node.emit("abs", [x]) if odd else x
    square = node.emit("mul", [size, size])
    root = node.emit("sqrt", [node.emit("add" if odd else "sub", [square, node.scalar(1, x)])])
    result = node.emit("log", [node.emit("add", [size, root])])
    return node.emit("mul", [node.emit("sign", [x]), result]) if odd else result


@onnx_op("Atanh")
def atanh(node: OnnxNode) -> Value:
    x = node.value(0)
    one = node.scalar(1, x)
    ratio = node.emit("div", [node.emit("add", [one, x]), node.emit("sub", [one, x])])
    return node.emit("mul", [node.emit("log", [ratio]), node.scalar(0.5, x)])


@onnx_op("Cast")
def cast(node: OnnxNode) -> Value:
    return to_element(node, node.value(0), node.attr_int("to"))


@onnx_op("CastLike")
def cast_like(node: OnnxNode) -> Value:
    return node.cast(node.value(0), node.value(1).dtype)


def to_element(node: OnnxNode, x: Value, element: int) -> Value:
    """A cast to an ONNX element type; to float64 only where it costs nothing at run time."""
    dtype = computed_dtype(element)
    if dtype is DType.F64 and not x.is_constant:
        dtype = DType.F32
    return node.cast(x, dtype)


@onnx_op("Identity")
def identity(node: OnnxNode) -> Sequence[Value]:
    return [node.value(0)]


@onnx_op("Shrink")
def shrink(node: OnnxNode) -> Value:
    """x + bias below −lambd, x − bias above lambd, 0 between."""
    x = node.value(0)
    bias, limit = node.attr_float("bias", 0.0), node.attr_float("lambd", 0.5)
    dtype = x.dtype
    if not dtype.is_float:
        x = node.cast(x, DType.F32)
    below = node.emit("less", [x, node.scalar(-limit, x)])
    above = node.emit("greater", [x, node.scalar(limit, x)])
    inner = node.emit("where", [above, node.emit("sub", [x, node.scalar(bias, x)]), node.scalar(0, x)])
    result = node.emit("where", [below, node.emit("add", [x, node.scalar(bias, x)]), inner])
    return node.cast(result, dtype)
