"""Depthwise convolutions, sixteen channels and two pixels at a time; any 64-bit ARM CPU has the instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.arm.ending import Ending, Form, Group, types_helper
from qcomp.codegen.c.arm.lanes import load
from qcomp.codegen.c.arm.render import render
from qcomp.codegen.c.kernel import KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.vector.packing import padded, stored_bias
from qcomp.codegen.c.vector.runs import tap_offsets
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32

_CHANNELS = 16
#: Taps up to which the code of a pixel is written out.
MOST_TAPS = 49


@dataclass(frozen=True)
class _Tap:
    index: int
    offset: int


@dataclass(frozen=True)
class Channels:
    """Channels before `channels` that are computed alike, `count` of sixteen at a time; exact: nothing behind them may
    be read.  ys: channels of a result."""

    channels: int
    count: int
    exact: bool
    form: Form
    ys: int

    def load(self, address: str) -> str:
        return load(address, self.count) if self.exact else f"vld1q_s8({address})"

    def results(self, places: Sequence[str]) -> list[str]:
        """Statements that store the results of pixels at these addresses; pixel m has accumulators c{m}_0 ..."""
        scales = tuple(f"s{v}" for v in range(4))
        groups = [Group(tuple(f"c{m}_{v}" for v in range(4)), scales, (m,)) for m in range(len(places))]
        return self.form.statements(groups, self.count, places)


def channel_parts(channels: int, external: bool, form: Form) -> list[Channels]:
    """Whole sixteens, then the rest."""
    tail = channels % _CHANNELS
    whole = Channels(channels - tail, _CHANNELS, False, form, channels)
    rest = Channels(channels, tail, external, form, channels)
    return [part for part, there in ((whole, whole.channels > 0), (rest, tail > 0)) if there]


def depthwise_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, symbol: str, external: bool
) -> KernelCode:
    """C of a convolution with one input and one output channel a group.

    weights: int8 [C, KH, KW, 1] in [-127, 127], so that two products with int8 add up in 16 bits; bias, mult: [C].
    external: nothing behind the end of x may be read."""
    x, y, channels = shape.x, shape.y, shape.y.channels
    (kh, kw), (sh, sw) = shape.kernel, shape.strides
    taps = [_Tap(index, offset) for index, offset in enumerate(tap_offsets(shape))]
    width = -(-channels // _CHANNELS) * _CHANNELS
    flat = padded(weights.reshape(channels, kh * kw), width)
    packed = flat.reshape(-1, _CHANNELS, kh * kw).transpose(0, 2, 1)  # [blocks, taps, 16]
    lines = y.batch * y.height
    parts = split(lines, shape.macs / max(1, lines) / 3)
    form = ending.product_form(weights, bias, mult, x_zp)
    text = render(
        "depthwise.c.j2", symbol=symbol, ctype=form.ctype, taps=taps,
        pairs=[taps[i : i + 2] for i in range(0, len(taps), 2)], xs=sw * channels, ys=channels, columns=y.width,
        channels=channel_parts(channels, external, form), places=["to", f"to + {channels}"], parts=parts,
        per_image=y.height, x_image=x.image_stride, x_row=sh * x.row_stride, y_image=y.image_stride,
        y_row=y.row_stride, shared=form.shared(), values=ending.values(form, 0), table=form.table,
    )  # fmt: skip
    constants: list[np.ndarray] = [
        np.ascontiguousarray(packed), padded(stored_bias(weights, bias, x_zp), width),
        padded(mult.astype(np.float32), width),
    ]  # fmt: skip
    if ending.table is not None:
        constants.append(np.array(ending.table, np.uint8))
    return KernelCode((types_helper(),), text, parts.count, tuple(constants), "neon depthwise 2x16")
