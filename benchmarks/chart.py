"""A bar chart of ratios as SVG: how often qcomp fits into the fastest peer's time."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_WIDTH = 320


def ratio_chart(title: str, rows: list[tuple[str, float, str]]) -> str:
    """SVG with a bar for each (model, ratio, peer); the dashed line is 1, where both are level."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, autoescape=True
    )
    unit = _WIDTH / max(1.0, *(ratio for _, ratio, _ in rows))
    return environment.get_template("ratios.svg.j2").render(title=title, rows=rows, unit=unit)
