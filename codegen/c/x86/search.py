"""Schedules worth measuring: what the cost model ranks high, in orders of computation that it knows little of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, product

import numpy as np

from qcomp.codegen.c.vector.lines import is_flat
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Int8, Residual
from qcomp.codegen.c.x86.conv import shared_columns
from qcomp.codegen.c.x86.depthwise import can_rotate
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.schedule import BY_MODEL, Schedule, runs_of_numbers
from qcomp.codegen.c.x86.tiling import channel_splits, line_covers, line_lengths

_LENGTHS, _SPLITS, _COVERS = 6, 6, 4
_MOST = 96
#: Predicted cycles of the second, third, ... of one family count as so much more: what differs little teaches little.
_SAMENESS = 0.03
_ORDERS = (
    Schedule(first="tiles"),
    Schedule(first="lines"),
    Schedule(tasks=8),
    Schedule(first="lines", tasks=8),
    Schedule(first="tiles", tasks=8),
    Schedule(passes=1),
    Schedule(passes=4),
    Schedule(prefetch=True),
    Schedule(prefetch=False),
)


def _isa_for(shape: ConvShape, weights: Int8, isa: Isa) -> Isa:
    return isa.for_weights(np.concatenate(runs_of(shape).weights(isa.dot.as_bytes(weights), shape.groups)))


def products_form(shape: ConvShape, weights: Int8, isa: Isa) -> str:
    """The form of products that `conv_code` takes for weights [O, KH, KW, C/groups]."""
    return _isa_for(shape, weights, isa).dot.name


def conv_schedules(
    shape: ConvShape, weights: Int8, isa: Isa, residual: Residual | None = None
) -> tuple[str, ...]:
    """Schedules of `conv_code`, the most promising first; weights: int8 [O, KH, KW, C/groups]."""
    tilings = islice(_tilings(shape, weights, isa, is_flat(shape, residual)), _MOST)
    return _texts(_crossed([BY_MODEL, *tilings], [BY_MODEL, *_ORDERS]))


def tile_schedules() -> tuple[str, ...]:
    """Schedules of `amx_code`, the most promising first."""
    return _texts(replace(order, tiles="amx") for order in [BY_MODEL, *_ORDERS])


def depthwise_schedules(shape: ConvShape) -> tuple[str, ...]:
    """Schedules of a depthwise convolution, the most promising first."""
    forms = [Schedule(form=form) for form in ("row", "any") if form == "any" or can_rotate(shape)]
    orders = [order for order in _ORDERS if order.plain]
    return _texts([BY_MODEL, *_crossed(forms, [BY_MODEL, *orders]), Schedule(form="dense")])


def _texts(schedules: Iterable[Schedule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(schedule.text for schedule in schedules))


def _crossed(tilings: list[Schedule], orders: list[Schedule]) -> list[Schedule]:
    """Every tiling in every order; of a sum of ranks the lowest first."""
    ranked = sorted(product(range(len(tilings)), range(len(orders))), key=lambda at: (at[0] + at[1], at))
    merged = []
    for i, j in ranked:
        order = orders[j]
        merged.append(
            replace(tilings[i], first=order.first, tasks=order.tasks, passes=order.passes, prefetch=order.prefetch)
        )
    return merged


def _tilings(shape: ConvShape, weights: Int8, isa: Isa, flat: bool) -> Iterator[Schedule]:
    """Tilings by predicted cycles, those of one family (length of lines, widths) further apart."""
    isa, layout = _isa_for(shape, weights, isa), runs_of(shape)
    outputs, runs, dwords = layout.outputs, len(layout.offsets), layout.dwords
    pixels = shape.y.batch * shape.y.height * shape.y.width if flat else shape.y.width
    lengths = line_lengths(isa, pixels, outputs, runs, dwords)[:_LENGTHS] if flat else (pixels,)
    found: list[tuple[float, Schedule]] = []
    for length in lengths:
        for widths in channel_splits(isa, outputs, length, runs, dwords)[:_SPLITS]:
            vectors = runs_of_numbers(widths)
            shared = shared_columns(isa, shape, widths, layout.per_tap)
            covers = [line_covers(isa.dot, length, width, runs, dwords, shared)[:_COVERS] for width, _ in vectors]
            family = []
            for lines in product(*covers):
                cycles = sum(line.cycles * times for line, (_, times) in zip(lines, vectors, strict=True))
                rows = tuple(line.steps for line in lines)
                line = length if flat else None
                family.append((cycles * (pixels // length), Schedule(vectors=vectors, rows=rows, line=line)))
            family.sort(key=lambda entry: entry[0])
            found += [(cycles * (1 + _SAMENESS * rank), schedule) for rank, (cycles, schedule) in enumerate(family)]
    found.sort(key=lambda entry: entry[0])
    return (schedule for _, schedule in found)
