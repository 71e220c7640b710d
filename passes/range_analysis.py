"""Range analysis: an interval for every value of a graph, by interval arithmetic through every op."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.registry import Interval, full_interval
from qcomp.ir.text import format_type
from qcomp.ir.types import TensorType

Ranges = dict[Value, Interval]

# Constants of up to this many elements are bounded element by element, larger ones by their extremes.
_EXACT_ELEMENTS = 1 << 14


def analyze_ranges(graph: Graph, inputs: Mapping[str, Interval] | None = None) -> Ranges:
    """Bounds of every value, in graph order: reals for floats, stored integers for integers.

    `inputs` narrows graph inputs by name; the rest may be anything that their dtype holds.  Bounds hold for all
    inputs within, rounding included; they say nothing of NaN.  Raises QcompError for an unknown input name.
    """
    given = dict(inputs or {})
    ranges: Ranges = {}
    for value in graph.inputs:
        ranges[value] = _within(given.pop(value.name, full_interval(value.type)), value.type)
    if given:
        raise QcompError(f"the graph has no input {next(iter(given))!r}", where="range analysis")
    for value in graph.constants:
        ranges[value] = constant_interval(value)
    for node in graph.nodes:
        for value, interval in zip(node.outputs, node_intervals(node, ranges), strict=True):
            ranges[value] = interval
    return ranges


def node_intervals(node: Node, ranges: Mapping[Value, Interval]) -> list[Interval]:
    """Bounds of a node's results from those of its operands."""
    operands = [None if v is None else ranges[v] for v in node.inputs]
    with np.errstate(all="ignore"):
        intervals = node.op.interval(node.call, *operands)
    return [_within(i, v.type) for i, v in zip(intervals, node.outputs, strict=True)]


def constant_interval(value: Value) -> Interval:
    """Exact bounds of a constant; a constant with NaN is unbounded, an empty one is zero."""
    data = value.array.astype(np.float64)
    if data.size == 0:
        return Interval.of(0, 0)
    if np.isnan(data).any():
        return full_interval(value.type)
    if data.size <= _EXACT_ELEMENTS:
        return Interval(data, data)
    return Interval.of(data.min(), data.max())


def _within(interval: Interval, type: TensorType) -> Interval:
    """The interval cut to what the dtype holds; NaN ends (∞ − ∞ and the like) become unbounded."""
    full = full_interval(type)
    lo = np.where(np.isnan(interval.lo), full.lo, np.maximum(interval.lo, full.lo))
    hi = np.where(np.isnan(interval.hi), full.hi, np.minimum(interval.hi, full.hi))
    return Interval(lo, hi)


def range_report(graph: Graph, ranges: Ranges | None = None) -> str:
    """One line a computed value: name, type, bounds; for one bound a channel the widest and how many are constant."""
    ranges = analyze_ranges(graph) if ranges is None else ranges
    lines = []
    for node in graph.nodes:
        for value in node.outputs:
            interval = ranges[value]
            low, high = interval.span
            note = ""
            if interval.lo.size > 1:
                fixed = int((interval.lo == interval.hi).sum())
                note = f"  ({interval.lo.size} bounds, {fixed} constant)"
            lines.append(f"%{value.name}: {format_type(value.type)} = {node.op.name} in [{low:g}, {high:g}]{note}")
    return "\n".join(lines) + "\n"
