"""Convolutions and matrix products by AMX tiles: 16 pixels times 64 bytes of a run times 16 channels an instruction.

Tiles of pixels are loaded straight from the NHWC rows (the stride of a tile load is that between pixels), weights are
packed as tiles, bias is what the sums start from, and the epilogue is that of the vector kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.vector.packing import as_bytes, padded
from qcomp.codegen.c.vector.runs import Runs, runs_of
from qcomp.codegen.c.vector.shapes import (
    ConvShape,
    Float32,
    Int8,
    Int32,
    Plane,
    Requantization,
    Residual,
    UInt8,
)
from qcomp.codegen.c.x86.amx_tiling import ACCUMULATORS, TILE_BYTES, TILE_ROWS, AmxPlan, Depth, amx_plan
from qcomp.codegen.c.x86.arithmetic import arithmetic_of
from qcomp.codegen.c.x86.conv import PREFETCH_BYTES, clamp_values, conv_code, conv_cycles, residual_values
from qcomp.codegen.c.x86.epilogue import Epilogue, epilogue_text, pixels_together
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.packing import tile_order
from qcomp.codegen.c.x86.render import merge_helpers, plain_helper, render
from qcomp.codegen.c.x86.schedule import BY_MODEL, Schedule
from qcomp.codegen.c.x86.tiling import partition

FEATURES = frozenset({"amx_tile", "amx_int8"})
_PIXELS, _WEIGHTS = 4, 6  # the first of two tile registers each; 0 to 3 hold sums
_PALETTE = 1
_FEW_PIXELS = 2


def tiles_are_faster(shape: ConvShape, residual: Residual | None, isa: Isa) -> bool:
    """Whether a convolution shall use tiles rather than the vector products of `isa`.

    A comparison of estimates; but with so few pixels that either only waits for the weights, vectors wait as well."""
    if shape.y.batch * shape.y.height * shape.y.width <= _FEW_PIXELS:
        return False
    return amx_plan(shape, plane_of(residual)).cycles < conv_cycles(shape, isa, residual)


def plane_of(residual: Residual | None) -> Plane | None:
    return None if residual is None else residual.plane


def amx_or_vector_code(
    shape: ConvShape,
    weights: Int8,
    bias: Int32,
    mult: Float32,
    requantization: Requantization,
    isa: Isa,
    symbol: str,
    schedule: Schedule = BY_MODEL,
) -> KernelCode:
    """C of a convolution for `isa` and AMX; arguments as of `conv_code`.

    By whichever is expected to be faster, but a schedule is followed: by tiles if it has them, else by vectors."""
    if schedule == BY_MODEL:
        by_tiles = tiles_are_faster(shape, requantization.residual, isa)
    else:
        by_tiles = schedule.tiles is not None
    generate = amx_code if by_tiles else conv_code
    return generate(shape, weights, bias, mult, requantization, isa, symbol, schedule)


def tile_config(rows: int, depth: Depth) -> list[int]:
    """The 64 bytes that LDTILECFG reads: sums of `rows` x 16, pixels of `rows` x depth.bytes, weights to match."""
    sums, pixels, weights = (rows, TILE_BYTES), (rows, depth.bytes), (depth.bytes // 4, TILE_BYTES)
    shapes = [sums] * ACCUMULATORS + [pixels] * 2 + [weights] * 2
    columns = [byte for _, width in shapes for byte in (width, 0)]
    return [_PALETTE, *[0] * 15, *columns, *[0] * 16, *(height for height, _ in shapes), *[0] * 8]


def products_helper(pixels: int, vectors: int) -> CFunction:
    """The micro-kernel of `pixels` x `vectors` tiles of sums."""
    lines = []
    for m in range(pixels):
        lines.append(f"_tile_loadd({_PIXELS + m % 2}, a{m} + k * bytes, xs);")
        for v in range(vectors):
            if m == 0:
                lines.append(f"_tile_loadd({_WEIGHTS + v % 2}, w{f' + {v} * tile' if v else ''}, 64);")
            lines.append(f"_tile_dpbusd({m * vectors + v}, {_PIXELS + m % 2}, {_WEIGHTS + v % 2});")
    name = f"qc_x86_amx_{pixels}x{vectors}"
    return CFunction(name, render("amx_products.c.j2", name=name, mt=pixels, nt=vectors, lines=lines))


def rows_helper(vectors: int, epilogue: Epilogue) -> CFunction:
    """The epilogue of pixels whose sums lie in memory, `vectors` vectors of channels each."""
    name = f"qc_x86_amx_rows{vectors}_{epilogue.suffix}"
    counts = dict.fromkeys((pixels_together(vectors), 1))
    groups = [(count, epilogue_text(count, vectors, epilogue, "scale")) for count in counts]
    values = {"name": name, "nt": vectors, "ctype": epilogue.ctype, "groups": groups}
    text = render("amx_rows.c.j2", **values, **epilogue.template_values)
    return CFunction(name, text)


def pack_panel(weights: Int8, bias: Int32, mult: Float32, vectors: int, depth: Depth, interleaved: bool) -> UInt8:
    """bias | multipliers | weights [runs][chunks][vectors][bytes/4][16][4] of up to `vectors` x 16 output channels.

    weights: [o, runs, dwords, 4]; bias: stored bias [o]; mult: [o]; interleaved: channels in `tile_order`."""
    width = vectors * TILE_ROWS
    order = tile_order(vectors, TILE_ROWS) if interleaved else list(range(width))
    w, b, m = (padded(a, width)[order] for a in (weights, bias, mult))
    quads = depth.bytes // 4
    w = np.pad(w, ((0, 0), (0, 0), (0, depth.chunks * quads - w.shape[2]), (0, 0)))
    w = w.reshape(vectors, TILE_ROWS, depth.runs, depth.chunks, quads, 4).transpose(2, 3, 0, 4, 1, 5)
    return np.concatenate([as_bytes(b), as_bytes(m), as_bytes(w)])


@dataclass(frozen=True)
class _Panel:
    weights: int
    x: int
    y: int


@dataclass(frozen=True)
class _Band:
    """Panels first to last, of one width: `pixels` x `vectors` tiles a block, the C functions of products and of the
    epilogue, bytes between panels, and (tile register, element of the sums) of what a block stores."""

    first: int
    last: int
    pixels: int
    vectors: int
    products: str
    rows: str
    stride: int
    stores: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Packed:
    """Panels in the order of their bands, and their bytes."""

    panels: list[_Panel]
    bands: list[_Band]
    helpers: tuple[CFunction, ...]
    blob: UInt8


def _pack(
    layout: Runs, plan: AmxPlan, weights: list[Int8], bias: Int32, mult: Float32, epilogue: Epilogue
) -> _Packed:
    """Panels with one width, and with or without a tail, make a band."""
    starts: dict[tuple[int, int, bool], list[tuple[int, int]]] = {}
    for block in range(layout.blocks):
        start = 0
        for vectors, pixels in plan.panels:
            masked = layout.outputs - start < TILE_ROWS * vectors
            starts.setdefault((vectors, pixels, masked), []).append((block, start))
            start += TILE_ROWS * vectors
    panels: list[_Panel] = []
    packed: list[UInt8] = []
    bands: list[_Band] = []
    helpers: tuple[CFunction, ...] = epilogue.helpers
    for (vectors, pixels, masked), places in starts.items():
        products = products_helper(pixels, vectors)
        rows = rows_helper(vectors, replace(epilogue, masked=masked))
        helpers = merge_helpers(helpers, (products, rows))
        for block, start in places:
            stop = min(start + TILE_ROWS * vectors, layout.outputs)
            own = slice(block * layout.outputs + start, block * layout.outputs + stop)
            panels.append(_Panel(sum(p.size for p in packed), block * layout.inputs, own.start))
            packed.append(
                pack_panel(
                    weights[block][start:stop], bias[own], mult[own], vectors, plan.depth, epilogue.packs
                )
            )
        stores = tuple(
            (m * vectors + v, TILE_ROWS * (m * plan.tiles.rows * vectors + v))
            for m in range(pixels)
            for v in range(vectors)
        )
        first = bands[-1].last if bands else 0
        names = products.name, rows.name
        bands.append(_Band(first, first + len(places), pixels, vectors, *names, packed[-1].size, stores))
    return _Packed(panels, bands, helpers, np.concatenate(packed))


def amx_code(
    shape: ConvShape,
    weights: Int8,
    bias: Int32,
    mult: Float32,
    requantization: Requantization,
    isa: Isa,
    symbol: str,
    schedule: Schedule = BY_MODEL,
) -> KernelCode:
    """C of a convolution (any groups, strides, dilations) by AMX tiles; epilogues are those of `isa`, of 512 bits.

    weights: int8 [O, KH, KW, C/groups]; bias, mult: [O]. Raises QcompError where bias - zp*sum(w) leaves int32, and
    for a schedule that does not fit."""
    if schedule.cut:
        raise schedule.reject("tiles are cut by the cost model alone")
    residual = requantization.residual
    layout, plan = runs_of(shape), amx_plan(shape, plane_of(residual))
    tiles, depth = plan.tiles, plan.depth
    packs = requantization.packs
    arithmetic = arithmetic_of(weights, bias, mult, requantization, isa)
    joined = packs and len(plan.panels) == layout.blocks == 1 and layout.outputs in (TILE_ROWS, 2 * TILE_ROWS)
    epilogue = replace(arithmetic.epilogue, short=False, joined=joined)
    packed = _pack(layout, plan, layout.weights(weights, shape.groups), arithmetic.bias, mult, epilogue)
    panels, bands = packed.panels, packed.bands
    stride = packed.blob.size // len(panels)

    unit, units = plan.unit, -(-tiles.count // plan.unit)
    unit_bytes = unit * tiles.rows * (tiles.x_step + shape.y.channels * requantization.result_bytes)
    grid = partition(units, len(panels), plan.cycles, packed.blob.size, unit_bytes, schedule.order)
    units_per_block = -(-units // grid.line_blocks)
    prefetch = stride < PREFETCH_BYTES <= packed.blob.size if schedule.prefetch is None else schedule.prefetch
    tail = layout.outputs - TILE_ROWS * sum(vectors for vectors, _ in plan.panels[:-1])
    text = render(
        "amx_conv.c.j2",
        symbol=symbol,
        ctype=epilogue.ctype,
        runs=layout.offsets,
        panels=panels,
        bands=bands,
        config=tile_config(tiles.rows, depth),
        tiles=tiles,
        depth=depth,
        most=max(band.pixels for band in bands),
        scratch=TILE_ROWS * tiles.rows * max(len(band.stores) for band in bands),
        prefetch=prefetch,
        table=epilogue.table,
        tile_blocks=grid.line_blocks,
        tiles_per_block=unit * units_per_block,
        tiles_per_pass=unit * min(grid.lines_per_pass, units_per_block),
        panels_per_block=-(-len(panels) // grid.tile_blocks),
        ys=shape.y.channels,
        tail=isa.tail(tail),
        **residual_values(residual),
        **clamp_values(requantization),
    )
    helpers = merge_helpers(packed.helpers[:1], (plain_helper("qc_x86_amx_place", "amx_types.c.j2"),), packed.helpers)
    table = () if requantization.table is None or not packs else (isa.packed_table(requantization.table),)
    wide, high = plan.panels[0]
    kind = "gemm" if len(layout.offsets) == 1 else "conv"
    name = f"amx {kind} {high * tiles.rows}x{TILE_ROWS * wide}"
    return KernelCode(helpers, text, grid.line_blocks * grid.tile_blocks, (packed.blob, *table), name, whole=True)
