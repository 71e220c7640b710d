"""What the planner must know of kernels: the padding they want around their inputs, and what they can do in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from qcomp.codegen.plan.buffer import NO_HALO, Buffer, Halo
from qcomp.ir import Graph, Node, Value


class Requirements(Protocol):
    """The planner's view of a kernel."""

    def halo(self, node: Node) -> tuple[Halo, ...]: ...

    def halo_fill(self, node: Node) -> int: ...

    def in_place(self, node: Node) -> tuple[int, ...]: ...

    def lead(self, node: Node, x: Buffer, y: Buffer) -> int | None: ...


KernelOf = Callable[[Node], Requirements]

#: Ops whose result may be another name for the memory of their operand.
VIEW_OPS = frozenset({"identity", "reshape"})


def activation_values(node: Node) -> tuple[Value, ...]:
    """Operands that are neither absent nor constant, in order."""
    return tuple(v for v in node.inputs if v is not None and not v.is_constant)


def wanted_halo(graph: Graph, value: Value, kernel_of: KernelOf) -> list[tuple[Node, Halo, int]]:
    """(node, halo, fill) of every use of the value that wants padding around it."""
    wishes = []
    for node in sorted(graph.users(value), key=lambda n: n.serial):
        kernel = kernel_of(node)
        for operand, halo in zip(activation_values(node), kernel.halo(node), strict=True):
            if operand is value and halo != NO_HALO:
                wishes.append((node, halo, kernel.halo_fill(node)))
    return wishes
