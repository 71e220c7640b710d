"""fuse-quantize-transpose: what is quantized and then transposed is written in that order at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite
from qcomp.passes.permutations import permutation


@dataclass(frozen=True)
class FuseQuantizeTranspose(NodeRewrite):
    """A transpose that is the only use of a quantize becomes the order of the quantize's result.

    Before: %q: i8[1,3,8,8] q(0.1, 0) = quantize(%x) {quant = q(0.1, 0)}
            %y: i8[1,8,8,3] q(0.1, 0) = transpose(%q) {perm = [0, 2, 3, 1]}
    After:  %y: i8[1,8,8,3] q(0.1, 0) = quantize(%x) {quant = q(0.1, 0), perm = [0, 2, 3, 1]}

    One pass over a model's input instead of two.
    """

    name: ClassVar[str] = "fuse-quantize-transpose"
    ops: ClassVar[frozenset[str]] = frozenset({"transpose"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        source = node.input(0).producer
        if source is None or source.op.name != "quantize" or graph.sole_user(node.input(0)) is not node:
            return False
        quant = source.call.quant("quant")
        if quant.axis is not None or source.call.ints("perm"):
            return False
        attrs = {**source.attrs, "perm": permutation(node)}
        new = graph.add("quantize", [source.input(0)], attrs, names=[node.output.name], node_name=source.name)
        graph.replace(node, new.output)
        return True
