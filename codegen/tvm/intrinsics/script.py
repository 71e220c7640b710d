"""Intrinsics as TVMScript text, which is parsed on first use.

Each is a pair of functions that begin alike: the loops that a schedule is matched with, and the instructions that take
their place."""

from __future__ import annotations

from collections.abc import Sequence

from qcomp.codegen.tvm.adapter import tvm


def registered(
    name: str, head: str, loops: str, instructions: Sequence[str], code_head: str = "", /, **values: object
) -> str:
    """The name of an intrinsic, with `values` filled in: of a function that begins with `head`, what `loops` and what
    the lines of `instructions` do; code_head: the second one's own beginning, if it has one."""
    tvm()
    from tvm.s_tir import TensorIntrin
    from tvm.script import from_source, tirx

    lines = "".join(f"        {line}\n" for line in instructions)
    functions = [
        from_source(text.format(**values) + rest, {"T": tirx, "range": range}, s_tir=True)
        for text, rest in ((head + loops, ""), (code_head or head, lines))
    ]
    TensorIntrin.register(name, *functions, override=True)
    return name
