"""Steps of a plan that only move data: what better layouts could still save."""

from __future__ import annotations

from qcomp.codegen.plan.plan import MemoryPlan, Step
from qcomp.codegen.plan.requirements import activation_values
from qcomp.ir import Graph, Node

MOVING_OPS = frozenset({"identity", "reshape", "transpose", "concat", "slice", "pad", "split", "expand", "tile"})
#: Ops that turn the caller's numbers and layout into the network's, and back.
_CONVERTING = MOVING_OPS | {"quantize", "dequantize"}


def inner_moves(plan: MemoryPlan) -> tuple[Step, ...]:
    """Steps that only move data between steps that compute; conversions at the model's inputs and outputs aside."""
    edges = _at_inputs(plan.graph) | _at_outputs(plan.graph)
    return tuple(s for s in plan.steps if s.node.op.name in MOVING_OPS and s.node not in edges)


def _at_inputs(graph: Graph) -> set[Node]:
    """Nodes that convert nothing but inputs."""
    found: set[Node] = set()
    for node in graph.nodes:
        sources = [v.producer for v in activation_values(node)]
        if node.op.name in _CONVERTING and all(p is None or p in found for p in sources):
            found.add(node)
    return found


def _at_outputs(graph: Graph) -> set[Node]:
    """Nodes whose results become outputs, and nothing else, by conversion alone."""
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        if node.op.name in _CONVERTING and all(user in found for v in node.outputs for user in graph.users(v)):
            found.add(node)
    return found
