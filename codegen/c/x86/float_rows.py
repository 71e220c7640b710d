"""layer_norm and softmax of float32 rows that are one run of memory: sums in the order that their definitions state."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.shapes import Float32
from qcomp.codegen.c.x86.attention import put_helper, reduce_helpers
from qcomp.codegen.c.x86.exponential import exponential_values
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import merge_helpers, plain_helper, render
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import fixed_math as fm

#: Rows that are normalized side by side.
_HEIGHTS = (4, 1)


@cache
def rows_helpers(isa: Isa) -> tuple[CFunction, ...]:
    """Partial sums, and loads and stores of what is left of a row."""
    return (
        *reduce_helpers(isa),
        put_helper(isa, real=True),
        CFunction("qc_x86_float_rows", render("float_rows.c.j2", V=isa)),
    )


def layer_norm_code(
    x: Buffer, length: int, scale: Float32, bias: Float32 | None, epsilon: float, isa: Isa, symbol: str
) -> KernelCode:
    """C of layer_norm over the last `length` elements of dense f32 [...]; scale and bias [length]."""
    biased = bias is not None
    name = f"qc_x86_layer_norm{'_b' * biased}"
    rows = CFunction(name, render("layer_norm_rows.c.j2", V=isa, heights=_HEIGHTS, biased=biased))
    count = math.prod(x.shape) // length
    parts = split(count, length * 2, _HEIGHTS[0])
    text = render(
        "layer_norm.c.j2", symbol=symbol, parts=parts, heights=_HEIGHTS, biased=biased, length=length,
        count=float_literal(float(length)), epsilon=float_literal(epsilon),
    )  # fmt: skip
    constants = (scale,) if bias is None else (scale, bias)
    helpers = merge_helpers(rows_helpers(isa), (plain_helper("qc_x86_root", "root.c.j2"), rows))
    return KernelCode(helpers, text, parts.count, constants, f"{isa.name} layer_norm")


def softmax_code(x: Buffer, isa: Isa, symbol: str) -> KernelCode:
    """C of softmax along the last axis of dense f32 [..., n]."""
    length = x.shape[-1]
    parts = split(math.prod(x.shape[:-1]), length * 6)
    row = render(
        "softmax_row.c.j2", V=isa, low=float_literal(fm.EXP_LO), lowest=float_literal(-np.inf),
        together_count=8 if isa.bits == 512 else 4, **exponential_values(),
    )  # fmt: skip
    text = render("softmax.c.j2", symbol=symbol, parts=parts, length=length)
    helpers = (*rows_helpers(isa), CFunction("qc_x86_softmax", row))
    return KernelCode(helpers, text, parts.count, (), f"{isa.name} softmax")
