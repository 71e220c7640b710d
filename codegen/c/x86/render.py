"""The templates of the AVX512 generators, and gathering of shared C functions."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.render import environment

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Text of `templates/TEMPLATE` with `values` substituted; an unknown name is an error."""
    return environment(_TEMPLATES).get_template(template).render(**values)


@cache
def plain_helper(name: str, template: str) -> CFunction:
    """A helper whose text depends on nothing."""
    return CFunction(name, render(template))


def merge_helpers(*groups: tuple[CFunction, ...]) -> tuple[CFunction, ...]:
    """Helpers of all groups in order of first use, each once."""
    return tuple({helper.name: helper for group in groups for helper in group}.values())
