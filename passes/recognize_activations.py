"""Finds activation functions that an exporter wrote in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import Pass, is_live
from qcomp.passes.elementwise_cone import Cone, cones
from qcomp.passes.known_activations import POINTS, Attrs, identify
from qcomp.passes.matching import uniform

# Single nodes that a simpler one may replace; every step goes down this list.
_RANK = {"maximum": 2, "minimum": 2, "clip": 1, "relu": 0}

# Constants beyond these could put a bend where no point lies.
_SMALLEST_CONSTANT, _LARGEST_CONSTANT = 1e-3, 64.0


@dataclass(frozen=True)
class RecognizeActivations(Pass):
    """Replaces elementwise pieces that compute a known activation, in whatever order they were written.

    A subgraph that applies one function to each element of one value is evaluated at several thousand points and
    compared with every known activation; up to a constant factor, which stays as a mul.

    before:
        %a: f32[8] = add(%x, %three)
        %c: f32[8] = clip(%a) {lo = 0.0, hi = 6.0}
        %m: f32[8] = mul(%x, %c)
        %y: f32[8] = div(%m, %six)
    after:
        %y: f32[8] = hard_swish(%x)
    """

    max_nodes: int = 12

    name = "recognize-activations"
    exact = False
    tolerance = 1e-5

    def run(self, graph: Graph) -> Graph:
        changed = True
        while changed:
            changed = False
            position = {node: float(index) for index, node in enumerate(graph.nodes)}
            for root in graph.nodes:
                if is_live(graph, root):
                    changed |= self._recognize(graph, root, position)
            graph.prune()
        return graph

    def _recognize(self, graph: Graph, root: Node, position: dict[Node, float]) -> bool:
        for cone in reversed(list(cones(graph, root, position, self.max_nodes))):
            found = _recognized(cone)
            if found is None:
                continue
            op, attrs, factor = found
            cost = 1 + (factor != 1.0)
            simpler = cost == len(cone.nodes) == 1 and _RANK.get(op, 9) < _RANK.get(root.op.name, 0)
            if cost >= len(cone.nodes) and not simpler:
                continue
            new = graph.add(op, [cone.x], attrs, names=[f"{root.name}.{op}"], node_name=root.name)
            position[new] = position[root]
            if factor != 1.0:
                constant = graph.constant(np.asarray(factor, np.float32), f"{root.name}.factor")
                new = graph.add("mul", [new.output, constant])
                position[new] = position[root] + 0.5
            graph.replace(root, new.output)
            return True
        return False


def _recognized(cone: Cone) -> tuple[str, Attrs, float] | None:
    """Op, attributes and factor of the activation that the cone computes; None if it is none of the known."""
    if len(cone.nodes) < 2 and _RANK.get(cone.nodes[0].op.name, 0) == 0:
        return None
    constants = [abs(c) for n in cone.nodes for v in n.inputs if (c := uniform(v)) is not None]
    if any(c != 0 and not _SMALLEST_CONSTANT <= c <= _LARGEST_CONSTANT for c in constants):
        return None
    return identify(cone.evaluate(POINTS))
