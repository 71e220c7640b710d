"""The memory plan of an artifact, made again from its integer graph."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.plan import make_plan
from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node
from qcomp.runtime.artifact import ArtifactInfo
from qcomp.targets import target, target_names


@dataclass(frozen=True)
class Buffer:
    """Memory of the arena in use from step `first` to step `last`, both included; offset and size in bytes."""

    name: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class ArenaPlan:
    """All buffers over all steps; `lower_bound` bytes are live at `peak_step`, so no order of memory needs less."""

    buffers: tuple[Buffer, ...]
    steps: tuple[str, ...]
    arena_bytes: int
    lower_bound: int
    peak_step: int


def arena_plan(graph: Graph, info: ArtifactInfo) -> ArenaPlan | None:
    """The plan of the level that `info` describes; None where planning it again gives another one, as for an artifact
    that follows a tuning or comes from another version."""
    if info.target not in target_names():
        return None
    machine = target(info.target)
    widths = [target(level.name).vector_bytes for level in info.levels[:-1] if level.name in target_names()]
    table = kernel_table(sharing=len(set(widths)) < len(widths))
    chosen: dict[str, Kernel] = {}

    def kernel_of(node: Node) -> Kernel:
        key = node.outputs[0].name
        if key not in chosen:
            chosen[key] = table.select(node, machine)
        return chosen[key]

    try:
        plan = make_plan(graph, kernel_of, converts_i8=machine.stored_offset != 0)
    except QcompError:
        return None  # another version's graph
    names = tuple(step.node.name for step in plan.steps)
    if plan.arena_bytes != info.arena_bytes or names != tuple(step.name for step in info.steps):
        return None
    buffers = (Buffer(s.name, plan.offsets[s.name], s.size, s.first, s.last) for s in plan.slots)
    ordered = tuple(sorted(buffers, key=lambda b: (b.first, b.offset, b.name)))
    return ArenaPlan(ordered, names, plan.arena_bytes, plan.lower_bound, plan.peak_step)
