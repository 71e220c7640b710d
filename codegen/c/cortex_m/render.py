"""Rendering of this folder's templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qcomp.codegen.c.render import environment

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Text of `templates/TEMPLATE`; an unknown name is an error."""
    return environment(_TEMPLATES).get_template(template).render(**values)
