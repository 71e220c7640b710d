"""Convolutions and matrix products as implicit GEMM over runs of bytes: no im2col, no bounds checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from qcomp.codegen.c.arm.products import HEIGHTS, LANES, Products, Smmla
from qcomp.codegen.c.arm.render import render
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.x86.packing import as_bytes, padded, stored_bias
from qcomp.codegen.c.x86.runs import runs_of
from qcomp.codegen.c.x86.shapes import ConvShape, Float32, Int8, Int32, Residual

_LONGEST_LINE = 64
_SHORT_LINE = 12


@dataclass(frozen=True)
class Ending:
    """How accumulators become results of `kind`, "i8", "i16" or "f32"; `table`, i8[256] as uint8 by stored byte, and
    `residual` are for int8."""

    kind: str
    zp: int = 0
    lo: int = 0
    hi: int = 0
    table: tuple[int, ...] | None = None
    residual: Residual | None = None

    @property
    def ctype(self) -> str:
        return {"i8": "int8_t", "i16": "int16_t", "f32": "float"}[self.kind]


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


@cache
def types_helper() -> CFunction:
    return CFunction("qc_neon_rq", render("types.c.j2"))


@cache
def tile_helper(form: Products, mr: int, nv: int, ending: str, table: bool, residual: bool, masked: bool, exact: bool
                ) -> CFunction:  # fmt: skip
    """The micro-kernel of mr pixels x nv vectors of channels."""
    flags = (("t", table), ("r", residual), ("m", masked), ("e", exact))
    suffix = ending + "".join(f"_{text}" for text, given in flags if given)
    name = f"qc_neon_{form.name}_{mr}x{nv}_{suffix}"
    ctype = Ending(ending).ctype
    text = render(
        "tile.c.j2", name=name, form=form, mr=mr, nv=nv, kind=ending, ctype=ctype, table=table, residual=residual,
        masked=masked, exact=exact,
    )  # fmt: skip
    return CFunction(name, text)


def heights(form: Products, pixels: int, vectors: int) -> list[tuple[int, int]]:
    """(rows, repeats) of the tiles that cover a line: as equal as can be, of pairs of pixels for SMMLA."""
    most = HEIGHTS[vectors]
    if isinstance(form, Smmla):
        full, rest = divmod(pixels, most)
        return [(rows, repeats) for rows, repeats in ((most, full), (rest, 1)) if rows and repeats]
    count = -(-pixels // most)
    rows, more = divmod(pixels, count)
    return [(height, repeats) for height, repeats in ((rows + 1, more), (rows, count - more)) if repeats]


def widths(channels: int) -> list[int]:
    """Vectors of the tiles that cover the channels: as equal as can be."""
    vectors = -(-channels // LANES)
    count = -(-vectors // max(HEIGHTS))
    size, more = divmod(vectors, count)
    return [size + 1] * more + [size] * (count - more)


@dataclass(frozen=True)
class _Lines:
    count: int
    length: int
    per_image: int
    x_image: int
    x_row: int
    y_image: int
    y_row: int
    flat: bool


def _lines(shape: ConvShape, residual: Residual | None) -> _Lines:
    x, y, (sh, _) = shape.x, shape.y, shape.strides
    pointwise = shape.kernel == (1, 1) and shape.strides == (1, 1) and not any(shape.pads)
    if pointwise and x.dense and y.dense and (residual is None or residual.plane.dense):
        pixels = y.batch * y.height * y.width
        fitting = [d for d in range(1, min(pixels, _LONGEST_LINE) + 1) if pixels % d == 0]
        length = fitting[-1] if fitting[-1] >= min(pixels, _SHORT_LINE) else pixels
        count = pixels // length
        return _Lines(count, length, count, 0, length * x.channels, 0, length * y.channels, True)
    count = y.batch * y.height
    return _Lines(
        count, y.width, y.height, x.image_stride, sh * x.row_stride, y.image_stride, y.row_stride, False
    )


def conv_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, form: Products,
    symbol: str, exact: bool,
) -> KernelCode:  # fmt: skip
    """C of a convolution (any groups, strides, dilations).

    weights: int8 [O, KH, KW, C/groups]; bias, mult: [O].  exact: nothing behind the end of x may be read.  Raises
    QcompError where bias - zp * sum(w) leaves int32."""
    layout, residual = runs_of(shape), ending.residual
    lines, folded = _lines(shape, residual), stored_bias(weights, bias, x_zp)
    xs, ys = shape.strides[1] * shape.x.channels, shape.y.channels
    exact = exact and layout.length % form.unit != 0
    helpers: dict[str, CFunction] = {"": types_helper()}
    tiles: list[_Tile] = []
    packed: list[np.ndarray] = []
    mults: list[np.ndarray] = []
    tail = 0
    for block, dense in enumerate(layout.weights(weights, shape.groups)):
        flat = dense.reshape(*dense.shape[:2], -1)
        taps = np.pad(flat, ((0, 0), (0, 0), (0, -flat.shape[2] % form.unit)))
        start = 0
        for nv in widths(layout.outputs):
            stop = min(start + LANES * nv, layout.outputs)
            masked = stop - start < LANES * nv
            tail = stop - start if masked else tail
            own = slice(block * layout.outputs + start, block * layout.outputs + stop)
            steps, pixel = [], 0
            for rows, repeats in heights(form, lines.length, nv):
                flags = ending.table is not None, residual is not None, masked, exact
                helper = tile_helper(form, rows, nv, ending.kind, *flags)
                helpers[helper.name] = helper
                steps.append(_Step(helper.name, pixel, repeats))
                pixel += rows * repeats
            at = sum(part.size for part in packed)
            tiles.append(_Tile(block * layout.inputs, own.start, at, sum(m.size for m in mults), tuple(steps)))
            width = LANES * nv
            packed += [
                as_bytes(form.bias(padded(folded[own], width))),
                as_bytes(form.weights(padded(taps[start:stop], width))),
            ]
            mults.append(padded(mult[own].astype(np.float32), width))
            start = stop
    slots = {"y": 1 + (residual is not None)}
    slots |= {"w": slots["y"] + 1, "m": slots["y"] + 2, "table": slots["y"] + 3}
    work = shape.macs / max(1, lines.count) / 8
    parts = split(lines.count, work)
    text = render(
        "conv.c.j2", symbol=symbol, runs=layout.offsets, bytes=layout.length, ctype=ending.ctype, slots=slots,
        zp=ending.zp, lo=ending.lo, hi=ending.hi, tail=tail, table=ending.table is not None,
        residual=None if residual is None else residual.plane, r_zp=0 if residual is None else residual.zp,
        r_mult=float_literal(0.0 if residual is None else residual.mult), parts=parts, per_image=lines.per_image,
        x_image=lines.x_image, x_row=lines.x_row, y_image=lines.y_image, y_row=lines.y_row, tiles=tiles, xs=xs, ys=ys,
        r_row=0 if residual is None else lines.y_row if lines.flat else residual.plane.row_stride,
    )  # fmt: skip
    constants = [np.concatenate(packed), np.concatenate(mults)]
    if ending.table is not None:
        constants.append(np.array(ending.table, np.uint8))
    kind = "gemm" if len(layout.offsets) == 1 else "conv"
    top = widths(layout.outputs)[0]
    kernel = f"{form.name} {kind} {heights(form, lines.length, top)[0][0]}x{LANES * top}"
    return KernelCode(tuple(helpers.values()), text, parts.count, tuple(constants), kernel)
