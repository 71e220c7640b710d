"""Rendering of C text: one strict Jinja environment a template folder, and exact literals."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import jinja2
import numpy as np

from qcomp.ir import DType

CTYPES: dict[DType, str] = {
    DType.F32: "float", DType.F64: "double", DType.I8: "int8_t", DType.U8: "uint8_t", DType.I16: "int16_t",
    DType.U16: "uint16_t", DType.I32: "int32_t", DType.U32: "uint32_t", DType.I64: "int64_t", DType.U64: "uint64_t",
    DType.BOOL: "uint8_t",
}  # fmt: skip


@cache
def environment(folder: Path) -> jinja2.Environment:
    """Templates of a folder; an undefined name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def float_literal(value: float | np.floating) -> str:
    """C text of exactly this float32."""
    number = float(np.float32(value))
    if math.isnan(number):
        return "(0.0f / 0.0f)"
    if math.isinf(number):
        return "(1.0f / 0.0f)" if number > 0 else "(-1.0f / 0.0f)"
    if number == int(number) and abs(number) < 1e6:
        text = f"{number:.1f}f"
    else:
        text = f"{number.hex()}f"
    return f"({text})" if text.startswith("-") else text


def identifier(name: str) -> str:
    """A C identifier that resembles `name`."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name) or "model"
    return f"m{text}" if text[0].isdigit() else text


def comment(text: str) -> str:
    """Text that cannot end a C comment or continue a line."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).replace("*/", "* /").replace("\\", "/")
