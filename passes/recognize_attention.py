"""Finds scaled dot-product attention that an exporter wrote in pieces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import NodeRewrite
from qcomp.passes.integer_regions import is_parameter
from qcomp.passes.matching import constant_operand, is_float32, uniform

# What a where puts in place of a score to hide it is at most this: added to an ordinary score, it still is this.
_HIDDEN = -1e9


@dataclass(frozen=True)
class RecognizeAttention(NodeRewrite):
    """matmul(softmax(matmul(q, kᵀ) · scale + mask), v) becomes attention, whose scores never leave it.

    Factors of q, of kᵀ and of the scores join in the scale; what is added to the scores, and what a where hides,
    becomes the mask.  attention has heads inside positions, so transposes come before and after it; those that
    exporters write cancel them.

    before:
        %s: f32[1,2,4,4] = matmul(%q, %k)
        %d: f32[1,2,4,4] = div(%s, %eight)
        %m: f32[1,2,4,4] = add(%d, %mask)
        %p: f32[1,2,4,4] = softmax(%m) {axis = 3}
        %y: f32[1,2,4,3] = matmul(%p, %v)
    after:
        %q.heads: f32[1,4,2,5] = transpose(%q) {perm = [0, 2, 1, 3]}
        %k.heads: f32[1,4,2,5] = transpose(%k) {perm = [0, 3, 1, 2]}
        %v.heads: f32[1,4,2,3] = transpose(%v) {perm = [0, 2, 1, 3]}
        %y.heads: f32[1,4,2,3] = attention(%q.heads, %k.heads, %v.heads, %mask) {scale = 0.125}
        %y: f32[1,2,4,3] = transpose(%y.heads) {perm = [0, 2, 1, 3]}
    """

    name = "recognize-attention"
    exact = False
    tolerance = 1e-4
    ops = frozenset({"matmul"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        weights, v = node.input(0), node.input(1)
        softmax = weights.producer
        if softmax is None or softmax.op.name != "softmax" or graph.sole_user(weights) is not node:
            return False
        rank = weights.type.rank
        if softmax.call.int("axis") % rank != rank - 1 or not 2 <= rank <= 4:
            return False
        found = _scores(graph, softmax.input(0), softmax)
        if found is None:
            return False
        scores, factor, masks = found
        q, q_factor = _unscaled(scores.input(0))
        k, k_factor = _unscaled(scores.input(1))
        if any(is_parameter(x) or not is_float32(x) for x in (q, k, v)):
            return False
        if not (q.type.rank == k.type.rank == v.type.rank == rank and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]):
            return False
        if min((*q.shape, *k.shape, *v.shape)) < 1:
            return False
        _build(graph, node, (q, k, v), _joined(graph, masks, rank), factor * q_factor * k_factor)
        return True


@dataclass(frozen=True)
class _Mask:
    """An add or a where between the product and the softmax: which operand the scores are, and what multiplies all
    of it behind."""

    node: Node
    scores: int
    factor: float = 1.0


def _scores(graph: Graph, value: Value, user: Node) -> tuple[Node, float, list[_Mask]] | None:
    """The product behind the operand of a softmax, the scores' factor, and what masks them, the first first."""
    node = value.producer
    if node is None or graph.sole_user(value) is not user:
        return None
    if node.op.name == "matmul":
        return node, 1.0, []
    factor, inner = _factor(node)
    if inner is not None:
        found = _scores(graph, inner, node)
        return found and (found[0], found[1] * factor, [replace(m, factor=m.factor * factor) for m in found[2]])
    for index, other in {"add": ((0, 1), (1, 0)), "where": ((1, 2), (2, 1))}.get(node.op.name, ()):
        if node.input(index).shape != node.output.shape or (node.op.name == "where" and not _hides(node.input(other))):
            continue
        found = _scores(graph, node.input(index), node)
        if found is not None:
            return found[0], found[1], [*found[2], _Mask(node, index)]
    return None


def _hides(value: Value) -> bool:
    low = uniform(value)
    return low is not None and low <= _HIDDEN


def _factor(node: Node) -> tuple[float, Value | None]:
    """(c, x) of x · c, c · x and x / c with one number c; (1, None) for anything else."""
    pair = constant_operand(node) if node.op.name in ("mul", "div") else None
    number = uniform(pair[1]) if pair is not None and pair[0].shape == node.output.shape else None
    if pair is None or number is None or not np.isfinite(number):
        return 1.0, None
    if node.op.name == "mul":
        return number, pair[0]
    return (1.0 / number, pair[0]) if pair[0] is node.input(0) and number != 0.0 else (1.0, None)


def _unscaled(value: Value) -> tuple[Value, float]:
    """The value without the factors of one number that it was multiplied with, and their product."""
    factor = 1.0
    while value.producer is not None:
        own, inner = _factor(value.producer)
        if inner is None:
            break
        value, factor = inner, factor * own
    return value, factor


def _joined(graph: Graph, masks: list[_Mask], rank: int) -> Value | None:
    """What the masks add to the scores, as [batch, head, query, key].

    A where hides what earlier masks added too: numbers that each hide a score by itself would overflow as a sum."""
    total: Value | None = None
    for mask in masks:
        other = mask.node.input((3 if mask.node.op.name == "where" else 1) - mask.scores)
        name = other.name
        if mask.factor != 1.0:
            constant = graph.constant(np.asarray(mask.factor, np.float32), f"{name}.factor")
            other = graph.add("mul", [other, constant], names=[f"{name}.scaled"]).output
        if mask.node.op.name == "where":
            shown = graph.constant(np.zeros((), np.float32), f"{mask.node.name}.shown") if total is None else total
            sides = [shown, other] if mask.scores == 1 else [other, shown]
            names = [f"{mask.node.output.name}.mask"]
            total = graph.add("where", [mask.node.input(0), *sides], names=names).output
        else:
            total = other if total is None else graph.add("add", [total, other], names=[f"{name}.sum"]).output
    if total is None or total.type.rank == 4:
        return total
    shape = (1,) * (rank - total.type.rank) + total.shape
    batch = shape[0] if rank == 3 else 1
    shape = (batch, 1, *shape[-2:]) if rank < 4 else shape
    return graph.add("reshape", [total], {"shape": shape}, names=[f"{total.name}.heads"]).output


# rank -> the order of dimensions that brings positions forward (of q and v, of kᵀ)
_ORDERS = {2: ((0, 1), (1, 0)), 3: ((0, 1, 2), (0, 2, 1)), 4: ((0, 2, 1, 3), (0, 3, 1, 2))}


def _build(graph: Graph, node: Node, operands: tuple[Value, Value, Value], mask: Value | None, scale: float) -> None:
    rank = operands[0].type.rank
    order, transposed = _ORDERS[rank]
    arranged: list[Value | None] = []
    for value, perm in zip(operands, (order, transposed, order), strict=True):
        name = [f"{value.name}.heads"]
        if perm != tuple(range(rank)):
            value = graph.add("transpose", [value], {"perm": perm}, names=name).output
        if rank < 4:
            shape = (*(1,) * (3 - rank), *value.shape[:-1], 1, value.shape[-1])
            value = graph.add("reshape", [value], {"shape": shape}, names=name).output
        arranged.append(value)
    attrs = {"scale": float(np.float32(scale))}
    y = graph.add("attention", [*arranged, mask], attrs, names=[f"{node.output.name}.heads"], node_name=node.name)
    if rank < 4:
        back = graph.add("reshape", [y.output], {"shape": node.output.shape})
    else:
        back = graph.add("transpose", [y.output], {"perm": order})
    graph.replace(node, back.output)
