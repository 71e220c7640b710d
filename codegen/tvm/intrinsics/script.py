"""Intrinsics as TVMScript text, which is parsed on first use.

Each is a pair of functions: the meaning that a schedule is matched with, and the instructions that take its place."""

from __future__ import annotations

from collections.abc import Sequence

from qcomp.codegen.tvm.adapter import tvm


def registered(name: str, meaning: str, code: str, instructions: Sequence[str] = (), **values: object) -> str:
    """The name of the intrinsic that two texts give, with `values` and the lines of `instructions` filled in."""
    tvm()
    from tvm.s_tir import TensorIntrin
    from tvm.script import from_source, tirx

    functions = []
    for text in (meaning, code):
        filled = text.format(instructions="\n".join(f"        {line}" for line in instructions), **values)
        functions.append(from_source(filled, {"T": tirx, "range": range}, s_tir=True))
    TensorIntrin.register(name, *functions, override=True)
    return name
