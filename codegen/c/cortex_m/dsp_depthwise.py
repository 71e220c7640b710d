"""Depthwise convolutions by SMLABB and SMLATT: four channels of two pixels at a time."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.cortex_m.walk import Packed, line_length, pairs, walked
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.vector.packing import padded, stored_bias
from qcomp.codegen.c.vector.runs import tap_offsets
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32

#: Taps up to which the code of a pixel is written out.
MOST_TAPS = 25


def depthwise_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, symbol: str
) -> KernelCode:
    """C of a convolution with one input and one output channel a group.

    weights: int8 [C, KH, KW, 1]; bias, mult: [C].  Up to 3 bytes behind the end of x are read."""
    channels, offsets = shape.y.channels, tap_offsets(shape)
    width = -(-channels // 4) * 4
    packed = padded(weights.reshape(channels, len(offsets)), width).reshape(-1, 4, len(offsets)).transpose(0, 2, 1)
    found = pairs(line_length(shape, None))
    text = render(
        "dsp_depthwise.c.j2", symbol=symbol, heights=[tile.pixels for tile in found], channels=channels,
        offsets=offsets, xs=shape.x_step, ys=channels, ending=ending,
    )  # fmt: skip
    constants = (
        Packed("int8_t", "weights", np.ascontiguousarray(packed)),
        Packed("int32_t", "bias", padded(stored_bias(weights, bias, x_zp), width)),
        Packed(ending.multiplier_type, "mult", padded(ending.multipliers(mult), width)),
    )
    halves = CFunction("qc_dsp_halves", render("dsp_halves.c.j2"))
    kernel = f"smla depthwise {found[0].pixels}x4"
    return walked(symbol, text, shape, ending, found, constants, 1, kernel, (halves, ending.helper))
