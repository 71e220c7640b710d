"""qlayer_norm along the last axis."""

from __future__ import annotations

import math
from functools import cache

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.nest import flat_index
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.shapes import Float32
from qcomp.codegen.c.x86.elementwise import Scalars, scalars_helper
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.lanes import STORED, load_dwords, load_words, store_dwords
from qcomp.codegen.c.x86.render import plain_helper, render
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType


def qnorm_code(
    x: Buffer, y: Buffer, scale: Float32, bias: Float32, epsilon: float, scalars: Scalars, isa: Isa, symbol: str
) -> KernelCode:
    """C of qlayer_norm along the last axis of u8 or i16 [..., n], with any halo; scale and bias [n], scalars in stored
    terms."""
    length = x.shape[-1]
    row = _row(isa, x.dtype, y.dtype)
    parts = split(math.prod(x.shape[:-1]), length * 2)
    text = render(
        "qnorm.c.j2", symbol=symbol, parts=parts, length=length, function=row.name, xtype=STORED[x.dtype],
        x_row=flat_index("row", x.shape[:-1], x.strides[:-1]), y_row=flat_index("row", y.shape[:-1], y.strides[:-1]),
        ytype=STORED[y.dtype], epsilon=float_literal(epsilon), **scalars.values(),
    )  # fmt: skip
    helpers = (*scalars_helper(isa), plain_helper("qc_x86_root", "root.c.j2"), row)
    return KernelCode(helpers, text, parts.count, (scale, bias), f"{isa.name} qlayer_norm")


@cache
def _row(isa: Isa, x: DType, y: DType) -> CFunction:
    name = f"qc_x86_qnorm_{x.value}_{y.value}"
    rounds = y is not DType.F32
    text = render(
        "qnorm_row.c.j2", V=isa, name=name, xtype=STORED[x], ytype=STORED[y], rounds=rounds,
        words=load_words(isa, x, "x + i"), dwords=load_dwords(isa, x, "x + i"),
        store=store_dwords(isa, y, "y + i", "r") if rounds else "",
    )  # fmt: skip
    return CFunction(name, text)
