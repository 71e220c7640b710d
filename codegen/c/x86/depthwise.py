"""Depthwise convolution: 64 bytes a step, interleaved so that one vpdpbusd takes up to four taps.

Two rounds of byte and word unpacking put up to four kernel rows of a channel in one dword; a column so
interleaved serves every output that it touches, whose accumulators are named and rotate. A single row that is
left (the fifth of five) gives a dword of four pixels of its own instead. The unpacking orders channels as the
packing of results undoes it. Fewer than 64 channels: the vector's lanes walk 2 or 4 segments
of the row at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.x86.conv import clamp_values
from qcomp.codegen.c.x86.epilogue import Epilogue, Group
from qcomp.codegen.c.x86.packing import as_bytes, needs_guard, padded, stored_bias, stored_multipliers, tile_order
from qcomp.codegen.c.x86.render import merge_helpers, render
from qcomp.codegen.c.x86.shapes import ConvShape, Float32, Int8, Int32, Requantization, UInt8
from qcomp.codegen.c.x86.tiling import partition

MAX_ROTATING = 5
# Accumulators and weights that fit in registers together; with more of them weights are operands in memory.
RESIDENT = 24


def is_depthwise(shape: ConvShape) -> bool:
    """One input channel and one output channel a group."""
    return shape.groups > 1 and shape.groups == shape.x.channels == shape.y.channels


@dataclass(frozen=True)
class _Use:
    slot: int
    tap: int


@dataclass(frozen=True)
class _Load:
    name: str
    text: str


@dataclass(frozen=True)
class _DwordGroup:
    """Four vectors that are interleaved into dwords, and the outputs that take them."""

    id: int
    loads: tuple[_Load, ...]
    quad: tuple[str, str, str, str]
    uses: tuple[_Use, ...]


@dataclass(frozen=True)
class _Column:
    groups: tuple[_DwordGroup, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True)
class _Step:
    slot: int
    columns: tuple[_Column, ...]
    group: Group


def _across(rows: int, columns: int, group: int) -> bool:
    """Whether a group of rows is one row whose dwords hold four columns."""
    return rows % 4 == 1 and columns > 1 and group == rows // 4


def row_dwords(rows: int, columns: int) -> list[tuple[int, int]]:
    """(last column, group) of each dword of weights that `row_helper` takes for a channel, in packed order.

    A group is up to four rows; a single row that is left has dwords that end every fourth column, the last included."""
    return [
        (column, group)
        for column in range(columns)
        for group in range(-(-rows // 4))
        if not _across(rows, columns, group) or column % 4 == (columns - 1) % 4
    ]


def _at(offset: int) -> str:
    return f"_mm512_loadu_si512(w + {offset})"


def _load(address: str, segments: int) -> str:
    """64 bytes: 64/segments from each of `segments` places x_seg bytes apart."""
    if segments == 1:
        return f"_mm512_loadu_si512({address})"
    if segments == 2:
        low, high = (f"_mm256_loadu_si256((const __m256i*)({address}{at}))" for at in ("", " + x_seg"))
        return f"_mm512_inserti64x4(_mm512_castsi256_si512({low}), {high}, 1)"
    parts = [f"_mm_loadu_si128((const __m128i*)({address} + {i} * x_seg))" for i in range(4)]
    text = f"_mm512_castsi128_si512({parts[0]})"
    for i in range(1, 4):
        text = f"_mm512_inserti32x4({text}, {parts[i]}, {i})"
    return text


def _stores(segments: int, masked: bool) -> tuple[str, ...]:
    if segments == 1:
        return ("_mm512_mask_storeu_epi8(y, q->mask, p);" if masked else "_mm512_storeu_si512(y, p);",)
    bits, prefix, extract = (256, "_mm256", "i64x4_epi64") if segments == 2 else (128, "_mm", "i32x4_epi32")
    text = []
    for i in range(segments):
        value = f"_mm512_extract{extract}(p, {i})" if i else f"_mm512_castsi512_si{bits}(p)"
        at = f"y + {i} * y_seg"
        if masked:
            text.append(f"{prefix}_mask_storeu_epi8({at}, (__mmask{bits // 8})q->mask, {value});")
        else:
            text.append(f"{prefix}_storeu_si{bits}((__m{bits}i*)({at}), {value});")
    return tuple(text)


def _quad(names: list[str]) -> tuple[str, str, str, str]:
    picks = {1: (0, 0, 0, 0), 2: (0, 1, 0, 1), 3: (0, 1, 2, 2), 4: (0, 1, 2, 3)}[len(names)]
    return names[picks[0]], names[picks[1]], names[picks[2]], names[picks[3]]


def row_helper(rows: int, columns: int, stride: int, segments: int, epilogue: Epilogue) -> tuple[CFunction, ...]:
    """The kernel of one output row with rotating accumulators; columns/stride at most MAX_ROTATING."""
    slots = -(-columns // stride)
    dwords = row_dwords(rows, columns)

    def column(j: int) -> _Column:
        """Column j as of the row's first output; one that is negative was never loaded, and its weight is zero."""
        served = [tap for tap in range(columns) if (j - tap) % stride == 0 and j >= tap]
        groups = []
        for g in range(-(-rows // 4)):
            uses = tuple(_Use((j - tap) // stride % slots, tap) for tap in served if (tap, g) in dwords)
            if _across(rows, columns, g):
                back = range(min(4, columns) - 1, -1, -1)
                names = [f"p{min(k, j)}" for k in back]
                at = {f"p{k}": f"x + {4 * g} * rs - {k} * c" for k in back if k <= j}
            else:
                names = [f"r{r}" for r in range(4 * g, min(rows, 4 * g + 4))]
                at = {name: f"x + {name[1:]} * rs" for name in names}
            if uses:
                loads = tuple(_Load(name, _load(address, segments)) for name, address in at.items())
                groups.append(_DwordGroup(g, loads, _quad(names), uses))
        return _Column(tuple(groups), tuple(dict.fromkeys(use.slot for group in groups for use in group.uses)))

    ahead = max(0, columns - stride)
    fresh = min(columns, stride)
    # Numbered as of the second round: a column then also feeds outputs that began before column 0.
    steps = tuple(
        _Step(
            t,
            tuple(column((slots + t) * stride + ahead + j) for j in range(fresh)),
            Group(tuple((t, v) for v in range(4)), (0, 1, 2, 3), _stores(segments, epilogue.masked)),
        )
        for t in range(slots)
    )
    first = 384 if epilogue.short else 512
    offsets = {(j, g, v): first + 64 * (4 * i + v) for i, (j, g) in enumerate(dwords) for v in range(4)}
    resident = len(offsets) + 4 * slots <= RESIDENT
    weight = {(j, g, v): f"w{j}_{g}_{v}" if resident else _at(at) for (j, g, v), at in offsets.items()}
    name = f"qc_x86_dw{rows}x{columns}s{stride}_{segments}_{epilogue.suffix}"
    text = render(
        "depthwise_row.c.j2",
        name=name,
        rows=rows,
        kw=columns,
        sw=stride,
        seg=segments,
        slots=slots,
        resident=resident,
        restrict=" restrict" if resident else "",
        bias=[f"bias{v}" if resident else _at(64 * v) for v in range(4)],
        weights=[(weight[key], at) for key, at in offsets.items()],
        weight=weight,
        prologue=[column(j) for j in range(ahead)],
        steps=steps,
        skip=stride - fresh,
        multipliers=epilogue.multipliers("w + 256", 4),
        index=(),
        **epilogue.template_values,
    )
    return (*epilogue.helpers, CFunction(name, text))


def any_helper(segments: int, epilogue: Epilogue) -> tuple[CFunction, ...]:
    """The kernel of one output row for any kernel size, stride and dilation."""
    name = f"qc_x86_dwany_{segments}_{epilogue.suffix}"
    text = render(
        "depthwise_any.c.j2",
        name=name,
        seg=segments,
        loads=[_load(f"a{r}", segments) for r in range(4)],
        group=Group(tuple((0, v) for v in range(4)), (0, 1, 2, 3), _stores(segments, epilogue.masked)),
        multipliers=epilogue.multipliers("w + 256", 4),
        weights_at=384 if epilogue.short else 512,
        index=(),
        **epilogue.template_values,
    )
    return (*epilogue.helpers, CFunction(name, text))


def pack_block(
    weights: Int8, bias: Int32, mult: Float32 | npt.NDArray[np.float16], segments: int, rotating: bool
) -> UInt8:
    """bias | multipliers | weights [dwords][4][16][4] of up to 64/segments channels.

    weights: [c, KH, KW]; rotating: the dwords of `row_dwords`, else [KW][row groups] with zeros beyond KH."""
    width = 64 // segments
    order = [channel % width for channel in tile_order(4)]
    w, b, m = (padded(a, width)[order] for a in (weights, bias, mult))
    rows, columns = w.shape[1:]
    body = []
    for last, group in row_dwords(rows, columns) if rotating else product(range(columns), range(-(-rows // 4))):
        if rotating and _across(rows, columns, group):
            first = last + 1 - min(4, columns)
            dword = np.pad(w[:, 4 * group, max(0, first) : last + 1], ((0, 0), (max(0, -first), 0)))
        else:
            dword = w[:, 4 * group : 4 * group + 4, last]
        body.append(as_bytes(np.pad(dword, ((0, 0), (0, 4 - dword.shape[1])))))
    return np.concatenate([as_bytes(b), as_bytes(m), *body])


@dataclass(frozen=True)
class _Band:
    name: str
    any: bool
    first: int
    last: int
    x_seg: int
    y_seg: int
    pixels: int


def depthwise_code(
    shape: ConvShape,
    weights: Int8,
    bias: Int32,
    mult: Float32,
    requantization: Requantization,
    features: frozenset[str],
    symbol: str,
) -> KernelCode:
    """C of a depthwise convolution with u8 output; weights: int8 [C, KH, KW, 1].

    Raises QcompError where bias - zp*sum(w) leaves int32."""
    (kh, kw), (sh, sw), channels, width = shape.kernel, shape.strides, shape.x.channels, shape.y.width
    rotating = shape.dilations[1] == 1 and -(-kw // sw) <= MAX_ROTATING and kh <= 8
    folded = stored_bias(weights, bias, requantization.x_zp)
    guard = needs_guard(weights, bias, mult, requantization.x_zp)
    multipliers = stored_multipliers(mult)
    tail = channels % 64
    blocks = [(64 * i, 1, False) for i in range(channels // 64)]
    if tail:
        segments = 4 if tail <= 16 else 2 if tail <= 32 else 1
        blocks.append((channels - tail, segments, tail != 64 // segments))

    helpers: tuple[CFunction, ...] = ()
    bands: list[_Band] = []
    packed: list[UInt8] = []
    for i, (start, segments, masked) in enumerate(blocks):
        at = slice(start, start + 64 // segments)
        packed.append(pack_block(weights[at, :, :, 0], folded[at], multipliers.values[at], segments, rotating))
        table = requantization.table is not None
        epilogue = Epilogue("u8", guard, table, masked, "avx512vbmi" in features, multipliers.short)
        needed = row_helper(kh, kw, sw, segments, epilogue) if rotating else any_helper(segments, epilogue)
        helpers = merge_helpers(helpers, needed)
        apart = width // segments
        pixels = width - (segments - 1) * apart
        if bands and bands[-1].name == needed[-1].name:
            first = bands.pop().first
        else:
            first = i
        bands.append(
            _Band(needed[-1].name, not rotating, first, i + 1, apart * sw * channels, apart * channels, pixels)
        )

    dwords = len(row_dwords(kh, kw)) if rotating else kw * -(-kh // 4)
    vectors_per_pixel = 4 * len(blocks)
    cycles = shape.y.batch * shape.y.height * width * vectors_per_pixel * (5 + dwords)
    lines = shape.y.batch * shape.y.height
    grid = partition(lines, len(blocks), float(cycles), 0, max(1, shape.y.row_stride))
    dh, dw = shape.dilations
    text = render(
        "depthwise.c.j2",
        symbol=symbol,
        table=requantization.table is not None,
        mask=hex((1 << (tail or 64)) - 1),
        lines=lines,
        lines_per_image=shape.y.height,
        lines_per_block=-(-lines // grid.line_blocks),
        line_blocks=grid.line_blocks,
        tiles_per_block=-(-len(blocks) // grid.tile_blocks),
        blocks=len(blocks),
        x_image=shape.x.image_stride,
        x_row=sh * shape.x.row_stride,
        origin=shape.pads[0] * shape.x.row_stride + shape.pads[1] * channels,
        y_image=shape.y.image_stride,
        y_row=shape.y.row_stride,
        bands=bands,
        rs=dh * shape.x.row_stride,
        c=dw * channels,
        xs=sw * channels,
        ys=channels,
        kh=kh,
        kw=kw,
        block_bytes=packed[0].size,
        unit=float_literal(multipliers.unit),
        **clamp_values(requantization),
    )
    constants = [np.concatenate(packed)]
    if requantization.table is not None:
        constants.append(np.array(requantization.table, np.uint8))
    form = f"{kh}x{kw}s{sw}" if rotating else "any"
    return KernelCode(helpers, text, grid.line_blocks * grid.tile_blocks, tuple(constants), f"vnni depthwise {form}")
