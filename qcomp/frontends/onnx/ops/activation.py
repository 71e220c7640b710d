"""Activation functions."""

from __future__ import annotations

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import MICROSOFT, onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.registry import Attribute
from qcomp.ir.types import DType

_PLAIN = {
    "HardSwish": "hard_swish",
    "Mish": "mish",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
}

# op type -> (our op, its attributes: name -> ONNX's default)
_WITH_ATTRIBUTES: dict[str, tuple[str, dict[str, float]]] = {
    "LeakyRelu": ("leaky_relu", {"alpha": 0.01}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
    "Elu": ("elu", {"alpha": 1.0}),
    "Selu": ("selu", {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Celu": ("celu", {"alpha": 1.0}),
    "ThresholdedRelu": ("thresholded_relu", {"alpha": 1.0}),
}


@onnx_op(*_PLAIN)
def plain(node: OnnxNode) -> Value:
    return node.emit(_PLAIN[node.proto.op_type], [node.value(0)])


@onnx_op("Relu")
def relu(node: OnnxNode) -> Value:
    x = node.value(0)
    return node.emit("relu", [x]) if x.dtype.is_float else node.emit("maximum", [x, node.scalar(0, x)])


@onnx_op(*_WITH_ATTRIBUTES)
def with_attributes(node: OnnxNode) -> Value:
    op, defaults = _WITH_ATTRIBUTES[node.proto.op_type]
    attrs: dict[str, Attribute] = {name: _f32(node.attr_float(name, value)) for name, value in defaults.items()}
    return node.emit(op, [node.value(0)], attrs)


def _f32(number: float) -> float:
    return float(np.float32(number))


@onnx_op("PRelu")
def prelu(node: OnnxNode) -> Value:
    x, slope = node.value(0), node.value(1)
    if x.dtype.is_float:
        return node.emit("prelu", [x, slope])
    negative = node.emit("less", [x, node.scalar(0, x)])
    return node.emit("where", [negative, node.emit("mul", [x, slope]), x])


@onnx_op("Gelu")
def gelu(node: OnnxNode) -> Value:
    return node.emit("gelu", [node.value(0)], {"approximate": node.attr_str("approximate", "none")})


@onnx_op("Gelu", domain=MICROSOFT)
def microsoft_gelu(node: OnnxNode) -> Value:
    return node.emit("gelu", [node.value(0)], {"approximate": "none"})


@onnx_op("BiasGelu", domain=MICROSOFT)
def bias_gelu(node: OnnxNode) -> Value:
    return node.emit("gelu", [node.emit("add", [node.value(0), node.value(1)])], {"approximate": "none"})


@onnx_op("FastGelu", domain=MICROSOFT)
def fast_gelu(node: OnnxNode) -> Value:
    x, bias = node.value(0), node.optional(1)
    if bias is not None:
        x = node.emit("add", [x, bias])
    return node.emit("gelu", [x], {"approximate": "tanh"})


@onnx_op("QuickGelu", domain=MICROSOFT)
def quick_gelu(node: OnnxNode) -> Value:
    return swish_of(node, node.value(0), node.attr_float("alpha", 1.702))


@onnx_op("Swish")
def swish(node: OnnxNode) -> Value:
    return swish_of(node, node.value(0), node.attr_float("alpha", 1.0))


def swish_of(node: OnnxNode, x: Value, alpha: float) -> Value:
    """x · sigmoid(alpha · x)."""
    if alpha == 1.0:
        return node.emit("silu", [x])
    gate = node.emit("sigmoid", [node.emit("mul", [x, node.scalar(alpha, x)])])
    return node.emit("mul", [x, gate])


@onnx_op("Softmax", "LogSoftmax")
def softmax(node: OnnxNode) -> Value:
    x = node.value(0)
    op = "softmax" if node.proto.op_type == "Softmax" else "log_softmax"
    if node.opset >= 13:
        return node.emit(op, [x], {"axis": node.axis(len(x.shape), -1)})
    # Before opset 13 the axes from `axis` on are one: the tensor is taken as a matrix.
    axis = node.axis(len(x.shape), 1)
    if axis == len(x.shape) - 1:
        return node.emit(op, [x], {"axis": axis})
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    columns = int(np.prod(x.shape[axis:], dtype=np.int64))
    flat = node.emit(op, [node.reshape(x, (rows, columns))], {"axis": 1})
    return node.reshape(flat, x.shape)


@onnx_op("Hardmax")
def hardmax(node: OnnxNode) -> Value:
    """1 at the first largest element along the axis, 0 elsewhere."""
    x = node.value(0)
    shape = x.shape
    axis = node.axis(len(shape), -1 if node.opset >= 13 else 1)
    if node.opset < 13:
        x = node.reshape(x, (_rest(shape[:axis], 0), _rest(shape, axis)))
        axis = 1
    first = node.emit("argmax", [x], {"axis": axis, "keepdims": False})
    hot = node.emit(
        "one_hot", [first], {"depth": x.shape[axis], "on": 1.0, "off": 0.0, "axis": axis, "dtype": DType.F32}
    )
    return node.reshape(hot, shape)


def _rest(shape: tuple[int, ...], axis: int) -> int:
    return int(np.prod(shape[axis:], dtype=np.int64))


FUSED = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}


def fused_activation(node: OnnxNode, x: Value) -> Value:
    """The `activation` attribute of com.microsoft's fused ops, with its `activation_params`."""
    name = node.attr_str("activation", "")
    params = list(node.attributes["activation_params"].floats) if node.has("activation_params") else []
    if not name:
        return x
    if name in FUSED:
        return node.emit(FUSED[name], [x])
    if name == "LeakyRelu" and len(params) == 1:
        return node.emit("leaky_relu", [x], {"alpha": float(params[0])})
    if name == "Clip" and len(params) == 2:
        return node.emit("clip", [x], {"lo": float(params[0]), "hi": float(params[1])})
    if name == "HardSigmoid" and len(params) == 2:
        return node.emit("hard_sigmoid", [x], {"alpha": float(params[0]), "beta": float(params[1])})
    raise node.unsupported(f"fused activation {name!r}", f"use one of {', '.join(FUSED)}, LeakyRelu, Clip, HardSigmoid")
