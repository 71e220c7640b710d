"""Geometry of the page's charts: what templates write down as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcomp.reports.compare.distribution import Distribution
from qcomp.reports.compare.front import Candidate, undominated
from qcomp.reports.compare.layers import LayerError
from qcomp.reports.compare.plan import ArenaPlan
from qcomp.reports.compare.scale import Scale, number, ticks
from qcomp.reports.compare.summary import bytes_text, decibels_text

_LABEL_PIXELS = 6.4  # of a character, at the charts' size of text


@dataclass(frozen=True)
class Rect:
    """A rectangle with a hover title; `style` is a class of the page's style sheet."""

    x: float
    y: float
    width: float
    height: float
    style: str
    title: str = ""
    label: str = ""


@dataclass(frozen=True)
class Mark:
    """A line with a text at its end, or a text alone where both ends are one point."""

    x1: float
    y1: float
    x2: float
    y2: float
    style: str
    text: str = ""
    anchor: str = "middle"
    text_x: float = 0.0
    text_y: float = 0.0


@dataclass(frozen=True)
class Point:
    """A circle with a hover title."""

    x: float
    y: float
    radius: float
    style: str
    title: str


@dataclass(frozen=True)
class Chart:
    """Width and height in pixels, and what is drawn, in order: rectangles, lines, polylines, points."""

    width: float
    height: float
    description: str
    rects: tuple[Rect, ...] = ()
    marks: tuple[Mark, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    points: tuple[Point, ...] = ()


def histogram(found: Distribution, description: str) -> Chart:
    """Bars of log(1 + count), the grid as a band with its ends marked, what was seen as a line beneath."""
    width, height, base, top = 300.0, 132.0, 92.0, 18.0
    across = Scale(found.lo, found.hi, 6.0, width - 6.0)
    highest = math.log1p(max(found.counts, default=0)) or 1.0
    bin_width = (width - 12.0) / len(found.counts)
    step = (found.hi - found.lo) / len(found.counts)
    rects = [Rect(across(found.grid_lo), top, across(found.grid_hi) - across(found.grid_lo), base - top, "grid")]
    for index, count in enumerate(found.counts):
        if not count:
            continue
        tall = round((base - top) * math.log1p(count) / highest, 2)
        left = round((found.lo + index * step) / step, 6) * step  # the bin that starts at zero says so
        inside = found.grid_lo - step < left < found.grid_hi
        rects.append(
            Rect(
                round(6.0 + index * bin_width, 2), round(base - tall, 2), round(bin_width - 0.8, 2), tall,
                "bar" if inside else "bar out", f"{number(left)} to {number(left + step)}: {count}",
            )
        )  # fmt: skip
    seen = Rect(across(found.seen_lo), base + 3, max(1.5, across(found.seen_hi) - across(found.seen_lo)), 3, "seen",
                f"values from {found.seen_lo:.5g} to {found.seen_hi:.5g}")  # fmt: skip
    marks = [
        Mark(across(v), top - 4, across(v), base, "edge", number(v), anchor, across(v), top - 7)
        for v, anchor in ((found.grid_lo, "middle"), (found.grid_hi, "middle"))
    ]
    text = f"seen {number(found.seen_lo)} to {number(found.seen_hi)} {found.unit}".strip()
    marks.append(Mark(0, 0, 0, 0, "none", text, "start", 6.0, base + 20))
    clipped = "<0.01%" if 0 < found.clipped < 0.0001 else f"{found.clipped:.2%}"
    share = f"{found.used:.0%} of the grid, {clipped} clipped"
    marks.append(Mark(0, 0, 0, 0, "none", share, "start", 6.0, base + 35))
    return Chart(width, height, description, (*rects, seen), tuple(marks))


def error_chart(layers: Sequence[LayerError]) -> Chart:
    """SQNR in dB over the steps of the graph: accumulated as a line, isolated as dots."""
    shown = [layer for layer in layers if layer.accumulated_db is not None]
    width, height, left, base = 960.0, 250.0, 54.0, 222.0
    known = [v for layer in shown for v in (layer.accumulated_db, layer.isolated_db) if v is not None]
    low = min(0.0, 10 * math.floor(min(known, default=0.0) / 10))
    down = Scale(low, 80.0, base, 10.0)
    across = Scale(0, max(1, len(shown) - 1), left + 8, width - 10)
    marks = [
        Mark(left, down(t), width - 4, down(t), "rule", f"{'≥' if t == 80 else ''}{t:g} dB", "end", left - 4,
             down(t) + 4)
        for t in ticks(low, 80.0)
    ]
    marks.append(Mark(0, 0, 0, 0, "none", f"{len(shown)} steps, in the order of execution", "middle", width / 2, 244))
    line = " ".join(f"{across(i)},{down(s.accumulated_db or 0.0)}" for i, s in enumerate(shown))
    points = []
    for index, layer in enumerate(shown):
        if layer.isolated_db is not None:
            title = f"{layer.node} ({layer.op}): {decibels_text(layer.isolated_db)} alone"
            points.append(Point(across(index), down(layer.isolated_db), 3.2, "alone", title))
        title = f"{layer.node} ({layer.op}): {decibels_text(layer.accumulated_db)} in the network"
        points.append(Point(across(index), down(layer.accumulated_db or 0.0), 2.4, "summed", title))
    description = "Signal to quantization noise of every step"
    return Chart(width, height, description, (), tuple(marks), (("summed", line),), tuple(points))


def memory_chart(plan: ArenaPlan) -> Chart:
    """Buffers as rectangles over steps and offsets, the peak step, and the bound that no order of memory undercuts."""
    width, height, left, base, top = 960.0, 380.0, 78.0, 340.0, 24.0
    count = max(1, len(plan.steps))
    across, up = Scale(0, count, left, width - 8), Scale(0, plan.arena_bytes, base, top)
    unit = across(1) - across(0)
    rects = []
    for index, buffer in enumerate(plan.buffers):
        tall = up(buffer.offset) - up(buffer.offset + buffer.bytes)
        wide = across(buffer.last + 1) - across(buffer.first)
        title = (
            f"{buffer.name}: {bytes_text(buffer.bytes)} at {buffer.offset}, steps {buffer.first} to {buffer.last}"
        )
        texts = (buffer.name, bytes_text(buffer.bytes)) if tall >= 15 else ()
        label = next((t for t in texts if wide >= _LABEL_PIXELS * len(t) + 8), "")
        rects.append(
            Rect(across(buffer.first), up(buffer.offset + buffer.bytes), round(wide, 2), round(tall, 2),
                 f"buffer b{index % 5}", title, label)
        )  # fmt: skip
    rects.append(Rect(across(plan.peak_step), top, unit, base - top, "peak", _step_title(plan, plan.peak_step)))
    scale = 1 << 20 if plan.arena_bytes >= 1 << 20 else 1 << 10 if plan.arena_bytes >= 1 << 10 else 1
    marks = [
        Mark(left, up(t * scale), width - 8, up(t * scale), "rule", bytes_text(t * scale), "end", left - 6,
             up(t * scale) + 4)
        for t in ticks(0, plan.arena_bytes / scale, 4)
    ]
    bound = f"lower bound {bytes_text(plan.lower_bound)}"
    marks.append(Mark(left, up(plan.lower_bound), width - 8, up(plan.lower_bound), "bound", bound, "end", width - 10,
                      up(plan.lower_bound) - 6))  # fmt: skip
    peak = f"peak: step {plan.peak_step}"
    near = min(max(across(plan.peak_step) + unit / 2, left + 60), width - 70)
    marks.append(Mark(0, 0, 0, 0, "none", peak, "middle", near, base + 16))
    marks.append(Mark(0, 0, 0, 0, "none", f"{count} steps", "end", width - 8, base + 32))
    return Chart(width, height, "The arena over the steps", tuple(rects), tuple(marks))


def _step_title(plan: ArenaPlan, step: int) -> str:
    name = plan.steps[step] if step < len(plan.steps) else ""
    return f"step {step}, {name}: {bytes_text(plan.lower_bound)} live, the most of all steps"


def front_chart(candidates: tuple[Candidate, ...], own: Candidate | None) -> Chart:
    """Accuracy over latency: all candidates, the line of those that none beats, and the artifact itself."""
    width, height, left, base, top = 960.0, 330.0, 66.0, 290.0, 16.0
    everyone = (*candidates, *((own,) if own is not None else ()))
    slow, best, worst = (
        max(c.latency_ms for c in everyone), max(c.accuracy for c in everyone), min(c.accuracy for c in everyone)
    )  # fmt: skip
    margin = 0.1 * (best - worst) or 0.01
    across = Scale(0.0, slow * 1.08 or 1.0, left, width - 14)
    up = Scale(worst - margin, best + margin, base, top)
    marks = [
        Mark(left, up(t), width - 14, up(t), "rule", f"{100 * t:.4g}%", "end", left - 6, up(t) + 4)
        for t in ticks(worst - margin, best + margin)
    ]
    marks += [
        Mark(across(t), base, across(t), base + 5, "rule", number(t), "middle", across(t), base + 19)
        for t in ticks(0.0, slow * 1.08)
    ]
    marks.append(Mark(0, 0, 0, 0, "none", "latency, ms", "end", width - 14, base + 36))
    leading = undominated(candidates)
    line = " ".join(f"{across(c.latency_ms)},{up(c.accuracy)}" for c in leading)
    points = []
    labelled: list[tuple[float, float]] = []  # where there is room for no other text; hovering shows the rest
    for one in reversed(everyone):
        style = "own" if one is own else "leading" if one in leading else "beaten"
        title = f"{one.label}: {100 * one.accuracy:.2f}%, {one.latency_ms:.3f} ms, {bytes_text(one.size)}"
        points.append(Point(across(one.latency_ms), up(one.accuracy), 6.0 if one is own else 4.5, style, title))
        at = (across(one.latency_ms), up(one.accuracy) + (16 if style == "own" else -7))
        if style != "beaten" and all(abs(at[0] - x) > 150 or abs(at[1] - y) > 13 for x, y in labelled):
            labelled.append(at)
            right = at[0] < width - 200
            text = _shortened(one.label, 22)
            marks.append(
                Mark(0, 0, 0, 0, "none", text, "start" if right else "end", at[0] + (9 if right else -9), at[1])
            )
    return Chart(width, height, "Accuracy over latency", (), tuple(marks), (("leading", line),), tuple(points))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
