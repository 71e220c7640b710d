"""Moves reshapes past elementwise nodes to where they meet another reshape."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite
from qcomp.passes.chains import chain_operand, repeat_on


@dataclass(frozen=True)
class ReorderReshapes(NodeRewrite):
    """Two reshapes with only elementwise nodes between become one, after these nodes.

    before:
        %a: f32[2,12] = reshape(%x) {shape = [2, 12]}
        %b: f32[2,12] = relu(%a)
        %y: f32[2,3,4] = reshape(%b) {shape = [2, 3, 4]}
    after:
        %b.moved: f32[2,4,3] = relu(%x)
        %y: f32[2,3,4] = reshape(%b.moved) {shape = [2, 3, 4]}
    """

    name = "reorder-reshapes"
    exact = True
    ops = frozenset({"reshape"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        chain: list[Node] = []
        value = node.input(0)
        while graph.sole_user(value) is not None and value.producer is not None:
            source = value.producer
            if source.op.name == "reshape":
                break
            operand = chain_operand(source)
            if operand is None:
                return False
            chain.append(source)
            value = operand
        first = value.producer
        if not chain or first is None or first.op.name != "reshape" or graph.sole_user(value) is None:
            return False
        moved = first.input(0)
        for step in reversed(chain):
            moved = repeat_on(graph, step, moved)
        attrs = {"shape": node.output.shape}
        joined = graph.add("reshape", [moved], attrs, node_name=node.name, quants=[node.output.quant])
        graph.replace(node, joined.output)
        return True
