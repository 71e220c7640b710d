"""The interpreter's exponential (`qcomp.ir.fixed_math.exp`) in vectors: what exponential.c.j2 is written with."""

from __future__ import annotations

from qcomp.codegen.c.render import float_literal
from qcomp.ir import fixed_math as fm


def exponential_values() -> dict[str, object]:
    """Its constants, under the names that templates give them."""
    named = {"log2_e": fm.LOG2_E, "ln2_hi": fm.LN2_HI, "ln2_lo": fm.LN2_LO, "magic": fm.ROUND_MAGIC}
    return {**{n: float_literal(v) for n, v in named.items()}, "poly": [float_literal(c) for c in fm.EXP_POLY]}
