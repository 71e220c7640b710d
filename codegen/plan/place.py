"""Offsets in the arena: best fit in several orders, then a bounded search, against the live-bytes lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcomp.errors import QcompError

ALIGN = 64
_SEARCH_NODES = 20_000
_SEARCH_SLOTS = 48


@dataclass(frozen=True)
class Slot:
    """Memory that is in use from step `first` to step `last`, both included."""

    name: str
    bytes: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Bytes that it takes in the arena."""
        return -(-self.bytes // ALIGN) * ALIGN

    def meets(self, other: Slot) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Placement:
    """Byte offset of each slot, by name, and the bytes that they take together."""

    offsets: dict[str, int]
    bytes: int


def lower_bound(slots: Sequence[Slot]) -> tuple[int, int]:
    """(most bytes that are live at one step, the first such step)."""
    best, at = 0, 0
    for step in sorted({s.first for s in slots}):
        total = sum(s.size for s in slots if s.first <= step <= s.last)
        if total > best:
            best, at = total, step
    return best, at


def place(slots: Sequence[Slot]) -> Placement:
    """Offsets for all slots; deterministic, ties broken by name."""
    bound, _ = lower_bound(slots)
    orders = [
        sorted(slots, key=lambda s: (-s.size, s.first, s.name)),
        sorted(slots, key=lambda s: (-s.size * (s.last - s.first + 1), s.name)),
        sorted(slots, key=lambda s: (s.first, -s.size, s.name)),
        sorted(slots, key=lambda s: (s.first - s.last, -s.size, s.name)),
    ]
    best = min((_best_fit(order) for order in orders), key=lambda p: p.bytes)
    if best.bytes > bound and len(slots) <= _SEARCH_SLOTS:
        best = _search(orders[0], best, bound)
    return best


def _gaps(slot: Slot, placed: Sequence[tuple[int, Slot]]) -> list[tuple[int, int]]:
    """(offset, room) of every hole that can take the slot; the last is open-ended."""
    holes, end = [], 0
    for offset, other in sorted(((o, s) for o, s in placed if s.meets(slot)), key=lambda p: (p[0], p[1].name)):
        if offset - end >= slot.size:
            holes.append((end, offset - end))
        end = max(end, offset + other.size)
    holes.append((end, 1 << 62))
    return holes


def _best_fit(order: Sequence[Slot]) -> Placement:
    placed: list[tuple[int, Slot]] = []
    for slot in order:
        offset, _ = min(_gaps(slot, placed), key=lambda hole: (hole[1], hole[0]))
        placed.append((offset, slot))
    return _placement(placed)


def _placement(placed: Sequence[tuple[int, Slot]]) -> Placement:
    return Placement(
        {slot.name: offset for offset, slot in sorted(placed, key=lambda p: p[1].name)},
        max((offset + slot.size for offset, slot in placed), default=0),
    )


def _search(order: Sequence[Slot], best: Placement, bound: int) -> Placement:
    """Branch and bound over the holes of each slot, in the given order, for a fixed number of visits."""
    visits = 0

    def visit(index: int, placed: list[tuple[int, Slot]], top: int) -> None:
        nonlocal best, visits
        visits += 1
        if top >= best.bytes or best.bytes == bound or visits > _SEARCH_NODES:
            return
        if index == len(order):
            best = _placement(placed)
            return
        slot = order[index]
        for offset, _ in sorted(_gaps(slot, placed), key=lambda hole: (hole[1], hole[0])):
            placed.append((offset, slot))
            visit(index + 1, placed, max(top, offset + slot.size))
            placed.pop()

    visit(0, [], 0)
    return best


def check_placement(slots: Sequence[Slot], placement: Placement) -> None:
    """QcompError unless every slot lies aligned in the arena and no two live ones overlap.

    Shares nothing with the search: it sweeps over the steps and sorts what is live at each.
    """
    for slot in slots:
        offset = placement.offsets.get(slot.name)
        if offset is None or offset < 0 or offset % ALIGN or offset + slot.bytes > placement.bytes:
            raise QcompError(f"buffer {slot.name} at {offset} is outside the arena or misaligned", where="memory plan")
    for step in sorted({s.first for s in slots}):
        live = sorted(
            (placement.offsets[s.name], placement.offsets[s.name] + s.bytes, s.name)
            for s in slots
            if s.first <= step <= s.last and s.bytes
        )
        for (_, end, name), (start, _, other) in zip(live, live[1:], strict=False):
            if start < end:
                raise QcompError(f"buffers {name} and {other} overlap at step {step}", where="memory plan")
