"""Computes equal things once."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Value
from qcomp.passes.base import Pass
from qcomp.passes.matching import COMMUTATIVE


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merges constants of equal type and data, and nodes of equal op, operands, attributes and result types.

    before:
        %a: f32[4] = relu(%x)
        %b: f32[4] = relu(%x)
        %y: f32[4] = add(%a, %b)
    after:
        %a: f32[4] = relu(%x)
        %y: f32[4] = add(%a, %a)
    """

    name = "common-subexpressions"

    def run(self, graph: Graph) -> Graph:
        _merge_constants(graph)
        first: dict[object, tuple[Value, ...]] = {}
        for node in graph.nodes:
            operands = tuple("" if v is None else v.name for v in node.inputs)
            if node.op.name in COMMUTATIVE:
                operands = tuple(sorted(operands))
            key = (node.op.name, operands, tuple(node.attrs.items()), tuple(v.type for v in node.outputs))
            twins = first.setdefault(key, node.outputs)
            if twins is node.outputs or any(graph.is_output(v) for v in node.outputs):
                continue
            for old, new in zip(node.outputs, twins, strict=True):
                graph.replace_all_uses(old, new)
            graph.erase(node)
        return graph


def _merge_constants(graph: Graph) -> None:
    first: dict[object, Value] = {}
    for value in graph.constants:
        twin = first.setdefault((value.type, value.array.tobytes()), value)
        if twin is not value and not graph.is_output(value):
            graph.replace_all_uses(value, twin)
            graph.erase_constant(value)
