"""The memory plan: from a graph to steps whose operands have addresses."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.plan.buffer import Buffer, Halo
from qcomp.codegen.plan.legalize import legalize
from qcomp.codegen.plan.place import ALIGN, Slot, check_placement, lower_bound, place
from qcomp.codegen.plan.requirements import KernelOf, activation_values
from qcomp.codegen.plan.schedule import schedule, touched
from qcomp.codegen.plan.storage import Storage, Storages
from qcomp.errors import QcompError
from qcomp.ir import Graph, Node, Value

#: Bytes that are readable past the end of every arena buffer.
SLACK = 64


@dataclass(frozen=True)
class Operand:
    """Address of one operand: byte `offset` of its buffer in the arena, or of input/output `index`."""

    kind: str  # "arena", "input", "output"
    index: int
    offset: int
    buffer: Buffer
    name: str

    @property
    def interior(self) -> int:
        """Byte offset of the first interior element."""
        return self.offset + self.buffer.interior * self.buffer.dtype.numpy.itemsize


@dataclass(frozen=True)
class Fill:
    """A halo to fill with `value` (logical) before a step."""

    operand: Operand
    value: int

    @property
    def halo(self) -> Halo:
        return self.operand.buffer.halo


@dataclass(frozen=True)
class Step:
    """One node to execute."""

    node: Node
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    fills: tuple[Fill, ...]


@dataclass(frozen=True)
class MemoryPlan:
    """Steps in order, and the arena they need.

    `arena_bytes` includes the slack at the end; `lower_bound` is the most bytes that are live at one step
    (`peak_step`), which no plan of this order can undercut.
    """

    graph: Graph
    steps: tuple[Step, ...]
    slots: tuple[Slot, ...]
    offsets: dict[str, int]
    arena_bytes: int
    lower_bound: int
    peak_step: int

    def report(self) -> str:
        """One line for people: bytes, and how far from the bound."""
        used = self.arena_bytes - SLACK
        if used <= self.lower_bound:
            verdict = "optimal for this order"
        else:
            verdict = f"{100 * (used / self.lower_bound - 1):.1f} % above the bound of {self.lower_bound}"
        peak = f" at step {self.peak_step} ({self.steps[self.peak_step].node.name})" if self.steps else ""
        return f"arena {self.arena_bytes} bytes, {verdict}, peak{peak}"


def make_plan(graph: Graph, kernel_of: KernelOf, *, converts_i8: bool) -> MemoryPlan:
    """Schedules the graph and gives every value an address; the result has passed `check_placement`.

    `converts_i8` says that int8 is stored otherwise than the caller gives it.
    """
    legal = legalize(graph, kernel_of, converts_i8=converts_i8)
    for value in legal.graph.values:
        if not value.is_constant and value.type.elements == 0:
            raise QcompError("the tensor is empty", where=f"%{value.name}", fix="give the model non-empty shapes")
    storages = Storages(legal, kernel_of)
    order = schedule(storages)
    owner = _share_in_place(order, storages, kernel_of)
    slots = _slots(order, storages, owner)
    placement = place(slots)
    check_placement(slots, placement)
    bound, peak = lower_bound(slots)
    inputs = {v: i for i, v in enumerate(legal.graph.inputs)}
    outputs = {id(storages.of(v)): i for i, v in enumerate(legal.graph.outputs)}

    def operand(value: Value) -> Operand:
        storage, buffer = storages.of(value), storages.buffer(value)
        if storage.external:
            root = next(iter(storage.members))
            kind, index = ("input", inputs[root]) if root in inputs else ("output", outputs[id(storage)])
            return Operand(kind, index, storage.members[value], buffer, value.name)
        base = placement.offsets[owner.get(id(storage), storage).name]
        return Operand("arena", 0, base + storage.members[value], buffer, value.name)

    def step(node: Node) -> Step:
        results = tuple(operand(v) for v in node.outputs)
        fills = tuple(
            Fill(o, storages.of(v).fill) for v, o in zip(node.outputs, results, strict=True) if not o.buffer.dense
        )
        return Step(node, tuple(operand(v) for v in activation_values(node)), results, fills)

    return MemoryPlan(
        legal.graph,
        tuple(step(n) for n in order),
        slots,
        placement.offsets,
        -(-placement.bytes // ALIGN) * ALIGN + SLACK,
        bound,
        peak,
    )


def _share_in_place(order: list[Node], storages: Storages, kernel_of: KernelOf) -> dict[int, Storage]:
    """Storages (by id) whose memory is taken over from a dying operand, and whose it is."""
    last = {id(s): i for i, node in enumerate(order) for s in touched(storages, node)}
    owner: dict[int, Storage] = {}
    for step, node in enumerate(order):
        if len(node.outputs) != 1:
            continue
        result = storages.of(node.output)
        values = activation_values(node)
        for position in kernel_of(node).in_place(node):
            operand = values[position]
            storage = storages.of(operand)
            others = [v for v in values if v is not operand and storages.of(v) is storage]
            fits = (
                not (storage.external or result.external or others)
                and last[id(storage)] == step
                and storage.members[operand] == result.members[node.output] == 0
                and storages.buffer(operand) == storages.buffer(node.output)
                and storage.bytes == result.bytes
                and storage is not result
            )
            if fits:
                owner[id(result)] = owner.get(id(storage), storage)
                break
    return owner


def _slots(order: list[Node], storages: Storages, owner: dict[int, Storage]) -> tuple[Slot, ...]:
    spans: dict[str, tuple[int, int, int]] = {}
    for step, node in enumerate(order):
        for storage in touched(storages, node):
            root = owner.get(id(storage), storage)
            first, _, size = spans.get(root.name, (step, step, root.bytes))
            spans[root.name] = (first, step, size)
    return tuple(Slot(name, size, first, last) for name, (first, last, size) in sorted(spans.items()))
