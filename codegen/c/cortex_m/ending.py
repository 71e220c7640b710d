"""How accumulators become results on a Cortex-M: with its float32 unit, or in fixed point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.shapes import Residual
from qcomp.ir.fixed_point import FixedFactors


@dataclass(frozen=True)
class Ending:
    """Rounding to int8 with zero point `zp` into [lo, hi], then through `table`, i8[256] as uint8 by stored byte.

    fixed: the factors of accumulators [O] and, with a residual, of its terms; None rounds by float32. real: results
    stay float32."""

    zp: int
    lo: int
    hi: int
    table: tuple[int, ...] | None = None
    residual: Residual | None = None
    fixed: FixedFactors | None = None
    real: bool = False

    @property
    def ctype(self) -> str:
        return "float" if self.real else "int8_t"

    def multipliers(self, mult: np.ndarray) -> np.ndarray:
        """What accumulators are multiplied by: [O], float32 or int32."""
        return mult.astype(np.float32) if self.fixed is None else self.fixed.factors[0].astype(np.int32)

    @property
    def multiplier_type(self) -> str:
        return "float" if self.fixed is None else "int32_t"

    @property
    def residual_mult(self) -> str:
        """C of the factor of a residual."""
        assert self.residual is not None
        return float_literal(self.residual.mult)

    @property
    def helper(self) -> CFunction:
        """The C functions that `store` calls."""
        return CFunction("qc_m_round", render("round.c.j2"))

    def store(self, accumulator: str, multiplier: str, residual: str) -> str:
        """C expression of the result from C expressions of an int32 accumulator, its multiplier and the residual."""
        if self.real:
            return f"(float){accumulator} * {multiplier}"
        if self.fixed is not None:
            steps = self._fixed_steps(accumulator, multiplier, residual)
        else:
            product = f"(float){accumulator} * {multiplier}"
            if self.residual is not None:
                added = f"(float)({residual} - {self.residual.zp}) * {self.residual_mult}"
                product = f"({product}) + {added}"
            steps = f"qc_m_near({product})"
        stored = f"qc_m_clamp({steps}, {self.zp}, {self.lo}, {self.hi})"
        return f"(int8_t)table[(uint8_t)({stored})]" if self.table is not None else f"(int8_t)({stored})"

    def _fixed_steps(self, accumulator: str, multiplier: str, residual: str) -> str:
        assert self.fixed is not None
        shift = self.fixed.shift
        terms = f"(int64_t)({accumulator}) * {multiplier}"
        if self.residual is not None:
            terms += f" + (int64_t)({residual} - {self.residual.zp}) * {int(self.fixed.factors[1])}"
        elif shift > 32:
            # The floor of half a product is what is left of the whole one's upper word.
            return f"((int32_t)(({terms}) >> 32) + {1 << (shift - 33)}) >> {shift - 32}"
        return f"qc_m_narrow(({terms} + {1 << (shift - 1)}LL) >> {shift})"
