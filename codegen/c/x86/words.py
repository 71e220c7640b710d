"""qadd and rescale where an operand or the result is int16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.x86.elementwise import Scalars, row_code, scalars_helper
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.lanes import STORED, load_dwords, store_dwords
from qcomp.codegen.c.x86.render import render
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType


def sum_code(
    buffers: Sequence[Buffer],
    scalars: Scalars,
    isa: Isa,
    symbol: str,
    fixed: Mapping[int, np.ndarray] | None = None,
) -> KernelCode:
    """C of the rounded sum of one or two terms; `buffers` are those of the terms and of the result, of one shape.

    scalars: in stored terms; fixed: stored values of operands that are constants."""
    row = _row(isa, tuple(buffer.dtype for buffer in buffers))
    kind = "add" if len(buffers) == 3 else "rescale"
    ctypes = [STORED[buffer.dtype] for buffer in buffers]
    return row_code(isa, row, buffers, ctypes, scalars, symbol, f"{isa.name} {kind} words", None, fixed)


@cache
def _row(isa: Isa, dtypes: tuple[DType, ...]) -> tuple[CFunction, ...]:
    *terms, result = dtypes
    name = f"qc_x86_sum_{'_'.join(dtype.value for dtype in dtypes)}"
    two = len(terms) == 2
    inside = two and result is DType.I8
    vector, scalar = ("f0", "s0") if not two else (f"{isa.mm}_add_ps(f0, f1)", "s0 + s1")
    text = render(
        "row_words.c.j2",
        V=isa,
        name=name,
        ctype=STORED[result],
        inputs=[
            {"name": n, "ctype": STORED[dtype], "load": load_dwords(isa, dtype, n)}
            for n, dtype in zip("ab", terms, strict=False)
        ],
        total=f"{isa.mm}_add_ps({vector}, zero)" if inside else vector,
        scalar=f"({scalar}) + q->zero" if inside else scalar,
        inside=inside,
        store=store_dwords(isa, result, "y", "i"),
    )
    return (*scalars_helper(isa), CFunction(name, text))
