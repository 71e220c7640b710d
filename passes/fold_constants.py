"""Evaluates what is known at compile time."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node
from qcomp.ir.interpreter import evaluate_node
from qcomp.passes.base import NodeRewrite

# These carry the quantization of weights; folding them would leave floats that merely happen to lie on a grid.
_KEPT = frozenset({"dequantize", "fake_quant"})


@dataclass(frozen=True)
class FoldConstants(NodeRewrite):
    """Replaces nodes whose operands are all constants by the constants they give.

    Dequantized and fake-quantized constants stay unless `quantized` is set, as do results of more than `max_elements`
    elements that are larger than all operands together, and graph outputs.

    before:
        const %a: f32[2] = [1.0, 2.0]
        %b: f32[2] = neg(%a)
        %y: f32[2] = add(%x, %b)
    after:
        const %b: f32[2] = [-1.0, -2.0]
        %y: f32[2] = add(%x, %b)
    """

    max_elements: int = 1 << 20
    quantized: bool = False

    name = "fold-constants"

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if node.op.name in _KEPT and not self.quantized:
            return False
        if any(v is not None and v.data is None for v in node.inputs):
            return False
        if any(graph.is_output(v) for v in node.outputs):
            return False
        known = sum(v.type.elements for v in node.inputs if v is not None)
        if any(v.type.elements > max(self.max_elements, known) for v in node.outputs):
            return False
        arrays = evaluate_node(node, [None if v is None else v.data for v in node.inputs])
        names = [v.name for v in node.outputs]
        quants = [v.quant for v in node.outputs]
        constants = [graph.constant(a, "folded", q) for a, q in zip(arrays, quants, strict=True)]
        graph.replace(node, *constants)
        for constant, name in zip(constants, names, strict=True):
            graph.rename(constant, name)
        return True
