"""Finds softmax that an exporter wrote in pieces."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import is_float32, is_op


@dataclass(frozen=True)
class RecognizeSoftmax(NodeRewrite):
    """exp(x − max(x)) / sum(exp(x − max(x))) becomes softmax, with or without the maximum; its log, log_softmax.

    before:
        %m: f32[2,1] = reduce_max(%x) {axes = [1], keepdims = true}
        %d: f32[2,8] = sub(%x, %m)
        %e: f32[2,8] = exp(%d)
        %s: f32[2,1] = reduce_sum(%e) {axes = [1], keepdims = true}
        %y: f32[2,8] = div(%e, %s)
    after:
        %y: f32[2,8] = softmax(%x) {axis = 1}
    """

    name = "recognize-softmax"
    exact = False
    tolerance = 1e-5
    ops = frozenset({"div", "log"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if not is_float32(node.output):
            return False
        if node.op.name == "log":
            return _log_of_softmax(graph, node)
        e, total = node.input(0), node.input(1)
        if not (is_op(e, "exp") and is_op(total, "reduce_sum")):
            return False
        axis = _axis(total)
        if axis is None or _operand(total) is not e:
            return False
        x = _operand(e)
        if is_op(x, "sub"):
            difference = x.producer
            assert difference is not None
            peak = difference.input(1)
            if is_op(peak, "reduce_max") and _operand(peak) is difference.input(0) and _axis(peak) == axis:
                x = difference.input(0)
        graph.replace(node, graph.add("softmax", [x], {"axis": axis}, node_name=node.name).output)
        return True


def _operand(value: Value) -> Value:
    assert value.producer is not None
    return value.producer.input(0)


def _axis(value: Value) -> int | None:
    """The one axis that a reduction keeps as 1."""
    node = value.producer
    assert node is not None
    axes = node.call.ints("axes")
    return axes[0] % value.type.rank if len(axes) == 1 and node.attrs["keepdims"] else None


def _log_of_softmax(graph: Graph, node: Node) -> bool:
    x = node.input(0)
    if not is_op(x, "softmax") or graph.sole_user(x) is not node:
        return False
    source = x.producer
    assert source is not None
    graph.replace(
        node, graph.add("log_softmax", [source.input(0)], source.attrs, node_name=node.name).output
    )
    return True
