"""Brings squeeze-and-excite branches to one form: pooled [N,C,1,1], 1x1 convolutions, no reshapes."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import NodeRewrite
from qcomp.passes.chains import chain_operand, repeat_on
from qcomp.passes.matching import rebuild_weight, weight_source


@dataclass(frozen=True)
class SqueezeExcite(NodeRewrite):
    """gemm between a reshape from [N,K,1,1] and one to [N,O,1,1] becomes a 1x1 conv2d.

    before:
        %r: f32[1,8] = reshape(%pooled) {shape = [1, 8]}
        %g: f32[1,4] = gemm(%r, %w, %b) {trans_b = true}
        %a: f32[1,4] = relu(%g)
        %y: f32[1,4,1,1] = reshape(%a) {shape = [1, 4, 1, 1]}
    after:
        %g.conv: f32[1,4,1,1] = conv2d(%pooled, %w.1, %b)
        %y: f32[1,4,1,1] = relu(%g.conv)
    """

    name = "squeeze-excite"
    exact = True
    ops = frozenset({"reshape"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if node.output.type.rank != 4 or node.output.shape[2:] != (1, 1):
            return False
        if node.input(0).shape != node.output.shape[:2]:
            return False
        chain = _branch(graph, node.input(0))
        if chain is None:
            return False
        first, steps = chain
        value = first
        for step in steps:
            value = _as_conv(graph, step, value) if step.op.name == "gemm" else repeat_on(graph, step, value)
        graph.replace(node, value)
        return True


def _branch(graph: Graph, value: Value) -> tuple[Value, list[Node]] | None:
    """The [N,K,1,1] value a branch starts from and its nodes in order; None if it has no gemm or other users."""
    steps: list[Node] = []
    while value.producer is not None and graph.sole_user(value) is not None:
        node = value.producer
        if node.op.name == "reshape":
            source = node.input(0)
            pooled = source.type.rank == 4 and source.shape[2:] == (1, 1) and source.shape[:2] == value.shape
            has_gemm = any(s.op.name == "gemm" for s in steps)
            return (source, steps[::-1]) if pooled and has_gemm else None
        operand = node.input(0) if _is_plain_gemm(node) else chain_operand(node)
        if operand is None:
            return None
        steps.append(node)
        value = operand
    return None


def _is_plain_gemm(node: Node) -> bool:
    if node.op.name != "gemm" or weight_source(node.input(1)) is None:
        return False
    bias = node.optional(2)
    plain = node.attrs["alpha"] == 1.0 and node.attrs["beta"] == 1.0 and not node.attrs["trans_a"]
    return plain and bool(node.attrs["trans_b"]) and (bias is None or bias.shape == (node.output.shape[1],))


def _as_conv(graph: Graph, gemm: Node, x: Value) -> Value:
    weight = rebuild_weight(graph, gemm.input(1), lambda w: w.reshape(*w.shape, 1, 1), lambda axis: axis)
    operands = [x, weight, gemm.optional(2)]
    return graph.add("conv2d", operands, names=[f"{gemm.name}.conv"], node_name=gemm.name).output
