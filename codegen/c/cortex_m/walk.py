"""How all Cortex-M kernels of products go over a result: lines of pixels, blocks of groups, tiles of a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.vector.lines import Lines, flat_lines, is_flat, row_lines
from qcomp.codegen.c.vector.shapes import ConvShape, Plane, Residual


@dataclass(frozen=True)
class Tile:
    """`repeats` tiles of `pixels` neighbours, behind those of the tiles before it in a line."""

    pixels: int
    repeats: int


@dataclass(frozen=True)
class Packed:
    """A constant as C sees it: `array` of `ctype`, of which each block of groups has `each` elements."""

    ctype: str
    name: str
    array: np.ndarray
    each: int = 0


@dataclass(frozen=True)
class Groups:
    """`blocks` of groups, of `inputs` channels to `outputs` ones each."""

    blocks: int
    inputs: int
    outputs: int


def pairs(length: int) -> list[Tile]:
    """Tiles of two pixels, and of one for what is left, that cover a line."""
    two, one = divmod(length, 2)
    return [tile for tile in (Tile(2, two), Tile(1, one)) if tile.repeats]


def line_length(shape: ConvShape, residual: Residual | None) -> int:
    """Pixels that a line has."""
    return _lines_of(shape, residual).length


def _lines_of(shape: ConvShape, residual: Residual | None) -> Lines:
    """All pixels as one line where nothing lies between rows, else the rows of the result."""
    return flat_lines(shape, shape.y.pixels, 1) if is_flat(shape, residual) else row_lines(shape)


def flattened(shape: ConvShape) -> ConvShape:
    """A flat convolution whose pixels are one line."""
    x, y = (Plane(1, 1, shape.y.pixels, side.channels) for side in (shape.x, shape.y))
    return ConvShape(x, y)


def walked(
    symbol: str, tile_text: str, shape: ConvShape, ending: Ending, tiles: Sequence[Tile], constants: Sequence[Packed],
    rate: float, kernel: str, helpers: Sequence[CFunction], groups: Groups | None = None,
) -> KernelCode:  # fmt: skip
    """C of a node whose tiles are computed by the functions SYMBOL_pixels of `tile_text`:

        void SYMBOL_pixels(const int8_t* x, the constants, T* y[, const int8_t* residual][, const uint8_t* table])

    rate: multiply-accumulates that take as long as an element operation elsewhere."""
    lines, groups = _lines_of(shape, ending.residual), groups or Groups(1, shape.x.channels, shape.y.channels)
    parts = split(lines.count, shape.macs / max(1, lines.count) / rate)
    text = render(
        "walk.c.j2", symbol=symbol, ending=ending, constants=constants, lines=lines, tiles=tiles, groups=groups,
        parts=parts, xs=shape.x_step, ys=shape.y.channels, r_row=lines.residual_row(ending.residual),
        first=1 + (ending.residual is not None),
    )  # fmt: skip
    arrays = [constant.array for constant in constants]
    if ending.table is not None:
        arrays.append(np.array(ending.table, np.uint8))
    return KernelCode(tuple(helpers), tile_text + text, parts.count, tuple(arrays), kernel)
