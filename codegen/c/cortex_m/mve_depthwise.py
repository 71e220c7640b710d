"""Depthwise convolutions by Helium's widening products: sixteen channels at a time, two taps in 16 bits."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.mve import rounding
from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.cortex_m.walk import Packed, Tile, line_length, walked
from qcomp.codegen.c.kernel import KernelCode
from qcomp.codegen.c.vector.packing import padded, stored_bias
from qcomp.codegen.c.vector.runs import tap_offsets
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32

_CHANNELS = 16
#: The channels of four vectors of sums, as widening even lanes and then odd ones leaves them, twice.
_ORDER = (0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15)


def depthwise_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, symbol: str
) -> KernelCode:
    """C of a convolution with one input and one output channel a group, which rounds by float32.

    weights: int8 [C, KH, KW, 1] in [-127, 127], so that two products with int8 add up in 16 bits; bias, mult: [C].
    Nothing behind the end of x is read."""
    channels, offsets = shape.y.channels, tap_offsets(shape)
    width = -(-channels // _CHANNELS) * _CHANNELS
    packed = padded(weights.reshape(channels, len(offsets)), width).reshape(-1, _CHANNELS, len(offsets))
    text = render(
        "mve_depthwise.c.j2", symbol=symbol, channels=channels, taps=len(offsets),
        pairs=[offsets[i : i + 2] for i in range(0, len(offsets), 2)], ending=ending,
    )  # fmt: skip
    order = np.arange(width).reshape(-1, _CHANNELS)[:, _ORDER].reshape(-1)
    constants = (
        Packed("int8_t", "weights", np.ascontiguousarray(packed.transpose(0, 2, 1))),
        Packed("int32_t", "bias", padded(stored_bias(weights, bias, x_zp), width)[order]),
        Packed("float", "mult", padded(mult.astype(np.float32), width)[order]),
    )
    tiles = [Tile(1, line_length(shape, None))]
    return walked(symbol, text, shape, ending, tiles, constants, 3, "mve depthwise 1x16", (rounding(),))
