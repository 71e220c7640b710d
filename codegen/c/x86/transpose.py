"""Transposition of 32-bit elements: two neighbouring groups of axes change places."""

from __future__ import annotations

import math

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import render
from qcomp.codegen.plan.buffer import Buffer

_PART_ELEMENTS = 16 * 1024


def as_matrices(shape: tuple[int, ...], perm: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(batch, rows, columns) where a permutation is the transposition of `batch` dense matrices; else None."""
    lead = next((i for i, axis in enumerate(perm) if axis != i), len(perm))
    tail = perm[lead:]
    turn = tail.index(min(tail)) if tail else 0
    if turn == 0 or (*tail[turn:], *tail[:turn]) != tuple(range(lead, len(perm))):
        return None
    rows = math.prod(shape[lead : lead + len(tail) - turn])
    return math.prod(shape[:lead]), rows, math.prod(shape[lead:]) // max(1, rows)


def transpose_code(x: Buffer, perm: tuple[int, ...], isa: Isa, symbol: str) -> KernelCode:
    """C of transpose of dense f32 buffers; `as_matrices` must accept it."""
    found = as_matrices(x.shape, perm)
    assert found is not None
    batch, rows, columns = found
    parts = max(1, min(-(-32 // batch), rows // 8, rows * columns // _PART_ELEMENTS))
    rows_per_part = -(-rows // (8 * parts)) * 8
    parts = -(-rows // rows_per_part)
    text = render(
        "transpose.c.j2", symbol=symbol, rows=rows, columns=columns, parts=parts, rows_per_part=rows_per_part
    )
    helper = CFunction("qc_x86_transpose8", render("transpose8.c.j2"))
    return KernelCode((helper,), text, batch * parts, (), f"{isa.name} transpose")
