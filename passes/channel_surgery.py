"""Taking channels out of integer products and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.registry import Interval
from qcomp.passes.matching import plain_name


def is_depthwise(node: Node) -> bool:
    """A qconv2d with one input channel for each output channel."""
    return node.op.name == "qconv2d" and node.attrs["groups"] == node.output.shape[3] == node.input(0).shape[3] > 1


def is_dense(node: Node) -> bool:
    """A product in which every output channel sees every input channel."""
    if node.op.name == "qgemm":
        return True
    return node.op.name in ("qconv2d", "qconv_transpose2d") and node.attrs.get("groups", 1) == 1


def has_constants(node: Node) -> bool:
    return all(node.input(i).is_constant for i in (1, 2, 3))


def root_and_chain(graph: Graph, value: Value) -> tuple[Node, list[Node]] | None:
    """The dense product whose channels become those of `value`, and the nodes from it to `value`, in order.

    Between are tables, pools and depthwise convolutions only, each the sole user of the one before.
    """
    chain: list[Node] = []
    node = value.producer
    while node is not None and not (is_dense(node) and has_constants(node)):
        passes_channels = node.op.name in ("table", "max_pool") or (is_depthwise(node) and has_constants(node))
        if not passes_channels or graph.sole_user(node.input(0)) is not node:
            return None
        chain.append(node)
        node = node.input(0).producer
    return None if node is None else (node, chain[::-1])


def keep_outputs(graph: Graph, node: Node, keep: np.ndarray, x: Value) -> Value:
    """The node on `x` (its operand with only the channels `keep`, for a chain node) with only these results."""
    operands: list[Value | None] = [x, *node.inputs[1:]]
    attrs = dict(node.attrs)
    if node.op.name not in ("table", "max_pool"):
        for index in (1, 2, 3):
            constant = node.input(index)
            quant = constant.quant if constant.quant is None or constant.quant.axis is None else None
            operands[index] = graph.constant(constant.array[keep], plain_name(constant), quant)
        if is_depthwise(node):
            attrs["groups"] = int(keep.size)
    return graph.add(
        node.op.name, operands, attrs, names=[node.name], node_name=node.name, quants=[node.output.quant]
    ).output


def absorbs(node: Node, constant: float) -> bool:
    """Whether a product turns an input channel that always holds `constant` into a bias, border included."""
    if not is_dense(node) or not has_constants(node):
        return False
    if node.op.name == "qconv_transpose2d":
        return constant == node.call.int("x_zp")
    return constant == node.call.int("x_zp") or not any(node.attrs.get("pads", ()))  # type: ignore[arg-type]


def folded_bias(node: Node, dead: np.ndarray, constants: Sequence[float]) -> np.ndarray:
    """Bias (int64) of a product whose input channels `dead` hold these constants."""
    w = node.input(1).array.astype(np.int64)
    taps = w.sum(axis=tuple(range(1, w.ndim - 1)))
    centred = np.asarray(constants, np.int64) - node.call.int("x_zp")
    return np.asarray(node.input(2).array.astype(np.int64) + taps[:, dead] @ centred)


def drop_inputs(graph: Graph, node: Node, keep: np.ndarray, bias: np.ndarray, x: Value) -> Value:
    """The product on `x`, which has only the channels `keep`, with another bias."""
    weights = node.input(1)
    quant = weights.quant if weights.quant is None or weights.quant.axis in (None, 0) else None
    operands = [
        x,
        graph.constant(weights.array[..., keep], plain_name(weights), quant),
        graph.constant(bias.astype(np.int32), plain_name(node.input(2)), node.input(2).quant),
        *node.inputs[3:],
    ]
    return graph.add(
        node.op.name, operands, node.attrs, names=[node.name], node_name=node.name, quants=[node.output.quant]
    ).output


def channel_bounds(interval: Interval, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds along the last axis, if the interval says nothing finer than that."""
    if any(b.ndim > 1 and max(b.shape[:-1], default=1) != 1 for b in (interval.lo, interval.hi)):
        return None
    lo, hi = (np.broadcast_to(b.reshape(-1), (channels,)) for b in (interval.lo, interval.hi))
    return lo, hi
