"""Integer attention by vectors: both products, and between them the softmax of rows that stay in the first caches.

A task packs the keys and values of a head, then takes some queries at a time: their scores as floats, the exponentials
of these as bytes, and the sums of values that these weigh."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.shapes import Int8
from qcomp.codegen.c.x86.elementwise import scalars_helper
from qcomp.codegen.c.x86.epilogue import types_helper
from qcomp.codegen.c.x86.exponential import exponential_values
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import merge_helpers, render
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir.ops.attention import TOP

#: What a task may have on its stack.
STACK_BYTES = 64 * 1024
_TALLEST = 8
_VECTORS = 2  # of accumulators beside each other
_FEW_TASKS = 16
_LEAST_UNITS = 4  # for which it is worth packing the other operand once more
_GROUP = 64  # queries, at most, between which keys and values change places where they share memory
_LEAST_SHARED = 4  # queries at a time, that is
_LOWEST = float_literal(-np.inf)


@dataclass(frozen=True)
class AttentionShape:
    """Buffers of q u8 [B,M,H,D], k u8 [B,N,H,D], v u8 [B,N,H,E] and the result; mask f32 of shape [B or 1, H or 1,
    M or 1, N]."""

    q: Buffer
    k: Buffer
    v: Buffer
    y: Buffer
    mask: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        return self.q.shape[1]

    @property
    def keys(self) -> int:
        return self.k.shape[1]

    @property
    def depth(self) -> int:
        return self.q.shape[3]

    @property
    def width(self) -> int:
        return self.v.shape[3]


@dataclass(frozen=True)
class AttentionScalars:
    """Zero points of logical int8 values; the result as stored, zp, lo and hi in 0..255, or real."""

    q_zp: int
    k_zp: int
    v_zp: int
    scale: float
    mult: float
    zp: int
    lo: int
    hi: int
    real: bool


@dataclass(frozen=True)
class Layout:
    """How a task holds its head: queries at a time (`tallest`, then `shortest`), and bytes of the stack.

    group: 0 where keys and values have memory of their own; else they take turns in one buffer, for each such number
    of queries."""

    tallest: int
    shortest: int
    vectors: int
    score_step: int
    keys_bytes: int
    values_bytes: int
    mask_rows: int
    group: int = 0

    @property
    def bytes(self) -> int:
        packed = max(self.keys_bytes, self.values_bytes) if self.group else self.keys_bytes + self.values_bytes
        per_score = 4 * self.tallest + self.weight_rows + 4 + 4 * self.mask_rows
        return packed + self.score_step * per_score + 8 * self.weight_rows + 4 * self.tallest

    @property
    def weight_rows(self) -> int:
        """Rows whose weights are held at a time."""
        return self.group or self.tallest


def tile_rows(rows: int, isa: Isa) -> int:
    """Rows of a tile: those that registers have room for, evened out over the tiles that cover `rows`."""
    most = max(r for r in isa.dot.rows(_VECTORS) if r <= _TALLEST)
    return min(r for r in isa.dot.rows(_VECTORS) if -(-rows // r) == -(-rows // most))


def block_of(units: int, tasks: int, least: int = _LEAST_UNITS) -> int:
    """Units of rows of a block: all of them, or where there are few tasks fewer, but `least`."""
    return -(-units // max(1, min(units // least, -(-_FEW_TASKS // tasks))))


def layout_of(shape: AttentionShape, isa: Isa) -> Layout | None:
    """As many queries at a time as there are registers for; None where the stack is too small."""
    tallest = tile_rows(shape.rows, isa)
    layout = _layout(shape, isa, tallest)
    if layout.bytes <= STACK_BYTES:
        return layout
    shared: list[Layout] = []
    for height in (r for r in isa.dot.rows(_VECTORS) if r <= tallest):
        groups = (replace(_layout(shape, isa, height), group=g) for g in range(height, _GROUP + height, height))
        shared += [g for g in groups if g.bytes <= STACK_BYTES and height >= min(_LEAST_SHARED, tallest)]
    return max(shared, key=lambda g: (min(g.group, shape.rows), g.tallest), default=None)


def _layout(shape: AttentionShape, isa: Isa, tallest: int) -> Layout:
    vectors = -(-shape.keys // isa.lanes)
    masked = _masked(shape, isa)
    return Layout(
        tallest,
        shape.rows % tallest,
        vectors,
        -(-vectors // 4) * 4 * isa.lanes,
        vectors * isa.bytes * dwords(shape.depth),
        dwords(shape.keys) * value_step(shape.width),
        tallest if masked == "rows" else int(masked != ""),
    )


def dwords(count: int) -> int:
    """Dwords that hold `count` bytes."""
    return -(-count // 4)


def value_step(width: int) -> int:
    """Bytes of four keys' values."""
    return -(-width // 16) * 64


def _masked(shape: AttentionShape, isa: Isa) -> str:
    """What a mask on the stack has lines for: "rows", "keys" (one line for all rows), or there is none.

    Vectors of scores that keys do not fill need one, which hides what lies past the last key."""
    if shape.mask is not None and shape.mask[2] > 1:
        return "rows"
    return "keys" if shape.mask is not None or shape.keys % isa.lanes else ""


@cache
def reduce_helpers(isa: Isa) -> tuple[CFunction, ...]:
    """Reductions across a vector, and what they need."""
    text = render("attention_reduce.c.j2", V=isa)
    return (*scalars_helper(isa), types_helper(isa), CFunction("qc_x86_reductions", text))


@cache
def pack_keys_helper(isa: Isa) -> tuple[CFunction, ...]:
    """Brings the keys of a head into the order of products."""
    rows = [[f"row[{4 * q + j}] + d" for q in range(isa.quarters)] for j in range(4)]
    text = render(
        "pack_keys.c.j2", V=isa, L=isa.lanes, rows=rows, sums=isa.for_ones.dot, arranged=lambda x: arranged(isa, x)
    )
    return (*reduce_helpers(isa), CFunction("qc_x86_pack_keys", text))


@cache
def pack_values_helper(isa: Isa) -> tuple[CFunction, ...]:
    """Brings rows of values into the order of products."""
    text = render("pack_values.c.j2", V=isa, arranged=lambda x: arranged(isa, x))
    return (*reduce_helpers(isa), CFunction("qc_x86_pack_values", text))


@cache
def row_sums_helper(isa: Isa) -> tuple[CFunction, ...]:
    """Sums rows of bytes."""
    return (*reduce_helpers(isa), CFunction("qc_x86_row_sums", render("row_sums.c.j2", V=isa)))


def arranged(isa: Isa, value: str) -> str:
    """A vector of dwords of four bytes in the order in which the products of `isa` have them in memory."""
    natural: Int8 = np.arange(isa.bytes, dtype=np.int8).reshape(1, 1, isa.lanes, 4)
    order = isa.dot.arrange(natural, isa.lanes).reshape(-1)
    if np.array_equal(order, natural.reshape(-1)):
        return value
    evens_first = [*range(0, 16, 2), *range(1, 16, 2)]
    parts = np.array(evens_first).reshape(2, 8)
    assert np.array_equal(order, np.concatenate([parts[0], parts[0] + 16, parts[1], parts[1] + 16]))
    shuffle = f"_mm256_setr_epi8({', '.join(map(str, evens_first * 2))})"
    return f"_mm256_permute4x64_epi64(_mm256_shuffle_epi8({value}, {shuffle}), 0xD8)"


def dword_products(isa: Isa, rows: int, vectors: int, step: str) -> list[str]:
    """Statements of four terms of the sums; `step` bytes lie between vectors of weights."""
    lines: list[str] = []
    for v in range(vectors):
        lines += isa.dot.weights(v, f"wp + {v} * {step}" if v else "wp")
    for m in range(rows):
        lines += isa.dot.pixel(m, f"a{m - m % 3} + {m % 3} * xs + 4 * k")
        for v in range(vectors):
            lines.append(f"c{m}_{v} = {isa.dot.product(f'c{m}_{v}', m, v)};")
    return lines


def scores_helper(isa: Isa, rows: int, vectors: int, masked: bool) -> tuple[CFunction, ...]:
    """Scores of `rows` queries and blocks of `vectors` vectors of keys."""
    name = f"qc_x86_scores_{rows}x{vectors}{'_m' * masked}{isa.variant}"
    text = render(
        "attention_scores.c.j2", V=isa, name=name, mr=rows, nv=vectors, masked=masked, pointers=range(0, rows, 3),
        products=dword_products(isa, rows, vectors, "step"),
    )  # fmt: skip
    return (types_helper(isa), CFunction(name, text))


@cache
def weights_helper(isa: Isa) -> tuple[CFunction, ...]:
    """Weights of rows of scores."""
    text = render(
        "attention_weights.c.j2", V=isa, low=float_literal(-16.0), most=float_literal(TOP), lowest=_LOWEST,
        steps=(8, 4) if isa.bits == 512 else (4,), **exponential_values(),
    )  # fmt: skip
    return (*reduce_helpers(isa), CFunction("qc_x86_weights", text))


def put_helper(isa: Isa, real: bool) -> CFunction:
    """Stores a vector of results or the first of them, as floats or as rounded bytes."""
    return CFunction(f"qc_x86_put_{'float' if real else 'uint8_t'}", render("attention_put.c.j2", V=isa, real=real))


def values_helper(isa: Isa, rows: int, vectors: int, real: bool, started: bool = False) -> tuple[CFunction, ...]:
    """Sums of `vectors` vectors of columns, weighted by `rows` rows of bytes; started: not from 0 on."""
    ctype, put = "float" if real else "uint8_t", put_helper(isa, real)
    name = f"qc_x86_values_{rows}x{vectors}_{'f32' if real else 'u8'}{'_s' * started}{isa.variant}"
    text = render(
        "attention_values.c.j2", V=isa, name=name, mr=rows, nv=vectors, real=real, ctype=ctype, started=started,
        pointers=range(0, rows, 3), products=dword_products(isa, rows, vectors, str(isa.bytes)),
    )  # fmt: skip
    return (*reduce_helpers(isa), put, CFunction(name, text))


def attention_fits(shape: AttentionShape, isa: Isa) -> bool:
    """Whether a task's part of a head fits on the stack."""
    return layout_of(shape, isa) is not None


def attention_code(
    shape: AttentionShape, scalars: AttentionScalars, isa: Isa, symbol: str, mask: np.ndarray | None = None
) -> KernelCode:
    """C of qattention on stored u8; mask: its values where they are constant, else it is the fourth input."""
    batches, rows, heads, width = shape.y.shape
    layout, masked, tasks = layout_of(shape, isa), _masked(shape, isa), batches * heads
    assert layout is not None
    unit = layout.group or layout.tallest
    units = -(-rows // unit)
    units_per_block = block_of(units, tasks, 1 if layout.group else _LEAST_UNITS)
    blocks = -(-units // units_per_block)
    work = rows * shape.keys * (shape.depth + width + 100) / 64
    helpers = [pack_keys_helper(isa), pack_values_helper(isa), weights_helper(isa)]
    helpers += [row_sums_helper(isa)] if scalars.k_zp else []
    scores, values = {}, {}
    for height in {layout.tallest, layout.shortest} - {0}:
        scores[height], own = _score_calls(isa, height, shape, layout, masked != "")
        values[height], more = column_calls(isa, height, width, scalars.real)
        helpers += own + more
    moving = 3 + int(shape.mask is not None and mask is None)
    stored = [z + 128 for z in (scalars.q_zp, scalars.k_zp)]
    bounds = [float_literal(scalars.lo - scalars.zp), float_literal(scalars.hi - scalars.zp), str(scalars.zp)]
    text = render(
        "attention.c.j2",
        symbol=symbol, result=moving, ctype="float" if scalars.real else "uint8_t",
        keys=shape.keys, depth=shape.depth, width=width, rows=rows, heads=heads, dwords=dwords(shape.depth),
        groups=dwords(shape.keys), value_step=value_step(width), vectors=layout.vectors, masked=masked,
        tallest=layout.tallest, shortest=layout.shortest, score_step=layout.score_step, keys_bytes=layout.keys_bytes,
        values_bytes=layout.values_bytes, blocks=blocks, rows_per_block=units_per_block * unit,
        group=layout.group, weight_rows=layout.weight_rows,
        parts=split(tasks * blocks, work / blocks), scores=scores, values=values, lowest=_LOWEST,
        bounds="" if scalars.real else "".join(f"{b}, " for b in bounds), scale=float_literal(scalars.scale),
        mult=float_literal(scalars.mult), v_zp=scalars.v_zp, sums_factor=scalars.k_zp,
        start_factor=-stored[0], start_base=shape.depth * stored[0] * scalars.k_zp,
        q=_place(shape.q.strides), k=_place(shape.k.strides), v=_place(shape.v.strides), y=_place(shape.y.strides),
        mask=_mask_place(shape.mask, "p[3]" if mask is None else f"p[{moving + 1}]"),
    )  # fmt: skip
    constants = () if mask is None else (np.ascontiguousarray(mask, np.float32),)
    return KernelCode(merge_helpers(*helpers), text, split(tasks * blocks, work / blocks).count, constants,
                      f"{isa.name} qattention")  # fmt: skip


@dataclass(frozen=True)
class _Call:
    """A call for `count` blocks of keys, or columns of values; where they start, as elements and as packed bytes."""

    name: str
    first: int
    packed: int
    count: int


def _score_calls(
    isa: Isa, height: int, shape: AttentionShape, layout: Layout, masked: bool
) -> tuple[list[_Call], list[tuple[CFunction, ...]]]:
    """Calls that cover the vectors of keys, and what they call."""
    calls: list[_Call] = []
    helpers = []
    pairs, rest = divmod(layout.vectors, _VECTORS)
    for vectors, blocks, first in ((_VECTORS, pairs, 0), (1, rest, pairs * _VECTORS)):
        if blocks:
            helpers.append(scores_helper(isa, height, vectors, masked))
            packed = first * isa.bytes * dwords(shape.depth)
            calls.append(_Call(helpers[-1][-1].name, first * isa.lanes, packed, blocks))
    return calls, helpers


def column_calls(
    isa: Isa, height: int, width: int, real: bool, started: bool = False
) -> tuple[list[_Call], list[tuple[CFunction, ...]]]:
    """Calls that cover the columns of values, and what they call."""
    calls: list[_Call] = []
    helpers = []
    for first in range(0, width, _VECTORS * isa.lanes):
        columns = min(width - first, _VECTORS * isa.lanes)
        helpers.append(values_helper(isa, height, -(-columns // isa.lanes), real, started))
        calls.append(_Call(helpers[-1][-1].name, first, 4 * first, columns))
    return calls, helpers


def _place(strides: tuple[int, ...]) -> dict[str, object]:
    """Where a head starts, in elements, and how far apart its positions are."""
    return {"at": f"batch * {strides[0]} + head * {strides[2]}", "step": strides[1]}


def _mask_place(shape: tuple[int, ...] | None, pointer: str) -> dict[str, object] | None:
    if shape is None:
        return None
    strides = [math.prod(shape[i + 1 :]) if size > 1 else 0 for i, size in enumerate(shape)]
    return {"pointer": pointer, "at": f"batch * {strides[0]} + head * {strides[1]}", "step": strides[2]}
