"""The comparison as one HTML page that needs nothing else: styles and drawings are inside, nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from qcomp import __version__
from qcomp.reports.compare.charts import Chart, error_chart, front_chart, histogram, memory_chart
from qcomp.reports.compare.cost import SOURCE
from qcomp.reports.compare.front import Candidate
from qcomp.reports.compare.graph_drawing import BOX_HEIGHT, BOX_WIDTH, Drawing, draw_graph
from qcomp.reports.compare.layers import EXACT_DB, LayerError
from qcomp.reports.compare.result import Comparison, StepFigures
from qcomp.reports.compare.scale import number
from qcomp.reports.compare.summary import (
    bytes_text,
    check_text,
    decibels_text,
    percent,
    rows,
    verdict,
    worst_layers,
)
from qcomp.reports.coverage import reason_text

_TEMPLATES = Path(__file__).parent / "templates"
_OPEN_HISTOGRAMS = 6
_BOX_CHARACTERS = 24
_MOVES = frozenset({"reshape", "transpose", "identity"})
#: Classes of the style sheet by the least SQNR in dB that they stand for.
_ERROR_CLASSES = ((40.0, "e0"), (30.0, "e1"), (20.0, "e2"), (10.0, "e3"), (float("-inf"), "e4"))


@dataclass(frozen=True)
class GraphBox:
    """A node of the drawing."""

    x: float
    y: float
    style: str
    precision: str
    first: str
    second: str
    title: str


@dataclass(frozen=True)
class LayerRow:
    """A step of the table; widths of bars in percent of the largest."""

    step: StepFigures
    name: str
    style: str
    alone: str
    summed: str
    alone_width: float
    time_width: float
    macs_width: float
    bytes_width: float
    macs: str
    bytes: str


@dataclass(frozen=True)
class LayerCharts:
    """Histograms of one layer."""

    name: str
    summary: str
    charts: tuple[tuple[str, Chart], ...]


@dataclass(frozen=True)
class FloatGroup:
    """Ops that stay float for one reason."""

    op: str
    reason: str
    advice: str
    meaning: str
    nodes: tuple[str, ...]


@cache
def _environment() -> jinja2.Environment:
    """Everything is escaped; an undefined name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True, finalize=_printable,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "size": bytes_text, "number": number, "micro": _micro}
    return environment


def page(found: Comparison) -> str:
    """The whole page as HTML text.  The same comparison gives the same text."""
    worst = worst_layers(found)
    return _environment().get_template("page.html.j2").render(
        found=found,
        version=__version__,
        energy_source=SOURCE,
        verdict=verdict(found),
        state="plain" if not found.checks else "kept" if found.passed else "broken",
        checks=[check_text(check) for check in found.checks],
        rows=rows(found),
        layer_rows=_layer_rows(found),
        worst=worst[:5],
        error_chart=error_chart(found.study.layers) if found.study is not None else None,
        graph=_graph(found),
        box=(BOX_WIDTH, BOX_HEIGHT),
        opened=_histograms(worst[:_OPEN_HISTOGRAMS]),
        closed=_histograms([*worst[_OPEN_HISTOGRAMS:], *_unranked(found, worst)]),
        memory=memory_chart(found.plan) if found.plan is not None else None,
        front=front_chart(found.front, _own(found)) if found.front else None,
        floats=_float_groups(found),
    )


def _printable(value: object) -> object:
    """Text without characters that a page must not hold; what is markup already, and anything else, as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in value)


def _micro(text: str) -> str:
    """Units with the sign that a terminal may lack."""
    return text.replace(" us", " µs").replace(" uJ", " µJ")


def _error_class(decibels: float | None) -> str:
    if decibels is None:
        return "unknown"
    return next(style for least, style in _ERROR_CLASSES if decibels >= least)


def _decibels(value: float | None) -> str:
    if value is None:
        return ""
    return "exact" if value >= EXACT_DB else f"{value:.1f}"


def _layer_rows(found: Comparison) -> list[LayerRow]:
    slowest = max((s.milliseconds for s in found.steps), default=0.0) or 1.0
    most_macs = max((s.macs for s in found.steps), default=0) or 1
    most_bytes = max((s.bytes_moved for s in found.steps), default=0) or 1
    table = []
    for step in found.steps:
        alone = step.error.isolated_db if step.error is not None else None
        summed = step.error.accumulated_db if step.error is not None else None
        table.append(
            LayerRow(
                step, step.name, _error_class(alone), _decibels(alone), _decibels(summed),
                _bar(min(alone or 0.0, 60.0) / 60.0), _bar(step.milliseconds / slowest), _bar(step.macs / most_macs),
                _bar(step.bytes_moved / most_bytes), number(step.macs) if step.macs else "",
                number(step.bytes_moved),
            )
        )  # fmt: skip
    return table


def _bar(share: float) -> float:
    return round(100 * max(0.0, min(1.0, share)), 1)


def _graph(found: Comparison) -> tuple[Drawing, list[GraphBox]] | None:
    if found.study is None:
        return None
    layers = found.study.layers
    drawing = draw_graph(len(layers), found.edges)
    steps = {id(step.error): step for step in found.steps if step.error is not None}
    boxes = [
        _graph_box(layers[box.node], steps.get(id(layers[box.node])), box.x, box.y) for box in drawing.boxes
    ]
    return drawing, boxes


def _graph_box(layer: LayerError, step: StepFigures | None, x: float, y: float) -> GraphBox:
    """What one box says; a node without a step of its own was merged into another's memory."""
    name = layer.node if len(layer.node) <= _BOX_CHARACTERS else f"…{layer.node[1 - _BOX_CHARACTERS:]}"
    figures = []
    if layer.isolated_db is not None:
        figures.append(decibels_text(layer.isolated_db))
    if step is not None:
        figures.append(f"{step.milliseconds * 1e3:.1f} µs")
    lines = [
        f"{layer.node} ({layer.op})",
        f"tensor {layer.value}",
        f"SQNR: {decibels_text(layer.isolated_db)} alone, {decibels_text(layer.accumulated_db)} in the network",
    ]
    if step is not None:
        lines.append(f"{step.kernel}: {step.milliseconds:.4f} ms, {step.macs} MACs, {step.bytes_moved} bytes")
    precision = "int8" if step is None or not step.precision.startswith("f") else "float"
    if step is None:
        precision = "view"
    return GraphBox(x, y, _error_class(layer.isolated_db), precision, name, " · ".join([layer.op, *figures]),
                    "\n".join(lines))  # fmt: skip


def _unranked(found: Comparison, worst: Sequence[StepFigures]) -> list[StepFigures]:
    """Measured steps that have histograms and are not in the list of the worst."""
    ranked = {id(step) for step in worst}
    return [s for s in found.steps if s.error is not None and id(s) not in ranked and s.op not in _MOVES]


def _histograms(steps: Sequence[StepFigures]) -> list[LayerCharts]:
    found = []
    for step in steps:
        if step.error is None:
            continue
        kinds = (("weights, in steps of their channel", step.error.weights), ("result", step.error.activation))
        charts = tuple((kind, histogram(d, f"{kind} of {step.name}")) for kind, d in kinds if d is not None)
        if charts:
            figures = (("alone", step.error.isolated_db), ("in the network", step.error.accumulated_db))
            summary = ", ".join(f"{decibels_text(v)} {what}" for what, v in figures if v is not None)
            found.append(LayerCharts(step.name, f"{step.op}: {summary}", charts))
    return found


def _own(found: Comparison) -> Candidate | None:
    """The artifact as a point of the front; None without labels, as agreement is another measure."""
    top1 = found.decided.int8_top1
    if top1 is None:
        return None
    return Candidate(top1, found.int8_side.median_ms, found.int8_side.disk_bytes, "this artifact")


def _float_groups(found: Comparison) -> list[FloatGroup]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for island in found.islands:
        key = (str(island.get("op", "")), str(island.get("reason", "")), str(island.get("advice", "")))
        groups.setdefault(key, []).append(str(island.get("node", "")))
    return [FloatGroup(*key, reason_text(key[1]), tuple(nodes)) for key, nodes in groups.items()]
