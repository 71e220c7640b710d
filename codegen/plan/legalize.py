"""Inserts the copies that storage forces: at the model's edges, and where two kernels want different padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qcomp.codegen.plan.requirements import VIEW_OPS, KernelOf, activation_values, wanted_halo
from qcomp.ir import DType, Graph, Node, Value


@dataclass(frozen=True)
class Legalized:
    """A graph that can be laid out, and the names of its `identity` nodes that really copy."""

    graph: Graph
    copies: frozenset[Node]


def legalize(source: Graph, kernel_of: KernelOf, *, converts_i8: bool) -> Legalized:
    """A copy of the graph in which

    - a graph input that is stored otherwise than the caller gives it (padding, unsigned int8) is copied first,
    - a value whose users want padding of different values is copied for all but the first,
    - every graph output is the result of a node of its own, written for the caller only.
    """
    graph = source.clone()
    graph.prune()
    copies: list[Node] = []

    def copy(value: Value) -> Node:
        node = graph.add("identity", [value], names=[f"{value.name}.copy"], quants=[value.quant])
        copies.append(node)
        return node

    for value in graph.inputs:
        users = graph.users(value)
        if users and ((converts_i8 and value.dtype is DType.I8) or wanted_halo(graph, value, kernel_of)):
            node = copy(value)
            for user, index in graph.uses(value):
                if user is not node:
                    graph.set_input(user, index, node.output)
    for value in graph.values:
        _split_fills(graph, value, kernel_of, copy)
    seen: set[Value] = set()
    for index, value in enumerate(graph.outputs):
        if value in seen or not _writes_output(graph, value, converts_i8):
            value = copy(value).output
            graph.outputs[index] = value
        seen.add(value)
    return Legalized(graph, frozenset(copies))


def _split_fills(graph: Graph, value: Value, kernel_of: KernelOf, copy: Callable[[Value], Node]) -> None:
    wishes = wanted_halo(graph, value, kernel_of)
    fills = list(dict.fromkeys(fill for _, _, fill in wishes))
    for fill in fills[1:]:
        node = copy(value)
        for user in dict.fromkeys(user for user, _, wish in wishes if wish == fill):
            for index, operand in enumerate(user.inputs):
                if operand is value:
                    graph.set_input(user, index, node.output)


def _writes_output(graph: Graph, value: Value, converts_i8: bool) -> bool:
    """Whether the value's producer can write straight into the caller's memory, nobody else reading it."""
    if converts_i8 and value.dtype is DType.I8:
        return False
    if sum(v is value for v in graph.outputs) != 1 or graph.users(value):
        return False
    result = value
    while value.producer is not None and value.producer.op.name in VIEW_OPS:
        (operand, *_) = activation_values(value.producer) or (None,)
        if operand is None:
            return True  # a copy of a constant
        if graph.sole_user(operand) is None:
            return False
        value = operand
    # A view of a piece would make the whole operand of the split the caller's memory.
    piece = value.producer is not None and value.producer.op.name in ("split", "slice")
    return value.producer is not None and (value is result or not piece)
