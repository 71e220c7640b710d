"""Finds layer normalization that an exporter wrote in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import constant_operand, is_float32, is_op, plain_name, uniform


@dataclass(frozen=True)
class RecognizeLayerNorm(NodeRewrite):
    """(x − mean) / sqrt(mean((x − mean)²) + epsilon) over trailing axes becomes layer_norm; then its scale and bias.

    before:
        %m: f32[2,1] = reduce_mean(%x) {axes = [1], keepdims = true}
        %d: f32[2,8] = sub(%x, %m)
        %p: f32[2,8] = mul(%d, %d)
        %v: f32[2,1] = reduce_mean(%p) {axes = [1], keepdims = true}
        %e: f32[2,1] = add(%v, %epsilon)
        %s: f32[2,1] = sqrt(%e)
        %n: f32[2,8] = div(%d, %s)
        %g: f32[2,8] = mul(%n, %scale)
        %y: f32[2,8] = add(%g, %bias)
    after:
        %y: f32[2,8] = layer_norm(%x, %scale.1, %bias.1) {axis = 1, epsilon = 1e-05}
    """

    name = "recognize-layer-norm"
    exact = False
    tolerance = 1e-4
    ops = frozenset({"div", "mul", "add"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if not is_float32(node.output):
            return False
        normalized = _match_normalization(node)
        if normalized is not None:
            x, axis, epsilon = normalized
            ones = graph.constant(np.ones(x.shape[axis:], np.float32), f"{node.name}.scale")
            attrs = {"axis": axis, "epsilon": epsilon}
            graph.replace(node, graph.add("layer_norm", [x, ones], attrs, node_name=node.name).output)
            return True
        return _absorb(graph, node)


def _match_normalization(node: Node) -> tuple[Value, int, float] | None:
    """x, first normalized axis and epsilon, if the node is the division at the end of the pieces."""
    centred, inverse = _quotient(node)
    if centred is None or inverse is None or not is_op(inverse, "sqrt"):
        return None
    shifted = _producer(inverse).input(0)
    if not is_op(shifted, "add"):
        return None
    pair = constant_operand(_producer(shifted))
    epsilon = uniform(pair[1]) if pair is not None else None
    if pair is None or epsilon is None or not is_op(pair[0], "reduce_mean"):
        return None
    variance = _producer(pair[0])
    squared = _square_of(variance.input(0))
    if squared is None or not _same_difference(squared, centred) or not is_op(centred, "sub"):
        return None
    x, mean = _producer(centred).input(0), _producer(centred).input(1)
    if not is_op(mean, "reduce_mean") or _producer(mean).input(0) is not x:
        return None
    axes = _axes(_producer(mean))
    if axes != _axes(variance) or not axes or axes != tuple(range(axes[0], x.type.rank)):
        return None
    return x, axes[0], epsilon


def _quotient(node: Node) -> tuple[Value | None, Value | None]:
    """(a, b) of a / b or a · reciprocal(b)."""
    if node.op.name == "div":
        return node.input(0), node.input(1)
    if node.op.name == "mul":
        for index in (0, 1):
            if is_op(node.input(index), "reciprocal"):
                return node.input(1 - index), _producer(node.input(index)).input(0)
    return None, None


def _square_of(value: Value) -> Value | None:
    if is_op(value, "mul") and _producer(value).input(0) is _producer(value).input(1):
        return _producer(value).input(0)
    if is_op(value, "pow") and uniform(_producer(value).input(1)) == 2.0:
        return _producer(value).input(0)
    return None


def _same_difference(a: Value, b: Value) -> bool:
    """The same value, or the same subtraction written twice."""
    if a is b:
        return True
    return is_op(a, "sub") and is_op(b, "sub") and _producer(a).inputs == _producer(b).inputs


def _producer(value: Value) -> Node:
    assert value.producer is not None
    return value.producer


def _axes(node: Node) -> tuple[int, ...]:
    rank = node.input(0).type.rank
    if not node.attrs["keepdims"]:
        return ()
    return tuple(sorted(axis % rank for axis in node.call.ints("axes")))


def _absorb(graph: Graph, node: Node) -> bool:
    """mul after a layer_norm into its scale, add into its bias, if the constant varies along its axes only."""
    pair = constant_operand(node) if node.op.name in ("mul", "add") else None
    if pair is None or not is_op(pair[0], "layer_norm") or graph.sole_user(pair[0]) is not node:
        return False
    if pair[0].shape != node.output.shape:
        return False
    norm, constant = _producer(pair[0]), pair[1].array
    scale, bias = norm.input(1), norm.optional(2)
    leading, trailing = constant.shape[: -scale.type.rank], constant.shape[-scale.type.rank :]
    fits = all(d == 1 for d in leading) and np.broadcast_shapes(trailing, scale.shape) == scale.shape
    if scale.data is None or (bias is not None and bias.data is None) or not fits:
        return False
    spread = np.broadcast_to(constant.reshape(trailing), scale.shape)
    if node.op.name == "mul":
        new_scale = scale.data * spread
        new_bias = None if bias is None else bias.array * spread
    else:
        new_scale, new_bias = scale.data, spread if bias is None else bias.array + spread
    constant_name = plain_name(pair[1])
    hints = (plain_name(scale), constant_name) if node.op.name == "add" else (constant_name, constant_name)
    operands = [norm.input(0), graph.constant(new_scale, hints[0])]
    operands += [] if new_bias is None else [graph.constant(new_bias, hints[1])]
    graph.replace(node, graph.add("layer_norm", operands, norm.attrs, node_name=norm.name).output)
    return True
