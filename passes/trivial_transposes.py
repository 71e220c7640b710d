"""trivial-transposes: a transpose that moves no element is a reshape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite
from qcomp.passes.permutations import moves_nothing, per_tensor, permutation


@dataclass(frozen=True)
class TrivialTransposes(NodeRewrite):
    """A transpose that only moves dimensions of size 1 becomes a reshape.

    Before: %y = transpose(%x) {perm = [0, 3, 1, 2]}     x: [1, 1, 1, 8]
    After:  %y = reshape(%x) {shape = [1, 8, 1, 1]}

    It comes after `sink-transposes`, which moves transposes past more ops than reshapes.
    """

    name: ClassVar[str] = "trivial-transposes"
    ops: ClassVar[frozenset[str]] = frozenset({"transpose"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x = node.input(0)
        if not (moves_nothing(x.shape, permutation(node)) and per_tensor(x)):
            return False
        new = graph.add("reshape", [x], {"shape": node.output.shape}, names=[node.output.name])
        graph.replace(node, new.output)
        return True
