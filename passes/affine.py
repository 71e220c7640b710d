"""y = x·scale + shift with constants, and how it moves into the products (conv2d, conv_transpose2d, gemm) around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.matching import along_axis, channel_axis, constant_operand, float32, is_float32, plain_name

PRODUCTS = ("conv2d", "conv_transpose2d", "gemm")
# Factors of an input's channels that differ by more than this say that the channels have units of their own.
OWN_UNITS = 8.0


@dataclass(frozen=True)
class Affine:
    """One node read as x·scale + shift; scale and shift are float64 and broadcast against x."""

    x: Value
    scale: np.ndarray
    shift: np.ndarray


def read_affine(node: Node) -> Affine | None:
    """An add, sub, mul, div or neg with a float32 constant that does not enlarge its operand, or a batch_norm."""
    name = node.op.name
    if not node.outputs or not is_float32(node.outputs[0]):
        return None
    zero, one = np.zeros(()), np.ones(())
    if name == "neg":
        return Affine(node.input(0), -one, zero)
    if name == "batch_norm":
        return _read_batch_norm(node)
    pair = constant_operand(node) if name in ("add", "sub", "mul", "div") else None
    if pair is None or pair[0].shape != node.output.shape:
        return None
    x, c = pair[0], pair[1].array.astype(np.float64)
    if not np.isfinite(c).all():
        return None
    constant_first = node.input(0).is_constant
    match name:
        case "add":
            return Affine(x, one, c)
        case "sub":
            return Affine(x, -one, c) if constant_first else Affine(x, one, -c)
        case "mul":
            return Affine(x, c, zero)
    if constant_first or not c.all():
        return None
    return Affine(x, 1.0 / c, zero)


def _read_batch_norm(node: Node) -> Affine | None:
    """scale·(x − mean)/sqrt(var + epsilon) + bias along axis 1 (ONNX BatchNormalization, inference)."""
    arrays = [node.input(i).data for i in range(1, 5)]
    if any(a is None for a in arrays):
        return None
    gain, bias, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    epsilon = node.attrs["epsilon"]
    assert isinstance(epsilon, float)
    scale = gain / np.sqrt(variance + epsilon)
    shape = (-1,) + (1,) * (node.output.type.rank - 2)
    if not np.isfinite(scale).all():
        return None
    return Affine(node.input(0), scale.reshape(shape), (bias - mean * scale).reshape(shape))


def joins_units(graph: Graph, node: Node) -> bool:
    """Whether constants give the channels of a graph input one unit, up to this node: factors very far apart.

    A factor of 0 leaves its channel out.  Only the result fits one int8 grid, not the input.
    """
    x, scale = node.outputs[0], np.ones(())
    while (producer := x.producer) is not None:
        affine = read_affine(producer)
        if affine is not None:
            x, scale = affine.x, affine.scale * scale
        elif producer.op.name == "cast":
            x = producer.input(0)
        else:
            return False
    factors = np.abs(scale[scale != 0.0])
    return x in graph.inputs and factors.size > 0 and bool(factors.max() > OWN_UNITS * factors.min())


def foldable_product(node: Node | None) -> bool:
    """Whether constants can move into the node: constant float32 weights and bias, plain gemm attributes."""
    if node is None or node.op.name not in PRODUCTS:
        return False
    bias = node.optional(2)
    if node.input(1).data is None or (bias is not None and bias.data is None) or not is_float32(node.output):
        return False
    if node.op.name == "gemm":
        plain = node.attrs["alpha"] == 1.0 and node.attrs["beta"] == 1.0 and not node.attrs["trans_a"]
        return plain and bool(node.attrs["trans_b"]) and (bias is None or bias.shape == (node.output.shape[1],))
    return True


def fold_after(graph: Graph, product: Node, affine: Affine) -> Node | None:
    """A product that also applies the affine to its result; None if that varies along more than the channels."""
    shape, axis = product.output.shape, channel_axis(product)
    scale, shift = (along_axis(a, shape, axis) for a in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return None
    w, channels = product.input(1).array.astype(np.float64), shape[axis]
    if product.op.name == "conv_transpose2d":
        groups = int(product.attrs["groups"])  # type: ignore[arg-type]
        grouped = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        weights = (grouped * scale.reshape(groups, 1, channels // groups, 1, 1)).reshape(w.shape)
    else:
        weights = w * scale.reshape(-1, *(1,) * (w.ndim - 1))
    return _rebuilt(graph, product, product.input(0), weights, _bias(product, channels) * scale + shift)


def fold_before(graph: Graph, product: Node, affine: Affine) -> Node | None:
    """A product of affine.x that applies the affine to its operand first; None where that is not exact.

    A scale commutes with zero padding; a shift does not, and a transposed convolution sums another number of taps at
    its border.
    """
    layout_axis = channel_axis(product)
    scale, shift = (along_axis(a, affine.x.shape, layout_axis) for a in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return None
    if shift.any() and (product.op.name == "conv_transpose2d" or any(product.attrs.get("pads", ()))):  # type: ignore[arg-type]
        return None
    w, channels = product.input(1).array.astype(np.float64), product.output.shape[layout_axis]
    bias = _bias(product, channels)
    if product.op.name == "conv_transpose2d":
        return _rebuilt(graph, product, affine.x, w * scale.reshape(-1, 1, 1, 1), bias)
    groups = int(product.attrs.get("groups", 1))  # type: ignore[arg-type]
    grouped = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    per_group = (groups, 1, w.shape[1], 1)
    bias = bias + (grouped * shift.reshape(per_group)).sum(axis=(2, 3)).reshape(-1)
    return _rebuilt(graph, product, affine.x, (grouped * scale.reshape(per_group)).reshape(w.shape), bias)


def _bias(product: Node, channels: int) -> np.ndarray:
    bias = product.optional(2)
    return np.zeros(channels) if bias is None else bias.array.astype(np.float64)


def _rebuilt(graph: Graph, product: Node, x: Value, weights: np.ndarray, bias: np.ndarray) -> Node | None:
    rounded = float32(weights), float32(bias)
    if not (np.isfinite(rounded[0]).all() and np.isfinite(rounded[1]).all()):
        return None
    old = product.optional(2)
    w = graph.constant(rounded[0], plain_name(product.input(1)))
    has_bias = old is not None or rounded[1].any()
    b = graph.constant(rounded[1], plain_name(old) if old is not None else f"{product.name}.bias") if has_bias else None
    return graph.add(product.op.name, [x, w, b], product.attrs, names=[product.output.name], node_name=product.name)
