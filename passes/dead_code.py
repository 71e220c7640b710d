"""Removes what no output needs."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph
from qcomp.passes.base import Pass


@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes nodes and constants that no graph output depends on; graph inputs stay.

    before:
        %y: f32[4] = relu(%x)
        %z: f32[4] = tanh(%x)
        output %y
    after:
        %y: f32[4] = relu(%x)
        output %y
    """

    name = "dead-code"

    def run(self, graph: Graph) -> Graph:
        graph.prune()
        return graph
