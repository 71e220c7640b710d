"""Depthwise convolution, interleaved so that one product instruction takes up to four taps of a channel.

Unpacking puts up to four kernel rows (two, where products are of 16 bits) of a channel in one dword; a column so
interleaved serves every output that it touches, whose accumulators are named and rotate. A single row that is
left (the fifth of five) gives a dword of pixels of its own instead. The unpacking orders channels as the
packing of results undoes it. Fewer channels than a step holds: the vector's lanes walk 2 or 4 segments
of the row at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.packing import as_bytes, padded
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32, Requantization, UInt8
from qcomp.codegen.c.x86.arithmetic import arithmetic_of
from qcomp.codegen.c.x86.conv import clamp_values
from qcomp.codegen.c.x86.depthwise_lanes import channels, interleave, load, pixel_order, segment_counts, stores
from qcomp.codegen.c.x86.epilogue import Epilogue, Group, pack_operands
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.packing import tile_order
from qcomp.codegen.c.x86.render import merge_helpers, render
from qcomp.codegen.c.x86.schedule import BY_MODEL, Schedule
from qcomp.codegen.c.x86.tiling import partition

MAX_ROTATING = 5




def can_rotate(shape: ConvShape) -> bool:
    """Whether `row_helper` computes it."""
    columns, stride = shape.kernel[1], shape.strides[1]
    return shape.dilations[1] == 1 and -(-columns // stride) <= MAX_ROTATING and shape.kernel[0] <= 8


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
    """Vectors that are interleaved into dwords, and the outputs that take them."""

    id: int
    loads: tuple[_Load, ...]
    interleave: tuple[str, ...]
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


def _across(taps: int, rows: int, columns: int, group: int) -> bool:
    """Whether a group of rows is one row whose dwords hold `taps` columns."""
    return rows % taps == 1 and columns > 1 and group == rows // taps


def row_dwords(taps: int, rows: int, columns: int) -> list[tuple[int, int]]:
    """(last column, group) of each dword of weights that `row_helper` takes for a channel, in packed order.

    A group is up to `taps` rows; a single row that is left has dwords that end every `taps` columns, the last included.
    """
    return [
        (column, group)
        for column in range(columns)
        for group in range(-(-rows // taps))
        if not _across(taps, rows, columns, group) or column % taps == (columns - 1) % taps
    ]


def row_helper(rows: int, columns: int, stride: int, segments: int, epilogue: Epilogue) -> tuple[CFunction, ...]:
    """The kernel of one output row with rotating accumulators; columns/stride at most MAX_ROTATING."""
    isa = epilogue.isa
    slots, taps, vectors = -(-columns // stride), isa.taps, range(isa.dw_vectors)
    dwords = row_dwords(taps, rows, columns)

    def column(j: int) -> _Column:
        """Column j as of the row's first output; one that is negative was never loaded, and its weight is zero."""
        served = [tap for tap in range(columns) if (j - tap) % stride == 0 and j >= tap]
        groups = []
        for g in range(-(-rows // taps)):
            uses = tuple(_Use((j - tap) // stride % slots, tap) for tap in served if (tap, g) in dwords)
            if _across(taps, rows, columns, g):
                back = range(min(taps, columns) - 1, -1, -1)
                names = [f"p{min(k, j)}" for k in back]
                at = {f"p{k}": f"x + {taps * g} * rs - {k} * c" for k in back if k <= j}
            else:
                names = [f"r{r}" for r in range(taps * g, min(rows, taps * g + taps))]
                at = {name: f"x + {name[1:]} * rs" for name in names}
            if uses:
                loads = tuple(_Load(name, load(isa, address, segments)) for name, address in at.items())
                groups.append(_DwordGroup(g, loads, interleave(isa, g, names), uses))
        return _Column(tuple(groups), tuple(dict.fromkeys(use.slot for group in groups for use in group.uses)))

    ahead = max(0, columns - stride)
    fresh = min(columns, stride)
    written = stores(isa, segments, epilogue.masked)
    # Numbered as of the second round: a column then also feeds outputs that began before column 0.
    steps = tuple(
        _Step(
            t,
            tuple(column((slots + t) * stride + ahead + j) for j in range(fresh)),
            Group(tuple((t, v) for v in vectors), pack_operands(isa, len(vectors)), written),
        )
        for t in range(slots)
    )
    places = ((key, i * len(vectors) + v) for i, key in enumerate(dwords) for v in vectors)
    first = _weights_at(epilogue)
    offsets = {(*key, at % len(vectors)): first + isa.bytes * at for key, at in places}
    resident = len(offsets) + len(vectors) * slots <= isa.resident
    loaded = {key: isa.load(f"w + {at}") for key, at in offsets.items()}
    weight = {(j, g, v): f"w{j}_{g}_{v}" if resident else text for (j, g, v), text in loaded.items()}
    name = f"qc_x86_dw{rows}x{columns}s{stride}_{segments}_{epilogue.suffix}"
    text = render(
        "depthwise_row.c.j2",
        name=name,
        rows=rows,
        kw=columns,
        sw=stride,
        channels=channels(isa),
        seg=segments,
        slots=slots,
        resident=resident,
        restrict=" restrict" if resident else "",
        vectors=vectors,
        bias=[f"bias{v}" if resident else isa.load(f"w + {isa.bytes * v}") for v in vectors],
        weights=[(weight[key], text) for key, text in loaded.items()],
        weight=weight,
        prologue=[column(j) for j in range(ahead)],
        steps=steps,
        skip=stride - fresh,
        multipliers=epilogue.multipliers(f"w + {isa.bytes * len(vectors)}", len(vectors)),
        index=pixel_order(isa),
        **epilogue.template_values,
    )
    return (*epilogue.helpers, CFunction(name, text))


def any_helper(segments: int, epilogue: Epilogue) -> tuple[CFunction, ...]:
    """The kernel of one output row for any kernel size, stride and dilation."""
    isa = epilogue.isa
    name = f"qc_x86_dwany_{segments}_{epilogue.suffix}"
    vectors, rows = range(isa.dw_vectors), [f"r{r}" for r in range(isa.taps)]
    text = render(
        "depthwise_any.c.j2",
        name=name,
        seg=segments,
        channels=channels(isa),
        vectors=vectors,
        loads=[load(isa, f"a{r}", segments) for r in range(isa.taps)],
        interleave=interleave(isa, "", rows),
        group=Group(
            tuple((0, v) for v in vectors), pack_operands(isa, len(vectors)), stores(isa, segments, epilogue.masked)
        ),
        multipliers=epilogue.multipliers(f"w + {isa.bytes * len(vectors)}", len(vectors)),
        weights_at=_weights_at(epilogue),
        index=pixel_order(isa),
        **epilogue.template_values,
    )
    return (*epilogue.helpers, CFunction(name, text))


def _weights_at(epilogue: Epilogue) -> int:
    """Where a block's weights are: after the bias and the multipliers of a step's channels."""
    return epilogue.isa.bytes * epilogue.isa.dw_vectors * (3 if epilogue.short else 4) // 2


def pack_block(
    isa: Isa, weights: Int8, bias: Int32, mult: Float32 | npt.NDArray[np.float16], segments: int, rotating: bool
) -> UInt8:
    """bias | multipliers | weights [dwords][vectors][lanes][taps] of up to a step's channels / segments.

    weights: [c, KH, KW]; rotating: the dwords of `row_dwords`, else [KW][row groups] with zeros beyond KH. Taps are
    int8, or int16 where a dword holds two."""
    width, taps = channels(isa) // segments, isa.taps
    order = [channel % width for channel in tile_order(isa.dw_vectors, isa.lanes)]
    w, b, m = (padded(a, width)[order] for a in (weights, bias, mult))
    rows, columns = w.shape[1:]
    body = []
    every = product(range(columns), range(-(-rows // taps)))
    for last, group in row_dwords(taps, rows, columns) if rotating else every:
        if rotating and _across(taps, rows, columns, group):
            first = last + 1 - min(taps, columns)
            dword = np.pad(w[:, taps * group, max(0, first) : last + 1], ((0, 0), (max(0, -first), 0)))
        else:
            dword = w[:, taps * group : taps * (group + 1), last]
        dword = np.pad(dword, ((0, 0), (0, taps - dword.shape[1])))
        body.append(as_bytes(dword.astype(np.int16 if taps == 2 else np.int8)))
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
    isa: Isa,
    symbol: str,
    schedule: Schedule = BY_MODEL,
) -> KernelCode:
    """C of a depthwise convolution with u8 output; weights: int8 [C, KH, KW, 1].

    Raises QcompError where bias - zp*sum(w) leaves int32, and for a schedule that does not fit."""
    (kh, kw), (sh, sw), depth, width = shape.kernel, shape.strides, shape.x.channels, shape.y.width
    rotating = can_rotate(shape) and schedule.form != "any"
    if not schedule.plain or (schedule.form == "row" and not rotating):
        raise schedule.reject("a depthwise kernel does not have it")
    arithmetic = arithmetic_of(weights, bias, mult, requantization, isa)
    folded, multipliers = arithmetic.bias, arithmetic.multipliers
    step = channels(isa)
    tail = depth % step
    blocks = [(step * i, 1, False) for i in range(depth // step)]
    if tail:
        segments = next(s for s in segment_counts(isa) if tail <= step // s)
        blocks.append((depth - tail, segments, tail != step // segments))

    helpers: tuple[CFunction, ...] = ()
    bands: list[_Band] = []
    packed: list[UInt8] = []
    for i, (start, segments, masked) in enumerate(blocks):
        at = slice(start, start + step // segments)
        packed.append(pack_block(isa, weights[at, :, :, 0], folded[at], multipliers.values[at], segments, rotating))
        epilogue = replace(arithmetic.epilogue, masked=masked)
        needed = row_helper(kh, kw, sw, segments, epilogue) if rotating else any_helper(segments, epilogue)
        helpers = merge_helpers(helpers, needed)
        apart = width // segments
        pixels = width - (segments - 1) * apart
        if bands and bands[-1].name == needed[-1].name:
            first = bands.pop().first
        else:
            first = i
        bands.append(
            _Band(needed[-1].name, not rotating, first, i + 1, apart * sw * depth, apart * depth, pixels)
        )

    dwords = len(row_dwords(isa.taps, kh, kw)) if rotating else kw * -(-kh // isa.taps)
    vectors_per_pixel = isa.dw_vectors * len(blocks)
    cycles = shape.y.batch * shape.y.height * width * vectors_per_pixel * (1.5 + dwords / 2)
    lines = shape.y.batch * shape.y.height
    grid = partition(lines, len(blocks), float(cycles), 0, max(1, shape.y.row_stride), schedule.order)
    dh, dw = shape.dilations
    text = render(
        "depthwise.c.j2",
        symbol=symbol,
        table=requantization.table is not None,
        tail=isa.tail(tail or step),
        step=step,
        lines=lines,
        lines_per_image=shape.y.height,
        lines_per_block=-(-lines // grid.line_blocks),
        line_blocks=grid.line_blocks,
        tiles_per_block=-(-len(blocks) // grid.tile_blocks),
        blocks=len(blocks),
        x_image=shape.x.image_stride,
        x_row=sh * shape.x.row_stride,
        origin=shape.pads[0] * shape.x.row_stride + shape.pads[1] * depth,
        y_image=shape.y.image_stride,
        y_row=shape.y.row_stride,
        bands=bands,
        rs=dh * shape.x.row_stride,
        c=dw * depth,
        xs=sw * depth,
        ys=depth,
        kh=kh,
        kw=kw,
        block_bytes=packed[0].size,
        unit=float_literal(multipliers.unit),
        **clamp_values(requantization),
    )
    constants = [np.concatenate(packed)]
    if requantization.table is not None:
        constants.append(isa.packed_table(requantization.table))
    form = f"{kh}x{kw}s{sw}" if rotating else "any"
    kernel = f"{isa.dot.name} depthwise {form}"
    return KernelCode(helpers, text, grid.line_blocks * grid.tile_blocks, tuple(constants), kernel, whole=True)
