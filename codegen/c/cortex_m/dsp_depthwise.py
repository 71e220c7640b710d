"""Depthwise convolutions by SMLABB and SMLATT: four channels of two pixels at a time."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.cortex_m.dsp import Tile
from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.lines import lines_of
from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.vector.packing import padded, stored_bias
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32

#: Taps up to which the code of a pixel is written out.
MOST_TAPS = 25


def tap_offsets(shape: ConvShape) -> list[int]:
    """Bytes from an output pixel's own input pixel to each of its taps."""
    (kh, kw), (dh, dw), x = shape.kernel, shape.dilations, shape.x
    top, left = shape.pads[:2]
    return [
        (i * dh - top) * x.row_stride + (j * dw - left) * x.channels for i in range(kh) for j in range(kw)
    ]  # fmt: skip


def depthwise_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, symbol: str
) -> KernelCode:
    """C of a convolution with one input and one output channel a group.

    weights: int8 [C, KH, KW, 1]; bias, mult: [C].  Up to 3 bytes behind the end of x are read."""
    channels, offsets = shape.y.channels, tap_offsets(shape)
    width = -(-channels // 4) * 4
    packed = padded(weights.reshape(channels, len(offsets)), width).reshape(-1, 4, len(offsets)).transpose(0, 2, 1)
    lines = lines_of(shape, None)
    pairs, single = divmod(lines.length, 2)
    found = [tile for tile in (Tile(2, pairs), Tile(1, single)) if tile.repeats]
    text = render(
        "dsp_depthwise.c.j2", symbol=symbol, heights=[tile.pixels for tile in found], channels=channels,
        offsets=offsets, xs=shape.strides[1] * channels, ys=channels, ending=ending, tiles=found, lines=lines,
        parts=split(lines.count, shape.macs / max(1, lines.count)),
    )  # fmt: skip
    constants = [
        np.ascontiguousarray(packed), padded(stored_bias(weights, bias, x_zp), width),
        padded(ending.multipliers(mult), width),
    ]  # fmt: skip
    if ending.table is not None:
        constants.append(np.array(ending.table, np.uint8))
    tasks = split(lines.count, shape.macs / max(1, lines.count)).count
    halves = CFunction("qc_dsp_halves", render("dsp_halves.c.j2"))
    return KernelCode((halves, ending.helper), text, tasks, tuple(constants), f"smla depthwise {found[0].pixels}x4")
