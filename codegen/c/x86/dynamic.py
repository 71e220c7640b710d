"""Products of rows that were quantized at run time: the tiles of implicit GEMM, which start and end in another way.

An accumulator starts from minus the row's zero point times the sum of the weights, so that products of stored bytes add
up to the true sum; it ends as float32(acc)·(scale of the row·scale of the channel), then the bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.vector.packing import as_bytes, padded
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, UInt8
from qcomp.codegen.c.x86.conv import PREFETCH_BYTES, lines_of, tile_products
from qcomp.codegen.c.x86.epilogue import Epilogue
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.packing import pack_tile, tail_lanes
from qcomp.codegen.c.x86.render import merge_helpers, render
from qcomp.codegen.c.x86.schedule import BY_MODEL
from qcomp.codegen.c.x86.tiling import cover_line, partition, split_channels


@dataclass(frozen=True)
class _Band:
    """Channel tiles of one width: the first, how many, where their weights, scales and outputs start and step."""

    first: int
    count: int
    weights: int
    weights_step: int
    scales: int
    scales_step: int
    channel: int
    channel_step: int
    steps: tuple[tuple[str, int, int], ...]
    """Functions with the pixel that they start from and how often they repeat."""


def dynamic_tile(mr: int, nv: int, bias: bool, epilogue: Epilogue) -> tuple[CFunction, ...]:
    """The micro-kernel of mr rows x nv vectors of channels, with what it needs."""
    isa = epilogue.isa
    masked = "_m" if epilogue.masked else ""
    name = f"qc_x86_dynamic_{mr}x{nv}{'_b' if bias else ''}{masked}{isa.variant}"
    size = "step" if epilogue.masked else str(isa.bytes * nv)
    text = render(
        "dynamic_tile.c.j2", name=name, mr=mr, nv=nv, pointers=range(3, mr, 3), bias=bias, advance=size,
        products=tile_products(mr, nv, epilogue, 1, size), V=isa, masked=epilogue.masked,
    )  # fmt: skip
    return (*epilogue.helpers, CFunction(name, text))


def dynamic_gemm_code(
    shape: ConvShape, weights: Int8, scales: Float32, bias: Float32 | None, per_row: bool, isa: Isa, symbol: str
) -> KernelCode:
    """C of dynamic_qgemm on stored u8, without zero points of the weights.

    shape: rows as pixels of a pointwise convolution; weights: int8 [O, K]; scales, bias: [O]; per_row: each row has a
    scale and zero point of its own."""
    layout = runs_of(shape)
    outputs, dwords = layout.outputs, layout.dwords
    (packable,) = layout.weights(weights[:, None, None, :], 1)
    isa = isa.for_weights(packable)
    lines = lines_of(isa, shape, 1, dwords, outputs, None, BY_MODEL)
    widths = split_channels(isa, outputs, lines.length, 1, dwords)
    starts = (-weights.astype(np.int64).sum(axis=1)).astype(np.int32)
    packed: list[UInt8] = []
    ends: list[UInt8] = []
    helpers: tuple[CFunction, ...] = ()
    bands: list[_Band] = []
    cycles, start = 0.0, 0
    for index, nv in enumerate(widths):
        stop = min(start + isa.lanes * nv, outputs)
        line = cover_line(isa.dot, lines.length, nv, 1, dwords)
        epilogue = Epilogue(isa, "f32", masked=stop - start < isa.lanes * nv)
        steps, pixel = [], 0
        for rows, repeats in line.steps:
            needed = dynamic_tile(rows, nv, bias is not None, epilogue)
            helpers = merge_helpers(helpers, needed)
            steps.append((needed[-1].name, pixel, repeats))
            pixel += rows * repeats
        at = sum(p.size for p in packed), sum(p.size for p in ends)
        own, width = slice(start, stop), isa.lanes * nv
        packed.append(pack_tile(isa, packable[own], starts[own], nv, interleaved=False))
        floats = [scales[own]] if bias is None else [scales[own], bias[own]]
        ends.append(as_bytes(np.concatenate([padded(f.astype(np.float32), width) for f in floats])))
        last = bands[-1] if bands else None
        if last is not None and last.steps == tuple(steps):
            bands[-1] = replace(last, count=last.count + 1)
        else:
            bands.append(_Band(index, 1, at[0], packed[-1].size, at[1], ends[-1].size, start, width, tuple(steps)))
        cycles += lines.count * line.cycles
        start = stop
    blob = np.concatenate(packed)
    grid = partition(lines.count, len(widths), cycles, blob.size, lines.x_row + lines.y_row * 4)
    tail = outputs - isa.lanes * (sum(widths) - widths[-1])
    lanes_at = accumulate((16 * lanes for lanes in tail_lanes(isa, tail, widths[-1], False)), initial=0)
    text = render(
        "dynamic_gemm.c.j2",
        symbol=symbol, bands=bands, count=len(widths), lines=lines, grid=grid, xs=shape.x_step, ys=shape.y.channels,
        lines_per_block=-(-lines.count // grid.line_blocks), tiles_per_block=-(-len(widths) // grid.tile_blocks),
        dwords=dwords, tail=isa.tail(tail), at=list(lanes_at), step=int(per_row),
        prefetch=blob.size >= PREFETCH_BYTES and lines.count * lines.length > 1,
    )  # fmt: skip
    rows_used = "+".join(str(rows) for rows, _ in cover_line(isa.dot, lines.length, widths[0], 1, dwords).steps)
    kernel = f"{isa.dot.name} dynamic gemm {rows_used}x{isa.lanes * widths[0]}"
    return KernelCode(
        helpers, text, grid.line_blocks * grid.tile_blocks, (blob, np.concatenate(ends)), kernel, whole=True
    )
