"""Normalization layers, in their inference form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import MICROSOFT, onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.registry import Attribute


@onnx_op("BatchNormalization")
def batch_normalization(node: OnnxNode) -> Value:
    if node.attr_int("training_mode", 0) or any(node.wants(i) for i in range(1, 5)):
        raise node.unsupported("training mode", "export the model for inference")
    return node.emit("batch_norm", [node.value(i) for i in range(5)], {"epsilon": node.attr_float("epsilon", 1e-5)})


@onnx_op("InstanceNormalization")
def instance_normalization(node: OnnxNode) -> Value:
    operands = [node.value(i) for i in range(3)]
    return node.emit("instance_norm", operands, {"epsilon": node.attr_float("epsilon", 1e-5)})


@onnx_op("GroupNormalization")
def group_normalization(node: OnnxNode) -> Value:
    x, scale, bias = node.value(0), node.value(1), node.value(2)
    groups, channels = node.attr_int("num_groups"), x.shape[1]
    if channels % groups:
        raise node.fail(f"{channels} channels do not divide into {groups} groups")
    if scale.shape == (groups,) and groups != channels:
        # Until opset 21 there is one scale a group.
        repeat = node.const(np.repeat(np.arange(groups, dtype=np.int64), channels // groups))
        scale, bias = (node.emit("gather", [v, repeat], {"axis": 0}) for v in (scale, bias))
    spread = (channels, *(1,) * (len(x.shape) - 2))
    normal = normalized(
        node,
        node.reshape(x, (x.shape[0], groups, channels // groups * int(np.prod(x.shape[2:], dtype=np.int64)))),
        (2,),
    )
    scaled = node.emit("mul", [node.reshape(normal, x.shape), node.reshape(scale, spread)])
    return node.emit("add", [scaled, node.reshape(bias, spread)])


def normalized(node: OnnxNode, x: Value, axes: Sequence[int]) -> Value:
    """(x − mean) / sqrt(variance + epsilon) over the axes."""
    epsilon = node.attr_float("epsilon", 1e-5)
    centred, inverse, _ = moments(node, x, axes, epsilon)
    return node.emit("mul", [centred, inverse])


def moments(node: OnnxNode, x: Value, axes: Sequence[int], epsilon: float) -> tuple[Value, Value, Value]:
    """x − mean, 1 / sqrt(variance + epsilon) and the mean."""
    over: dict[str, Attribute] = {"axes": tuple(axes), "keepdims": True}
    mean = node.emit("reduce_mean", [x], over)
    centred = node.emit("sub", [x, mean])
    variance = node.emit("reduce_mean", [node.emit("mul", [centred, centred])], over)
    deviation = node.emit("sqrt", [node.emit("add", [variance, node.scalar(epsilon, variance)])])
    return centred, node.emit("reciprocal", [deviation]), mean


@onnx_op("LayerNormalization")
def layer_normalization(node: OnnxNode) -> Sequence[Value]:
    return layer_norm_of(node, node.value(0), node.value(1), node.optional(2))


def layer_norm_of(node: OnnxNode, x: Value, scale: Value, bias: Value | None) -> list[Value]:
    """layer_norm, and the mean and inverse deviation where the node's outputs ask for them."""
    axis, epsilon = node.axis(len(x.shape), -1), node.attr_float("epsilon", 1e-5)
    results = [node.emit("layer_norm", [x, scale, bias], {"axis": axis, "epsilon": epsilon})]
    if node.wants(1) or node.wants(2):
        _, inverse, mean = moments(node, x, range(axis, len(x.shape)), epsilon)
        results += [mean, inverse]
    return results


@onnx_op("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(node: OnnxNode) -> Sequence[Value]:
    x = node.emit("add", [node.value(0), node.value(1)])
    bias = node.optional(4)
    if bias is not None:
        x = node.emit("add", [x, bias])
    if node.wants(1) or node.wants(2):
        raise node.unsupported("mean and deviation outputs", "use its first output and the sum")
    attrs: dict[str, Attribute] = {"axis": len(x.shape) - 1, "epsilon": node.attr_float("epsilon", 1e-12)}
    y = node.emit("layer_norm", [x, node.value(2), node.optional(3)], attrs)
    return [y, y, y, x] if node.wants(3) else [y]


@onnx_op("RMSNormalization")
def rms_normalization(node: OnnxNode) -> Value:
    x = node.value(0)
    axes = tuple(range(node.axis(len(x.shape), -1), len(x.shape)))
    square = node.emit("reduce_mean", [node.emit("mul", [x, x])], {"axes": axes, "keepdims": True})
    root = node.emit("sqrt", [node.emit("add", [square, node.scalar(node.attr_float("epsilon", 1e-5), square)])])
    return node.emit("mul", [node.emit("div", [x, root]), node.value(1)])


@onnx_op("MeanVarianceNormalization")
def mean_variance_normalization(node: OnnxNode) -> Value:
    x = node.value(0)
    axes = tuple(node.normalize(a, len(x.shape)) for a in node.attr_ints("axes", (0, 2, 3)))
    # The definition adds 1e-9 to the standard deviation.
    over: dict[str, Attribute] = {"axes": axes, "keepdims": True}
    centred = node.emit("sub", [x, node.emit("reduce_mean", [x], over)])
    variance = node.emit("reduce_mean", [node.emit("mul", [centred, centred])], over)
    deviation = node.emit("add", [node.emit("sqrt", [variance]), node.scalar(1e-9, x)])
    return node.emit("div", [centred, deviation])


@onnx_op("LpNormalization")
def lp_normalization(node: OnnxNode) -> Value:
    """x / ‖x‖; 0 where the norm is 0."""
    x = node.value(0)
    op = {1: "reduce_l1", 2: "reduce_l2"}.get(node.attr_int("p", 2))
    if op is None:
        raise node.unsupported(f"norm of order {node.attr_int('p', 2)}", "orders 1 and 2 are supported")
    norm = node.emit(op, [x], {"axes": (node.axis(len(x.shape), -1),), "keepdims": True})
    zero = node.emit("equal", [norm, node.scalar(0, norm)])
    return node.emit("div", [x, node.emit("where", [zero, node.scalar(1, norm), norm])])


@onnx_op("LRN")
def local_response_normalization(node: OnnxNode) -> Value:
    """x / (bias + alpha · mean of x² over a window of channels)^beta."""
    x, size = node.value(0), node.attr_int("size")
    n, c = x.shape[:2]
    columns = node.reshape(node.emit("mul", [x, x]), (n, 1, c, x.type.elements // (n * c)))
    pads = ((size - 1) // 2, 0, size // 2, 0)
    attrs: dict[str, Attribute] = {"kernel": (size, 1), "strides": (1, 1), "pads": pads, "count_include_pad": True}
    mean = node.reshape(node.emit("avg_pool", [columns], attrs), x.shape)
    scaled = node.emit("mul", [mean, node.scalar(node.attr_float("alpha", 1e-4), x)])
    base = node.emit("add", [scaled, node.scalar(node.attr_float("bias", 1.0), x)])
    return node.emit("div", [x, node.emit("pow", [base, node.scalar(node.attr_float("beta", 0.75), x)])])
