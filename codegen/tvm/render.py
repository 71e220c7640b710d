"""The templates of the TVM back end: C that calls what TVM compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qcomp.codegen.c.render import CTYPES, environment
from qcomp.ir import DType

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Text of `templates/TEMPLATE` with `values` substituted; an unknown name is an error."""
    return environment(_TEMPLATES).get_template(template).render(**values)


def ctype(dtype: str) -> str:
    """C's name of a type that numpy and TVM call so."""
    return CTYPES[DType.of(np.dtype(dtype))]
