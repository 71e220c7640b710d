"""The memory plan: from a graph to steps whose operands have addresses."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.plan.buffer import Buffer, Halo
from qcomp.codegen.plan.legalize import legalize
from qcomp.codegen.plan.place import ALIGN, Overlap, Slot, check_placement, live_at, lower_bound, place
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
    live: dict[int, int]
    """Bytes that are live at the steps where that may grow."""

    def report(self) -> str:
        """One line for people: bytes, and how far from the bound."""
        used = self.arena_bytes - SLACK
        if used <= self.lower_bound:
            verdict = "optimal for this order"
        else:
            verdict = f"{100 * (used / self.lower_bound - 1):.1f} % above the bound of {self.lower_bound}"
        peak = f" at step {self.peak_step} ({self.steps[self.peak_step].node.name})" if self.steps else ""
        return f"arena {self.arena_bytes} bytes, {verdict}, peak{peak}"


def make_plan(graph: Graph, kernel_of: KernelOf, *, converts_i8: bool, sequential: bool = False) -> MemoryPlan:
    """Schedules the graph and gives every value an address; the result has passed `check_placement`.

    `converts_i8` says that int8 is stored otherwise than the caller gives it; `sequential` that tasks run in order, and
    halos are filled after a step instead of before it, so that a result may lie on top of what it is made of.
    """
    legal = legalize(graph, kernel_of, converts_i8=converts_i8)
    for value in legal.graph.values:
        if not value.is_constant and value.type.elements == 0:
            raise QcompError("the tensor is empty", where=f"%{value.name}", fix="give the model non-empty shapes")
    storages = Storages(legal, kernel_of, packed=sequential)
    order = schedule(storages)
    owner = _share_in_place(order, storages, kernel_of)
    slots = _slots(order, storages, owner)
    overlaps = _overlaps(order, storages, owner, slots, kernel_of) if sequential else []
    placement = place(slots, overlaps)
    check_placement(slots, placement, overlaps)
    bound, peak = lower_bound(slots, overlaps)
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
        images = [storages.of(v).image or v for v in node.outputs]  # of rows, all that is around them
        around = [(operand(v), storages.of(v).fill) for v in images]
        fills = tuple(Fill(o, fill) for o, fill in around if not o.buffer.dense)
        return Step(node, tuple(operand(v) for v in activation_values(node)), results, fills)

    return MemoryPlan(
        legal.graph,
        tuple(step(n) for n in order),
        slots,
        placement.offsets,
        -(-placement.bytes // ALIGN) * ALIGN + SLACK,
        bound,
        peak,
        live_at(slots, overlaps),
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


def _overlaps(
    order: list[Node], storages: Storages, owner: dict[int, Storage], slots: tuple[Slot, ...], kernel_of: KernelOf
) -> list[Overlap]:
    """The results that may lie on top of an operand which nobody reads after them."""
    spans = {slot.name: slot for slot in slots}
    found = []
    for step, node in enumerate(order):
        values = activation_values(node)
        if len(node.outputs) != 1 or not values:
            continue
        operand, result = values[0], node.output
        source, target = storages.of(operand), storages.of(result)
        if source.external or target.external or source is target or operand in values[1:]:
            continue
        last, first = (spans[owner.get(id(s), s).name] for s in (source, target))
        ends = last is not first and last.last == step == first.first
        alone = all(storages.of(value) is not source for value in values[1:])
        buffers = storages.buffer(operand), storages.buffer(result)
        lead = kernel_of(node).lead(node, *buffers) if ends and alone else None
        if lead is None:
            continue
        places = [
            storages.of(value).members[value] + buffer.interior * buffer.dtype.numpy.itemsize
            for value, buffer in zip((operand, result), buffers, strict=True)
        ]
        found.append(Overlap(first.name, last.name, (places[0] - places[1] - lead) // ALIGN * ALIGN))
    return found


def _slots(order: list[Node], storages: Storages, owner: dict[int, Storage]) -> tuple[Slot, ...]:
    spans: dict[str, tuple[int, int, int]] = {}
    for step, node in enumerate(order):
        for storage in touched(storages, node):
            root = owner.get(id(storage), storage)
            first, _, size = spans.get(root.name, (step, step, root.bytes))
            spans[root.name] = (first, step, size)
    return tuple(Slot(name, size, first, last) for name, (first, last, size) in sorted(spans.items()))
