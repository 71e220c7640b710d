"""Offsets in the arena: best fit in several orders, then a bounded search, against the live-bytes lower bound.

A result may lie on top of the operand that it is made of, as far as it is written after what it covers was read
(diagonal memory optimisation: Blacker et al., 2020; here the distance comes from the kernel).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

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
class Overlap:
    """Slot `result` may overlap slot `operand` if it starts `distance` bytes or more before it (distance <= 0), or
    behind it by no more than that (> 0): result.offset <= operand.offset + distance.  A multiple of ALIGN."""

    result: str
    operand: str
    distance: int


Overlaps = Mapping[tuple[str, str], int]  # distance by the names of result and operand


def as_pairs(overlaps: Sequence[Overlap]) -> dict[tuple[str, str], int]:
    return {(o.result, o.operand): o.distance for o in overlaps}


@dataclass(frozen=True)
class Placement:
    """Byte offset of each slot, by name, and the bytes that they take together."""

    offsets: dict[str, int]
    bytes: int


def lower_bound(slots: Sequence[Slot], overlaps: Sequence[Overlap] = ()) -> tuple[int, int]:
    """(most bytes that are live at one step, what may lie on top of each other counted once; the first such step)."""
    best, at = 0, 0
    for step, total in live_at(slots, overlaps).items():
        if total > best:
            best, at = total, step
    return best, at


def live_at(slots: Sequence[Slot], overlaps: Sequence[Overlap] = ()) -> dict[int, int]:
    """Bytes that are live at each step where that may grow, what may lie on top of each other counted once."""
    by_name = {slot.name: slot for slot in slots}
    saved: dict[int, int] = {}
    for overlap in overlaps:
        result, operand = by_name[overlap.result], by_name[overlap.operand]
        joint = max(result.size, operand.size - overlap.distance)
        saved[result.first] = max(0, result.size + operand.size - joint)
    return {
        step: sum(s.size for s in slots if s.first <= step <= s.last) - saved.get(step, 0)
        for step in sorted({s.first for s in slots})
    }


def place(slots: Sequence[Slot], overlaps: Sequence[Overlap] = ()) -> Placement:
    """Offsets for all slots; deterministic, ties broken by name."""
    bound, _ = lower_bound(slots, overlaps)
    pairs = as_pairs(overlaps)
    orders = [
        sorted(slots, key=lambda s: (-s.size, s.first, s.name)),
        sorted(slots, key=lambda s: (-s.size * (s.last - s.first + 1), s.name)),
        sorted(slots, key=lambda s: (s.first, -s.size, s.name)),
        sorted(slots, key=lambda s: (s.first - s.last, -s.size, s.name)),
    ]
    if overlaps:  # results first: there is room for an operand behind its result, seldom before it
        orders.append(sorted(slots, key=lambda s: (-s.first, -s.size, s.name)))
        orders.append(sorted(slots, key=lambda s: (-s.size, -s.first, s.name)))
    best = min((_best_fit(order, pairs) for order in orders), key=lambda p: p.bytes)
    for order in (orders[0], *orders[4:]):
        if best.bytes > bound and len(slots) <= _SEARCH_SLOTS:
            best = _search(order, best, bound, pairs)
    return best


def _taken(slot: Slot, offset: int, other: Slot, pairs: Overlaps) -> tuple[int, int]:
    """The offsets, both ends excluded, that a slot cannot have beside another that lies at `offset`."""
    low, high = offset - slot.size, offset + other.size
    as_result, as_operand = pairs.get((slot.name, other.name)), pairs.get((other.name, slot.name))
    if as_result is not None:
        low = max(low, offset + as_result)
    if as_operand is not None:
        high = min(high, offset - as_operand)
    return low, high


def _gaps(slot: Slot, placed: Sequence[tuple[int, Slot]], pairs: Overlaps) -> list[tuple[int, int]]:
    """(offset, how much further it may lie) of every hole that can take the slot; the last is open-ended."""
    taken = [_taken(slot, offset, other, pairs) for offset, other in placed if other.meets(slot)]
    holes, end = [], 0
    for low, high in sorted(span for span in taken if span[0] < span[1]):
        if low >= end:
            holes.append((end, low - end))
        end = max(end, high)
    holes.append((end, 1 << 62))
    return holes


def _best_fit(order: Sequence[Slot], pairs: Overlaps) -> Placement:
    placed: list[tuple[int, Slot]] = []
    for slot in order:
        offset, _ = min(_gaps(slot, placed, pairs), key=lambda hole: (hole[1], hole[0]))
        placed.append((offset, slot))
    return _placement(placed)


def _placement(placed: Sequence[tuple[int, Slot]]) -> Placement:
    return Placement(
        {slot.name: offset for offset, slot in sorted(placed, key=lambda p: p[1].name)},
        max((offset + slot.size for offset, slot in placed), default=0),
    )


def _search(order: Sequence[Slot], best: Placement, bound: int, pairs: Overlaps) -> Placement:
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
        for offset, _ in sorted(_gaps(slot, placed, pairs), key=lambda hole: (hole[1], hole[0])):
            placed.append((offset, slot))
            visit(index + 1, placed, max(top, offset + slot.size))
            placed.pop()

    visit(0, [], 0)
    return best


def check_placement(slots: Sequence[Slot], placement: Placement, overlaps: Sequence[Overlap] = ()) -> None:
    """QcompError unless every slot lies aligned in the arena and no two live ones overlap but as they may.

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
        for (_, end, name), (start, _, other) in combinations(live, 2):
            if start < end and not _may_lie(name, other, placement, overlaps):
                raise QcompError(f"buffers {name} and {other} overlap at step {step}", where="memory plan")


def _may_lie(first: str, second: str, placement: Placement, overlaps: Sequence[Overlap]) -> bool:
    """Whether one of two slots that overlap is made of the other, and starts as far before it as it must."""
    at = placement.offsets
    return any(
        {o.result, o.operand} == {first, second} and at[o.result] <= at[o.operand] + o.distance for o in overlaps
    )
