"""Depthwise convolutions of 3 x 3 taps by SDOT: sixteen channels of two rows and two columns of pixels at a time.

Four neighbouring pixels of a row are interleaved, so that a lane has a channel's bytes of all four; weights are those
of a kernel row and a zero for the first pixel, a zero and those of the row for the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.arm.depthwise import Channels, channel_parts
from qcomp.codegen.c.arm.ending import Ending, types_helper
from qcomp.codegen.c.arm.render import render
from qcomp.codegen.c.kernel import KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.vector.packing import padded, stored_bias
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32

_CHANNELS = 16
_TAPS = 3


def has_dots(shape: ConvShape) -> bool:
    """Whether `depthwise_dots_code` computes this depthwise convolution."""
    return shape.kernel == (_TAPS, _TAPS) and shape.strides == (1, 1) and shape.dilations == (1, 1)


@dataclass(frozen=True)
class _Block:
    """Code for `rows` x `columns` pixels of the channels of a part.  The pixels are numbered by rows."""

    rows: int
    columns: int
    part: Channels

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    def results(self, y_row: int) -> list[str]:
        ys = self.part.ys
        places = [i * y_row + j * ys for i in range(self.rows) for j in range(self.columns)]
        return self.part.results([f"to + {place}" for place in places])

    @property
    def loaded(self) -> list[int]:
        """Columns of the pixels that meet the four taps; the last one, where it meets zeros alone, is any."""
        return [min(j, self.columns + 1) for j in range(4)]


def packed_taps(weights: Int8) -> Int8:
    """[C, 3, 3, 1] -> by sixteen channels: [3 rows, 2 pixels, channels, 4 taps]."""
    channels = weights.shape[0]
    width = -(-channels // _CHANNELS) * _CHANNELS
    rows = padded(weights.reshape(channels, _TAPS, _TAPS), width).reshape(-1, _CHANNELS, _TAPS, _TAPS)
    both = [np.pad(rows, ((0, 0), (0, 0), (0, 0), zeros)) for zeros in ((0, 1), (1, 0))]
    return np.ascontiguousarray(np.stack(both).transpose(1, 3, 0, 2, 4))


def depthwise_dots_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, symbol: str, external: bool
) -> KernelCode:
    """C of a convolution that `has_dots`, with one input and one output channel a group.

    weights: int8 [C, 3, 3, 1]; bias, mult: [C].  external: nothing behind the end of x may be read."""
    x, y = shape.x, shape.y
    form = ending.product_form(weights, bias, mult, x_zp)
    pairs = -(-y.height // 2)
    parts = split(y.batch * pairs, 2 * shape.macs / max(1, y.batch * y.height) / 6)
    heights = [rows for rows, there in ((2, y.height > 1), (1, y.height % 2 == 1)) if there]
    widths = [columns for columns, there in ((2, y.width > 1), (1, y.width % 2 == 1)) if there]
    blocks = [
        [[_Block(rows, columns, part) for part in channel_parts(y.channels, external, form)] for columns in widths]
        for rows in heights
    ]
    text = render(
        "depthwise_dots.c.j2", symbol=symbol, ctype=form.ctype, blocks=blocks, parts=parts, pairs=pairs, x=x, y=y,
        origin=shape.pads[0] * x.row_stride + shape.pads[1] * x.channels, taps=range(_TAPS), shared=form.shared(),
        values=ending.values(form, 0), table=form.table,
    )  # fmt: skip
    width = -(-y.channels // _CHANNELS) * _CHANNELS
    constants: list[np.ndarray] = [
        packed_taps(weights), padded(stored_bias(weights, bias, x_zp), width), padded(mult.astype(np.float32), width)
    ]  # fmt: skip
    if ending.table is not None:
        constants.append(np.array(ending.table, np.uint8))
    return KernelCode((types_helper(),), text, parts.count, tuple(constants), "sdot depthwise 2x2x16")
