"""max_pool and qavg_pool of int8: windows read the halo, sixteen channels a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.arm.ending import Ending, Group, types_helper
from qcomp.codegen.c.arm.lanes import load, stores
from qcomp.codegen.c.arm.render import render
from qcomp.codegen.c.kernel import KernelCode
from qcomp.codegen.c.portable.tasks import Split, split
from qcomp.codegen.c.vector.shapes import ConvShape, Float32

_CHANNELS = 16
#: Bytes whose sum fits into int16.
MOST_SUMMED = 255


@dataclass(frozen=True)
class _Window:
    """Where a window's taps are, from the first of a line's first one."""

    lines: int
    per_image: int
    columns: int
    channels: int
    x_image: int
    x_row: int
    y_image: int
    y_row: int
    origin: int
    row: int
    column: int
    step: int
    rows: int
    taps: int
    parts: Split


def _window(shape: ConvShape) -> _Window:
    x, y, (kh, kw) = shape.x, shape.y, shape.kernel
    lines = y.batch * y.height
    return _Window(
        lines, y.height, y.width, x.channels, x.image_stride, shape.strides[0] * x.row_stride, y.image_stride,
        y.row_stride, shape.pads[0] * x.row_stride + shape.pads[1] * x.channels, shape.dilations[0] * x.row_stride,
        shape.dilations[1] * x.channels, shape.strides[1] * x.channels, kh, kw,
        split(lines, y.width * x.channels * kh * kw / 8),
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """Sixteen channels from first, first + 16, ... before `last` on, or `count` of them; exact: nothing behind may
    be read."""

    first: int
    last: int
    count: int
    exact: bool

    def load(self, address: str) -> str:
        return load(address, self.count) if self.exact else f"vld1q_s8({address})"


def _parts(channels: int, external: bool) -> list[_Part]:
    """The last sixteen channels overlap those before them; fewer are one part of their own."""
    if channels < _CHANNELS:
        return [_Part(0, 1, channels, external)]
    whole = channels // _CHANNELS * _CHANNELS
    parts = [_Part(0, whole, _CHANNELS, False)]
    if whole < channels:
        parts.append(_Part(channels - _CHANNELS, channels - _CHANNELS + 1, _CHANNELS, False))
    return parts


def max_pool_code(shape: ConvShape, symbol: str, external: bool) -> KernelCode:
    """C of max_pool; the halo of x holds -128, so that padding never wins.  external: nothing behind the end of x may
    be read."""
    window = _window(shape)
    parts = [(part, stores("o", "best", part.count)) for part in _parts(window.channels, external)]
    text = render("max_pool.c.j2", symbol=symbol, window=window, parts=parts)
    return KernelCode((types_helper(),), text, window.parts.count, (), "neon max_pool")


def average_pool_code(
    shape: ConvShape, mult: Float32, x_zp: int, ending: Ending, symbol: str, external: bool
) -> KernelCode:
    """C of qavg_pool; mult: float32 [OH, OW], one multiplier for each output position.

    The halo of x holds the zero point, so that padding adds nothing.  A kernel row has MOST_SUMMED taps at most."""
    window, area = _window(shape), shape.kernel[0] * shape.kernel[1]
    varies = bool(np.any(mult != mult.flat[0]))
    form = ending.form(256.0 * area * float(np.abs(mult).max()))
    group = Group(tuple(f"c{v}" for v in range(4)), ("scale",) * 4, (0,))
    parts = [(part, form.statements([group], part.count, ["o"])) for part in _parts(window.channels, external)]
    text = render(
        "average_pool.c.j2", symbol=symbol, window=window, parts=parts, start=-x_zp * area, varies=varies,
        values=ending.values(form, 0), shared=form.shared(), joined=area <= MOST_SUMMED,
    )  # fmt: skip
    constants = (np.ascontiguousarray(mult if varies else mult.reshape(-1)[:1]),)
    return KernelCode((types_helper(),), text, window.parts.count, constants, "neon avg_pool")
