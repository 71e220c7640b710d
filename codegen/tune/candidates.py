"""The layers of a graph, and for each what could compute it: kernels of the table with their schedules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from qcomp.codegen.c.constants import Blob
from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest, KernelTable, generated
from qcomp.codegen.c.lower import PLACEHOLDER, lower
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.plan import Step
from qcomp.codegen.plan.buffer import Buffer, union_halo
from qcomp.codegen.tune.layers import is_tunable, layer_name
from qcomp.ir import Graph
from qcomp.targets import Target

#: How many schedules of a kernel are tried, at most, for each that turns out to be code of its own.
_TRIES = 4
#: Kernels behind the default one have so many times fewer candidates.
_OTHERS = 4


@dataclass(frozen=True)
class Layer:
    """One layer of a graph, `count` of whose steps are computed alike; `step` is the first of them."""

    name: str
    step: Step
    count: int

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        return tuple(operand.buffer for operand in self.step.inputs)

    @property
    def outputs(self) -> tuple[Buffer, ...]:
        return tuple(operand.buffer for operand in self.step.outputs)


@dataclass(frozen=True)
class Network:
    """What a graph is for the tuner: its layers in order, and the bytes that it touches in a run."""

    layers: tuple[Layer, ...]
    bytes: int


@dataclass(frozen=True)
class Candidate:
    """A way to compute a layer."""

    kernel: str
    schedule: str
    code: KernelCode


def network(graph: Graph, target: Target, table: KernelTable | None = None) -> Network:
    """The layers of an integer graph that have a choice of kernels or schedules on the target."""
    table, blob = table or kernel_table(), Blob()
    lowered = lower(graph, target, blob, table)
    steps: dict[str, list[Step]] = {}
    for built in lowered.steps:
        node = built.step.node
        if is_tunable(node, target, table):
            steps.setdefault(layer_name(built.step, table.select(node, target)), []).append(built.step)
    layers = tuple(Layer(name, found[0], len(found)) for name, found in steps.items())
    return Network(layers, blob.bytes + lowered.plan.arena_bytes)


def candidates(layer: Layer, target: Target, most: int, table: KernelTable | None = None) -> list[Candidate]:
    """The default, then up to `most` others whose code differs, by kernel, those of promise first."""
    found: dict[bytes, Candidate] = {}
    for place, kernel in enumerate(_kernels(layer, target, table or kernel_table())):
        known, room = len(found), most + 1 if place == 0 else max(1, most // _OTHERS)
        for tries, candidate in enumerate(_of_kernel(layer, kernel, target)):
            if len(found) - known >= room or tries >= _TRIES * room:
                break
            found.setdefault(_content(candidate.code), candidate)
    return list(found.values())


def _kernels(layer: Layer, target: Target, table: KernelTable) -> Iterator[Kernel]:
    """The default kernel, and those that can stand in for it and do with the layer's buffers."""
    for kernel in table.alternatives(layer.step.node, target):
        wishes = zip(layer.inputs, kernel.halo(layer.step.node), strict=True)
        if all(union_halo(buffer.halo, halo) == buffer.halo for buffer, halo in wishes):
            yield kernel


def _of_kernel(layer: Layer, kernel: Kernel, target: Target) -> Iterator[Candidate]:
    for schedule in kernel.schedules(request_of(layer, target)):
        yield candidate_of(layer, kernel, target, schedule)


def request_of(layer: Layer, target: Target, schedule: str = "") -> KernelRequest:
    """What a kernel is asked for, for the layer."""
    return KernelRequest(layer.step.node, layer.inputs, layer.outputs, target, PLACEHOLDER, schedule)


def candidate_of(layer: Layer, kernel: Kernel, target: Target, schedule: str = "") -> Candidate:
    """The layer as one kernel computes it, by one of its schedules."""
    return Candidate(kernel.name, schedule, generated(kernel, request_of(layer, target, schedule)))


def _content(code: KernelCode) -> bytes:
    """What tells one code from another."""
    digest = hashlib.sha256(f"{code.text}\0{code.tasks}\0{[helper.name for helper in code.helpers]}".encode())
    for constant in code.constants:
        digest.update(constant.tobytes())
    return digest.digest()
