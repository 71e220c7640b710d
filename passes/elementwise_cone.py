"""Finds subgraphs that apply one real function to every element of one value, and evaluates that function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.registry import Call
from qcomp.ir.types import TensorType
from qcomp.passes.matching import BINARY, UNARY, is_float32, uniform

_OPS = (UNARY | BINARY) - {"cast", "logical_not", "mod"}


@dataclass(frozen=True)
class Cone:
    """Nodes, producers first, that compute root = f(x) elementwise; nothing else uses what they compute."""

    x: Value
    nodes: tuple[Node, ...]

    def evaluate(self, points: np.ndarray) -> np.ndarray:
        """f at points, f32[n] -> f32[n], with the ops' own semantics."""
        known: dict[Value, np.ndarray] = {self.x: points}
        type = TensorType.f32(points.size)
        for node in self.nodes:
            operands = [_operand(v, known, points.size) for v in node.inputs if v is not None]
            call = Call((type,) * len(operands), node.attrs, (None,) * len(operands), (type,), node.name)
            with np.errstate(all="ignore"):
                (result,) = node.op.evaluate(call, *operands)
            known[node.output] = result
        return known[self.nodes[-1].output]


def _operand(value: Value, known: dict[Value, np.ndarray], size: int) -> np.ndarray:
    if value in known:
        return known[value]
    return np.full(size, uniform(value), np.float32)


def cones(graph: Graph, root: Node, position: dict[Node, float], limit: int) -> Iterator[Cone]:
    """Cones that end in `root`, smallest first, of at most `limit` nodes; `position` numbers the nodes in order."""
    members: dict[Node, None] = {}
    leaves: dict[Value, None] = {root.outputs[0]: None}
    while len(members) < limit:
        grown = _latest_to_add(graph, root, members, leaves, position)
        if grown is None:
            return
        members[grown] = None
        del leaves[grown.output]
        for value in grown.inputs:
            if value is not None and uniform(value) is None:
                leaves[value] = None
        if len(leaves) == 1:
            (x,) = leaves
            if x.is_constant or not is_float32(x) or any(n.output.shape != x.shape for n in members):
                continue
            yield Cone(x, tuple(sorted(members, key=lambda n: position[n])))


def _latest_to_add(
    graph: Graph, root: Node, members: dict[Node, None], leaves: dict[Value, None], position: dict[Node, float]
) -> Node | None:
    """The last producer of a leaf that is elementwise and used by members alone."""
    found: Node | None = None
    for value in leaves:
        node = value.producer
        if node is None or node.op.name not in _OPS or not is_float32(value) or len(node.outputs) != 1:
            continue
        if node is not root and (graph.is_output(value) or any(u not in members for u in graph.users(value))):
            continue
        if found is None or position[node] > position[found]:
            found = node
    return found
