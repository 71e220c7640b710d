"""Questions that rewrites ask of the nodes around them."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType, Quantization

# Ops of one operand that act on each element alone.
UNARY = frozenset({
    "relu", "leaky_relu", "clip", "hard_sigmoid", "hard_swish", "sigmoid", "silu", "tanh", "exp", "log",
    "sqrt", "erf", "gelu", "softplus", "elu", "selu", "celu", "mish", "softsign", "abs", "neg", "floor",
    "ceil", "round", "reciprocal", "sign", "sin", "cos", "logical_not", "thresholded_relu", "identity",
    "cast",
})
# Ops of two operands that act on each pair of elements (numpy broadcasting).
BINARY = frozenset({"add", "sub", "mul", "div", "pow", "maximum", "minimum", "mod"})
COMMUTATIVE = frozenset(
    {"add", "mul", "maximum", "minimum", "equal", "logical_and", "logical_or", "logical_xor"}
)


def is_op(value: Value | None, *names: str) -> bool:
    """Whether one of these ops computes the value."""
    return value is not None and value.producer is not None and value.producer.op.name in names


def sole_producer(graph: Graph, value: Value, *names: str) -> Node | None:
    """The node that computes the value, if it is one of these ops, has one result and nothing else uses it."""
    node = value.producer
    if node is None or node.op.name not in names or len(node.outputs) != 1:
        return None
    return node if graph.sole_user(value) is not None else None


def uniform(value: Value | None) -> float | None:
    """The one number that a float constant holds in all its elements."""
    if value is None or value.data is None or not value.dtype.is_float or value.data.size == 0:
        return None
    first = value.data.reshape(-1)[0]
    return float(first) if bool((value.data == first).all()) else None


def constant_operand(node: Node) -> tuple[Value, Value] | None:
    """(computed operand, constant operand) of a binary node with exactly one constant."""
    if len(node.inputs) != 2:
        return None
    a, b = node.input(0), node.input(1)
    if a.is_constant == b.is_constant:
        return None
    return (b, a) if a.is_constant else (a, b)


def channel_axis(node: Node) -> int:
    """The axis of a product's result that counts its output channels."""
    if node.op.name == "gemm":
        return 1
    return 1 if node.attrs.get("layout", "NCHW") == "NCHW" else 3


def weight_axis(node: Node) -> int:
    """Axis of the weights of a product along which its output channels lie."""
    if node.op.name == "conv2d":
        return 0
    if node.op.name == "conv_transpose2d":
        return 1
    return 0 if node.attrs["trans_b"] else 1


def along_axis(array: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray | None:
    """The float64 vector of length shape[axis] that an operand adds along one axis when broadcast to `shape`.

    None if it varies along another axis or if broadcasting would enlarge the shape.
    """
    if array.ndim > len(shape):
        if any(d != 1 for d in array.shape[: array.ndim - len(shape)]):
            return None
        array = array.reshape(array.shape[array.ndim - len(shape) :])
    padded = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    for dim, (have, want) in enumerate(zip(padded.shape, shape, strict=True)):
        if have != 1 and (dim != axis or have != want):
            return None
    return np.broadcast_to(padded.reshape(-1).astype(np.float64), (shape[axis],))


def float32(array: np.ndarray) -> np.ndarray:
    """Rounded once to float32."""
    return np.asarray(array, np.float32)


def weight_source(value: Value) -> Value | None:
    """The constant behind a weight: itself, or the operand of the fake_quant or dequantize that yields it."""
    if value.is_constant:
        return value
    node = value.producer
    if node is not None and node.op.name in ("fake_quant", "dequantize"):
        source = node.input(0)
        return source if source.is_constant else None
    return None


def rebuild_weight(
    graph: Graph, value: Value, change: Callable[[np.ndarray], np.ndarray], axis_of: Callable[[int], int]
) -> Value:
    """The weight with its constant rearranged by `change`; `axis_of` says where each axis went.

    Quantization goes along, through the fake_quant or dequantize in between.  Requires `weight_source`.
    """
    source = weight_source(value)
    assert source is not None

    def moved(quant: Quantization | None) -> Quantization | None:
        if quant is None or quant.axis is None:
            return quant
        return Quantization(quant.scale, quant.zero_point, axis_of(quant.axis))

    constant = graph.constant(change(source.array), plain_name(source), moved(source.quant))
    node = value.producer
    if node is None:
        return constant
    attrs = {k: moved(v) if isinstance(v, Quantization) else v for k, v in node.attrs.items()}
    return graph.add(node.op.name, [constant], attrs, names=[value.name], node_name=node.name).output  # type: ignore[arg-type]


def plain_name(value: Value) -> str:
    """The value's name without the numbers that earlier rewrites gave it; a hint for what replaces it."""
    return re.sub(r"(\.\d+)+\Z", "", value.name) or value.name


def is_float32(value: Value) -> bool:
    return value.dtype is DType.F32
