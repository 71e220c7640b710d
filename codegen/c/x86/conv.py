"""Convolutions and matrix products as implicit GEMM over runs of bytes: no im2col, no bounds checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.lines import Lines, flat_lines, is_flat, row_lines
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32, Requantization, Residual, UInt8
from qcomp.codegen.c.x86.arithmetic import arithmetic_of
from qcomp.codegen.c.x86.epilogue import Epilogue, epilogue_text
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.packing import by_column, pack_multipliers, pack_tile, tail_lanes
from qcomp.codegen.c.x86.render import merge_helpers, render
from qcomp.codegen.c.x86.schedule import BY_MODEL, Schedule, chosen_covers, chosen_length, chosen_widths
from qcomp.codegen.c.x86.tiling import cover_line, partition, split_channels

# Weights of this size are not expected in the second level cache when a layer starts. Of a single pixel they are one
# stream, which the processor's own prefetcher follows better.
PREFETCH_BYTES = 128 * 1024


def tile_helper(mr: int, nv: int, epilogue: Epilogue, shared: int = 1) -> tuple[CFunction, ...]:
    """The micro-kernel of mr pixels x nv vectors of channels, with what it needs.

    shared: kernel columns that take each loaded pixel, of a convolution with horizontal stride 1."""
    isa = epilogue.isa
    kind = "gemm" if shared == 1 else f"conv{shared}"
    name = f"qc_x86_{kind}_{mr}x{nv}_{epilogue.suffix}{isa.variant}"
    size = "step" if epilogue.masked else str(isa.bytes * nv)
    text = render(
        "tile.c.j2",
        name=name,
        mr=mr,
        nv=nv,
        pointers=range(3, mr + shared - 1, 3),
        products=tile_products(mr, nv, epilogue, shared, size),
        advance=size if shared == 1 else f"{shared} * {size}",
        ctype=epilogue.ctype,
        epilogue=epilogue_text(mr, nv, epilogue, "scale" if epilogue.short else "(const float*)mult"),
        tiles_note="Products of runs of bytes with packed weights",
        **epilogue.template_values,
    )
    return (*epilogue.helpers, CFunction(name, text))


def tile_products(mr: int, nv: int, epilogue: Epilogue, shared: int, size: str) -> list[str]:
    """Statements of one step along the channels: weights of each kernel column, then pixel after pixel."""
    isa = epilogue.isa
    lines: list[str] = []
    for column in range(shared):
        for v in range(nv):
            at = f" + {column} * {size}" * (column > 0)
            at += (f" + at{v}" if epilogue.masked else f" + {isa.bytes * v}") * (v > 0)
            lines += isa.dot.weights(nv * column + v, f"wp{at}")
    for line in range(0, shared * nv * isa.bytes, 64):
        lines.append(f"_mm_prefetch((const char*)(wp + ahead + {line}), _MM_HINT_T1);")
    for pixel in range(mr + shared - 1):
        lines += isa.dot.pixel(pixel, f"a{pixel - pixel % 3} + {pixel % 3} * xs + 4 * k")
        for column in range(max(0, pixel - mr + 1), min(shared, pixel + 1)):
            for v in range(nv):
                c = f"c{pixel - column}_{v}"
                lines.append(f"{c} = {isa.dot.product(c, pixel, nv * column + v)};")
    return lines


def lines_of(
    isa: Isa, shape: ConvShape, runs: int, dwords: int, channels: int, residual: Residual | None, schedule: Schedule
) -> Lines:
    if is_flat(shape, residual):
        pixels = shape.y.pixels
        return flat_lines(shape, chosen_length(schedule, isa, pixels, channels, runs, dwords), pixels)
    if schedule.line is not None:
        raise schedule.reject("its lines are the rows of an image")
    return row_lines(shape)


@dataclass(frozen=True)
class _Tile:
    weights: int
    x: int
    y: int


@dataclass(frozen=True)
class _Step:
    name: str
    x: str
    y: str
    repeats: int


@dataclass(frozen=True)
class _Places:
    """C expressions of where tile t has its input, weights, multipliers and output."""

    x: str
    w: str
    mult: str
    y: str

    @property
    def from_table(self) -> bool:
        return any(place.startswith("tiles") for place in (self.x, self.w, self.y))


def _linear(values: list[int], first: int) -> str | None:
    """C expression in t of values[t - first], where they are equally far apart."""
    step = values[1] - values[0] if len(values) > 1 else 0
    if values != [values[0] + i * step for i in range(len(values))]:
        return None
    return f"({values[0] - first * step} + t * {step})" if step else str(values[0])


def _places(band: list[_Tile], first: int, mult_at: int, mult_bytes: int) -> _Places:
    columns = ("x", [t.x for t in band]), ("w", [t.weights for t in band]), ("y", [t.y for t in band])
    found = {name: _linear(values, first) or f"tiles[t].{name}" for name, values in columns}
    return _Places(mult=f"({mult_at - first * mult_bytes} + t * {mult_bytes})", **found)


@dataclass(frozen=True)
class _Band:
    first: int
    last: int
    stride: int
    at: _Places
    steps: tuple[_Step, ...]


def _advance(amount: int) -> str:
    return f" + {amount}" if amount else ""


def conv_cycles(shape: ConvShape, isa: Isa, residual: Residual | None = None) -> float:
    """Clock cycles that `conv_code` expects of its products and epilogues."""
    layout = runs_of(shape)
    depth = len(layout.offsets), layout.dwords
    lines = lines_of(isa, shape, *depth, layout.outputs, residual, BY_MODEL)
    widths = split_channels(isa, layout.outputs, lines.length, *depth)
    shared = shared_columns(isa, shape, widths, layout.per_tap)
    line = sum(cover_line(isa.dot, lines.length, nv, *depth, shared).cycles for nv in widths)
    return layout.blocks * lines.count * line


def conv_code(
    shape: ConvShape,
    weights: Int8,
    bias: Int32,
    mult: Float32,
    requantization: Requantization,
    isa: Isa,
    symbol: str,
    schedule: Schedule = BY_MODEL,
) -> KernelCode:
    """C of a convolution (any groups, strides, dilations) for the instruction set `isa`.

    weights: int8 [O, KH, KW, C/groups]; bias, mult: [O].  Where isa's products take int16, the channels of shape.x
    count bytes. Raises QcompError where bias - zp*sum(w) leaves int32, and
    for a schedule that does not fit."""
    layout = runs_of(shape)
    outputs, inputs, runs, dwords = layout.outputs, layout.inputs, layout.offsets, layout.dwords
    if schedule.tiles is not None:
        raise schedule.reject("a vector kernel has no tile registers")
    residual, packs = requantization.residual, requantization.packs
    packable = layout.weights(isa.dot.as_bytes(weights), shape.groups)
    isa = isa.for_weights(np.concatenate(packable))
    lines = lines_of(isa, shape, len(runs), dwords, outputs, residual, schedule)
    widths = chosen_widths(schedule, isa, outputs, lines.length, len(runs), dwords)
    shared = shared_columns(isa, shape, widths, layout.per_tap)
    covers = chosen_covers(schedule, isa, widths, lines.length, len(runs), dwords, shared)
    if shared > 1:
        packable = [by_column(block, shared) for block in packable]
    arithmetic = arithmetic_of(weights, bias, mult, requantization, isa)
    folded, multipliers = arithmetic.bias, arithmetic.multipliers
    joined = packs and layout.blocks == 1 and widths == (1,) and outputs == isa.lanes
    epilogue = replace(arithmetic.epilogue, joined=joined)

    packed: list[UInt8] = []
    sizes: dict[_Tile, int] = {}
    mults: dict[_Tile, UInt8] = {}
    tiles: dict[tuple[int, bool], list[_Tile]] = {}
    for block, w in enumerate(packable):
        start = 0
        for nv in widths:
            stop = min(start + isa.lanes * nv, outputs)
            own = slice(block * outputs + start, block * outputs + stop)
            tile = _Tile(sum(p.size for p in packed), block * inputs, block * outputs + start)
            packed.append(pack_tile(isa, w[start:stop], folded[own], nv, interleaved=packs))
            sizes[tile] = packed[-1].size
            mults[tile] = pack_multipliers(isa, multipliers.values[own], nv, interleaved=packs)
            tiles.setdefault((nv, stop - start < isa.lanes * nv), []).append(tile)
            start = stop

    helpers: tuple[CFunction, ...] = epilogue.helpers
    bands: list[_Band] = []
    cycles = 0.0
    total = sum(p.size for p in packed)
    prefetch = total >= PREFETCH_BYTES and lines.count * lines.length > 1
    if schedule.prefetch is not None:
        prefetch = schedule.prefetch
    for (nv, masked), band in tiles.items():
        line = covers[nv]
        steps, pixel = [], 0
        for rows, repeats in line.steps:
            needed = tile_helper(rows, nv, replace(epilogue, masked=masked), shared)
            helpers = merge_helpers(helpers, needed)
            steps.append(
                _Step(needed[-1].name, _advance(pixel * shape.x_step), _advance(pixel * shape.y.channels), repeats)
            )
            pixel += rows * repeats
        first = bands[-1].last if bands else 0
        at = _places(band, first, sum(p.size for p in packed), mults[band[0]].size)
        packed += [mults[tile] for tile in band]
        bands.append(_Band(first, first + len(band), sizes[band[0]], at, tuple(steps)))
        cycles += lines.count * len(band) * line.cycles

    count = bands[-1].last
    blob = np.concatenate(packed)
    line_bytes = lines.x_row + lines.y_row * requantization.result_bytes
    grid = partition(lines.count, count, cycles, blob.size, line_bytes, schedule.order)
    tail = outputs - isa.lanes * (sum(widths) - widths[-1])
    lanes_at = accumulate((16 * lanes for lanes in tail_lanes(isa, tail, widths[-1], packs)), initial=0)
    text = render(
        "conv.c.j2",
        symbol=symbol,
        ctype=epilogue.ctype,
        runs=runs,
        tiles=[tile for band in tiles.values() for tile in band] if any(b.at.from_table for b in bands) else (),
        count=count,
        bands=bands,
        prefetch=prefetch,
        table=epilogue.table,
        lines=lines.count,
        lines_per_image=lines.per_image,
        lines_per_block=-(-lines.count // grid.line_blocks),
        line_blocks=grid.line_blocks,
        tiles_per_block=-(-count // grid.tile_blocks),
        lines_per_pass=grid.lines_per_pass,
        x_image=lines.x_image,
        x_row=lines.x_row,
        y_image=lines.y_image,
        y_row=lines.y_row,
        xs=shape.x_step,
        ys=shape.y.channels,
        dwords=dwords // shared,
        tail=isa.tail(tail),
        at=list(lanes_at),
        unit=float_literal(multipliers.unit),
        residual=None if residual is None else residual.plane,
        r_row=lines.residual_row(residual),
        **residual_values(residual),
        **clamp_values(requantization),
    )
    constants = (blob,) if requantization.table is None or not packs else (blob, isa.packed_table(requantization.table))
    rows_used = "+".join(str(rows) for rows, _ in covers[widths[0]].steps)
    kernel = f"{isa.dot.name} {'gemm' if len(runs) == 1 else 'conv'} {rows_used}x{isa.lanes * widths[0]}"
    return KernelCode(helpers, text, grid.line_blocks * grid.tile_blocks, constants, kernel, whole=True)


def shared_columns(isa: Isa, shape: ConvShape, widths: tuple[int, ...], per_tap: bool) -> int:
    """Kernel columns that share loaded pixels: those of layers that have few channels, and so few products a load."""
    apart = per_tap or shape.strides[1] != 1 or shape.x.channels % 4 or widths != (1,)
    return 1 if apart or shape.kernel[1] not in isa.dot.shares else shape.kernel[1]


def residual_values(residual: Residual | None) -> dict[str, object]:
    """Its arithmetic (see QC_X86_WIDEN) and, as it comes after the input, which pointers the others are."""
    slots = {name: i + (residual is not None) for i, name in enumerate(("y", "w", "table"), 1)}
    if residual is None:
        return {"slots": slots, "r_offset": 0, "r_mult": 0}
    offset, mult = float_literal(2.0**23 + residual.zp), float_literal(residual.mult)
    return {"slots": slots, "r_offset": offset, "r_mult": mult}


def clamp_values(requantization: Requantization) -> dict[str, object]:
    """Bounds for the templates: before (lo, hi) and after (lo8, hi8) the zero point is added."""
    zp, lo, hi = requantization.zp, requantization.lo, requantization.hi
    return {"lo": float_literal(lo - zp), "hi": float_literal(hi - zp), "zp": zp, "lo8": lo, "hi8": hi}
