"""What the accumulators of a product start from, and how they end, whatever computes what lies between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.vector.packing import accumulator_reach, stored_bias
from qcomp.codegen.c.vector.shapes import Float32, Int8, Int32, Requantization
from qcomp.codegen.c.x86.epilogue import Epilogue
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.packing import (
    FLOAT_BITS,
    Multipliers,
    float_bits_fit,
    needs_guard,
    stored_multipliers,
)


@dataclass(frozen=True)
class Arithmetic:
    """bias: int32 [O], the zero point of x folded in, and FLOAT_BITS where accumulators hold the bits of floats;
    epilogue: that of tiles with all their channels, some pixels apart."""

    bias: Int32
    multipliers: Multipliers
    epilogue: Epilogue


def arithmetic_of(
    weights: Int8, bias: Int32, mult: Float32, requantization: Requantization, isa: Isa
) -> Arithmetic:
    """Of a product with weights [O, ...], bias and mult [O]; QcompError where bias - zp*sum(w) leaves int32."""
    residual, packs = requantization.residual, requantization.packs
    folded = stored_bias(weights, bias, requantization.x_zp)
    reach = accumulator_reach(weights, bias, requantization.x_zp, requantization.words)
    multipliers = stored_multipliers(mult)
    fused = packs and float_bits_fit(reach, multipliers)
    epilogue = Epilogue(
        isa,
        requantization.dtype,
        guard=packs and needs_guard(reach, mult, 0.0 if residual is None else 255 * abs(residual.mult)),
        table=packs and requantization.table is not None,
        short=multipliers.short,
        fused=fused,
        clamped=requantization.clamped,
        residual="" if residual is None else "fused" if residual.exact else "separate",
    )
    return Arithmetic(folded + np.int32(FLOAT_BITS) if fused else folded, multipliers, epilogue)
