"""What an AVX512-VNNI generator returns, and how its templates are rendered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np


@dataclass(frozen=True)
class Helper:
    """A shared C function (or type), emitted once per name, before whatever names it."""

    name: str
    text: str


@dataclass(frozen=True)
class Code:
    """C of one node: `static void SYMBOL(void* const* p, int32_t task)` and what it needs.

    p holds the activation inputs, the output, then `constants` (each 64-byte aligned)."""

    helpers: tuple[Helper, ...]
    text: str
    tasks: int
    constants: tuple[np.ndarray, ...]
    kernel: str


@lru_cache(maxsize=None)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: Any) -> str:
    """Text of `templates/TEMPLATE` with `values` substituted; an unknown name is an error."""
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=None)
def plain_helper(name: str, template: str) -> Helper:
    """A helper whose text depends on nothing."""
    return Helper(name, render(template))


def merge_helpers(*groups: tuple[Helper, ...]) -> tuple[Helper, ...]:
    """Helpers of all groups in order of first use, each once."""
    return tuple({helper.name: helper for group in groups for helper in group}.values())


def float_literal(value: float) -> str:
    """A C literal of exactly this float32 (hexadecimal, so no rounding is left to the compiler)."""
    return float(np.float32(value)).hex() + "f"
