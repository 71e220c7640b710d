"""Removes nodes that give their operand back, and joins data movement in a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import NodeRewrite, may_become
from qcomp.passes.matching import is_op, uniform


@dataclass(frozen=True)
class RemoveNoOps(NodeRewrite):
    """Removes identities of every kind; reshapes and transposes in a row become one.

    Identities: identity, a cast to the same type, reshape/expand/tile/slice/pad/resize/split/concat that change
    nothing, a clip without bounds, add or sub of 0, mul or div by 1, pow 1, pooling of single pixels.  A transpose
    that moves only dimensions of size 1 becomes a reshape.

    before:
        %a: f32[2,12] = reshape(%x) {shape = [2, 12]}
        %b: f32[2,3,4] = reshape(%a) {shape = [2, 3, 4]}
        %y: f32[2,3,4] = mul(%b, %one)
    after:
        %y: f32[2,3,4] = reshape(%x) {shape = [2, 3, 4]}
    """

    name = "remove-no-ops"
    exact = True

    def rewrite(self, graph: Graph, node: Node) -> bool:
        rule = _RULES.get(node.op.name)
        same = rule(node) if rule is not None else None
        if same is not None and same.type == node.outputs[0].type and may_become(graph, node.outputs[0], same):
            graph.replace(node, same)
            return True
        join = _JOINS.get(node.op.name)
        return join is not None and join(graph, node)


def _first(node: Node) -> Value | None:
    return node.input(0)


def _first_if(condition: Callable[[Node], bool]) -> Callable[[Node], Value | None]:
    return lambda node: node.input(0) if condition(node) else None


def _neutral(number: float, *, either_side: bool) -> Callable[[Node], Value | None]:
    """The other operand, where one is a constant that holds the neutral number everywhere."""

    def rule(node: Node) -> Value | None:
        if uniform(node.input(1)) == number:
            return node.input(0)
        if either_side and uniform(node.input(0)) == number:
            return node.input(1)
        return None

    return rule


def _all(node: Node, name: str, value: int | float) -> bool:
    return all(v == value for v in node.call.ints(name))


def _keeps_everything(node: Node) -> bool:
    return node.input(0).shape == node.outputs[0].shape and _all(node, "steps", 1)


def _single_pixels(node: Node) -> bool:
    return _all(node, "kernel", 1) and _all(node, "strides", 1) and _all(node, "pads", 0)


_RULES: MappingProxyType[str, Callable[[Node], Value | None]] = MappingProxyType(
    {
        # The types of operand and result are compared before a rule's answer is taken.
        "identity": _first,
        "cast": _first,
        "reshape": _first,
        "expand": _first,
        "tile": _first_if(lambda n: _all(n, "repeats", 1)),
        "slice": _first_if(_keeps_everything),
        "pad": _first_if(lambda n: _all(n, "pads", 0)),
        "resize": _first_if(lambda n: all(s == 1.0 for s in n.call.attrs["scales"])),  # type: ignore[union-attr]
        "split": _first_if(lambda n: len(n.outputs) == 1),
        "concat": _first_if(lambda n: len(n.inputs) == 1),
        "transpose": _first_if(lambda n: n.call.ints("perm") == tuple(range(len(n.call.ints("perm"))))),
        "clip": _first_if(lambda n: n.call.float("lo") == -math.inf and n.call.float("hi") == math.inf),
        "add": _neutral(0.0, either_side=True),
        "sub": _neutral(0.0, either_side=False),
        "mul": _neutral(1.0, either_side=True),
        "div": _neutral(1.0, either_side=False),
        "pow": _neutral(1.0, either_side=False),
        "max_pool": _first_if(_single_pixels),
        "avg_pool": _first_if(_single_pixels),
    }
)


def _join_reshapes(graph: Graph, node: Node) -> bool:
    """reshape(reshape(x)) -> reshape(x); the inner one may have other users."""
    if not is_op(node.input(0), "reshape"):
        return False
    source = node.input(0).producer
    assert source is not None
    joined = graph.add("reshape", [source.input(0)], node.attrs, node_name=node.name, quants=[node.output.quant])
    graph.replace(node, joined.output)
    return True


def _join_transposes(graph: Graph, node: Node) -> bool:
    """transpose(transpose(x)) -> transpose(x); one that keeps the order of all real dimensions -> reshape(x)."""
    perm, x = node.call.ints("perm"), node.input(0)
    real = [axis for axis in perm if x.shape[axis] != 1]
    if real == sorted(real) and (x.quant is None or x.quant.axis is None):
        reshaped = graph.add("reshape", [x], {"shape": node.output.shape}, node_name=node.name)
        graph.replace(node, reshaped.output)
        return True
    if not is_op(x, "transpose"):
        return False
    source = x.producer
    assert source is not None
    inner = source.call.ints("perm")
    joined = tuple(inner[axis] for axis in perm)
    graph.replace(node, graph.add("transpose", [source.input(0)], {"perm": joined}, node_name=node.name).output)
    return True


def _join_concats(graph: Graph, node: Node) -> bool:
    """A concat that only another concat along the same axis uses gives it its operands."""
    operands: list[Value | None] = []
    for value in node.inputs:
        inner = value.producer if value is not None and graph.sole_user(value) is node else None
        same = inner is not None and inner.op.name == "concat" and inner.attrs["axis"] == node.attrs["axis"]
        operands.extend(inner.inputs if inner is not None and same else [value])
    if len(operands) == len(node.inputs):
        return False
    joined = graph.add("concat", operands, node.attrs, node_name=node.name, quants=[node.output.quant])
    graph.replace(node, joined.output)
    return True


_JOINS: MappingProxyType[str, Callable[[Graph, Node], bool]] = MappingProxyType(
    {"reshape": _join_reshapes, "transpose": _join_transposes, "concat": _join_concats}
)
