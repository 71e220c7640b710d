"""Bands of rows for a budget of RAM: which of the first layers to run by bands, and how many bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qcomp.codegen.c.lower import plan_of
from qcomp.ir.graph import Graph, Value
from qcomp.passes.split_rows import SplitRows, rows_region
from qcomp.targets import Target

BANDS = (2, 3, 4, 6, 8, 12, 16)
#: Values, from the input on, up to which bands are tried.
_DEEPEST = 24

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Banded:
    """A graph whose layers up to `until`, the result of `layer`, run in `bands` bands; `arena_bytes` of its plan, and
    `work`, its multiply-accumulates over those of the graph as it was."""

    graph: Graph
    until: str
    layer: str
    bands: int
    arena_bytes: int
    work: float


def banded(graph: Graph, target: Target, arena_bytes: int, progress: Progress | None = None) -> Banded | None:
    """Of the ways to run a graph's first layers by bands whose arena has up to `arena_bytes`, the one that computes
    least twice; where there is none, the one with the least arena; None where nothing can be split.

    Only targets without an operating system plan results into the memory of what they are joined to."""
    if not target.bare_metal:
        return None
    before = _macs(graph)
    candidates = [value.name for value in _ends(graph)][:_DEEPEST]
    best: Banded | None = None
    least: Banded | None = None
    for done, until in enumerate(candidates):
        if progress is not None:
            progress("bands", done, len(candidates))
        producer = graph.value(until).producer
        layer = producer.name if producer is not None else until
        for bands in BANDS:
            if bands > graph.value(until).shape[1]:
                break
            tried = SplitRows(until, bands).run(graph.clone())
            work = _macs(tried) / max(1, before)
            if best is not None and work >= best.work:
                break  # more bands only compute more twice
            arena = plan_of(tried, target).arena_bytes
            way = Banded(tried, until, layer, bands, arena, work)
            if arena <= arena_bytes:
                best = way
                break
            if least is None or arena < least.arena_bytes:
                least = way
    return best or least


def _ends(graph: Graph) -> list[Value]:
    """Values that bands may be joined to, from the input on."""
    values = [node.output for node in graph.nodes if len(node.outputs) == 1 and node.output.type.rank == 4]
    return [v for v in values if v.shape[1] > 1 and not graph.is_output(v) and rows_region(graph, v) is not None]


def _macs(graph: Graph) -> int:
    return sum(int(node.op.macs(node.call)) for node in graph.nodes)
