"""Convolutions and matrix products as implicit GEMM over runs of bytes: no im2col, no bounds checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from qcomp.codegen.c.arm.ending import Ending, Form, types_helper
from qcomp.codegen.c.arm.lanes import load
from qcomp.codegen.c.arm.products import LANES, Products
from qcomp.codegen.c.arm.render import render
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.vector.lines import Lines, flat_lines, is_flat, row_lines
from qcomp.codegen.c.vector.packing import as_bytes, padded, stored_bias
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32, Residual

_LONGEST_LINE = 64
_SHORT_LINE = 12


@dataclass(frozen=True)
class _Step:
    name: str
    pixel: int
    repeats: int


@dataclass(frozen=True)
class _Tile:
    x: int
    y: int
    weights: int
    mult: int
    steps: tuple[_Step, ...]


@dataclass(frozen=True)
class Tile:
    """A micro-kernel of `pixels` times `channels`.

    whole: runs have as many taps as are loaded at once, or more; rest: taps that are left of a run then, where nothing
    behind them may be read (exact), or as many as instructions take."""

    products: Products
    pixels: int
    channels: int
    whole: bool
    rest: int
    exact: bool
    ending: Form

    @property
    def vectors(self) -> int:
        return -(-self.channels // LANES)

    @property
    def name(self) -> str:
        taps = ("w" if self.whole else "") + (str(self.rest) if self.rest else "") + ("e" if self.exact else "")
        return f"qc_neon_{self.products.name}_{self.pixels}x{self.channels}_{taps}_{self.ending.suffix}"

    def rest_of(self, address: str) -> str:
        """The rest of a run, as int8x16_t."""
        return load(address, self.rest) if self.exact else f"vld1q_s8({address})"


@cache
def tile_helper(tile: Tile) -> CFunction:
    rows, groups = range(tile.pixels), tile.products.groups(tile.pixels, tile.vectors)
    columns = list(zip(*(group.accumulators for group in groups), strict=True))
    text = render(
        "tile.c.j2", tile=tile, rows=rows, columns=columns,
        scales=groups[0].scales, shared=tile.ending.shared(), ctype=tile.ending.ctype,
        results=tile.ending.statements(groups, tile.channels, *([f"{p} + {m} * ys" for m in rows] for p in "yr")),
        steps=range(-(-tile.rest // tile.products.unit)),
    )  # fmt: skip
    return CFunction(tile.name, text)


def widths(products: Products, channels: int) -> list[int]:
    """Vectors of the tiles that cover the channels: as equal as can be."""
    vectors = -(-channels // LANES)
    count = -(-vectors // len(products.heights))
    size, more = divmod(vectors, count)
    return [size + 1] * more + [size] * (count - more)


def line_length(shape: ConvShape) -> int:
    """Pixels that follow each other, where buffers have no halo."""
    return _lines(shape, None).length


def _lines(shape: ConvShape, residual: Residual | None) -> Lines:
    if not is_flat(shape, residual):
        return row_lines(shape)
    pixels = shape.y.pixels
    fitting = [d for d in range(1, min(pixels, _LONGEST_LINE) + 1) if pixels % d == 0]
    length = fitting[-1] if fitting[-1] >= min(pixels, _SHORT_LINE) else pixels
    return flat_lines(shape, length, pixels // length)


def conv_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, products: Products,
    symbol: str, external: bool,
) -> KernelCode:  # fmt: skip
    """C of a convolution (any groups, strides, dilations).

    weights: int8 [O, KH, KW, C/groups]; bias, mult: [O].  external: nothing behind the end of x may be read.  Raises
    QcompError where bias - zp * sum(w) leaves int32."""
    layout, residual = runs_of(shape), ending.residual
    lines, folded = _lines(shape, residual), stored_bias(weights, bias, x_zp)
    form = ending.product_form(weights, bias, mult, x_zp)
    xs, ys = shape.x_step, shape.y.channels
    exact = external and layout.length % products.loaded > 0
    taken = layout.length + (0 if exact else -layout.length % products.unit)
    whole, rest = taken // products.loaded * products.loaded, taken % products.loaded
    helpers: dict[str, CFunction] = {"": types_helper()}
    tiles: list[_Tile] = []
    packed: list[np.ndarray] = []
    mults: list[np.ndarray] = []
    for block, dense in enumerate(layout.weights(weights, shape.groups)):
        flat = dense.reshape(*dense.shape[:2], -1)[:, :, : layout.length]
        taps = np.pad(flat, ((0, 0), (0, 0), (0, -layout.length % products.unit)))
        start = 0
        for nv in widths(products, layout.outputs):
            stop = min(start + LANES * nv, layout.outputs)
            own = slice(block * layout.outputs + start, block * layout.outputs + stop)
            steps, pixel = [], 0
            for rows, repeats in products.covered(lines.length, nv):
                helper = tile_helper(Tile(products, rows, stop - start, whole > 0, rest, exact, form))
                helpers[helper.name] = helper
                steps.append(_Step(helper.name, pixel, repeats))
                pixel += rows * repeats
            at = sum(part.size for part in packed)
            tiles.append(_Tile(block * layout.inputs, own.start, at, sum(m.size for m in mults), tuple(steps)))
            width = LANES * nv
            packed += [
                as_bytes(products.lanes(padded(folded[own], width))),
                as_bytes(products.weights(padded(taps[start:stop], width))),
            ]
            mults.append(products.lanes(padded(mult[own].astype(np.float32), width)))
            start = stop
    slots = {"y": 1 + (residual is not None)}
    slots |= {"w": slots["y"] + 1, "m": slots["y"] + 2, "table": slots["y"] + 3}
    work = shape.macs / max(1, lines.count) / 8
    parts = split(lines.count, work)
    text = render(
        "conv.c.j2", symbol=symbol, runs=layout.offsets, ctype=form.ctype, slots=slots,
        shared=ending.values(form, whole), table=ending.table is not None,
        residual=None if residual is None else residual.plane, parts=parts, per_image=lines.per_image,
        x_image=lines.x_image, x_row=lines.x_row, y_image=lines.y_image, y_row=lines.y_row, tiles=tiles, xs=xs, ys=ys,
        r_row=lines.residual_row(residual),
    )  # fmt: skip
    constants = [np.concatenate(packed), np.concatenate(mults)]
    if ending.table is not None:
        constants.append(np.array(ending.table, np.uint8))
    top = widths(products, layout.outputs)[0]
    kernel = f"{products.name} {layout.kind} {products.covered(lines.length, top)[0][0]}x{LANES * top}"
    return KernelCode(tuple(helpers.values()), text, parts.count, tuple(constants), kernel)
