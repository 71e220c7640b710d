"""Convolutions and matrix products: TE computes over a view of the input in which windows are dense; schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qcomp.codegen.tvm.adapter import restrided, tvm
from qcomp.codegen.tvm.forms import Form
from qcomp.codegen.tvm.intrinsics.rows import row, row_bytes, row_pairs
from qcomp.codegen.tvm.intrinsics.tiles import amx
from qcomp.codegen.tvm.numbers import added, looked_up, stored
from qcomp.codegen.tvm.shares import power_of_two

#: Bytes of a vector of results, signed on ARM and unsigned on x86.
_SIGNED, _UNSIGNED = 16, 64


@dataclass(frozen=True)
class Products:
    """One function: `lines` lines of `tiles` blocks of `rows` pixels, times `blocks` blocks of `vectors` vectors of
    channels, the last of which may have less than all of its lanes: there are `channels`.

    joined: a form with tile registers takes so many of `rows` / `joined` pixels for a block.
    taps: of a window, (rows, columns), each `depth` bytes deep; strides, in elements, of x: from line to line, tap row
    to tap row, tap column to tap column, pixel to pixel; of y and the residual: from line to line, pixel to pixel."""

    form: Form
    lines: int
    tiles: int
    rows: int
    joined: int
    taps: tuple[int, int]
    depth: int
    x_strides: tuple[int, int, int, int]
    blocks: int
    vectors: int
    channels: int
    y_strides: tuple[int, int]
    residual: tuple[int, int] | None
    dtype: str
    table: bool

    @property
    def pixels(self) -> int:
        return self.tiles * self.rows

    @property
    def units(self) -> int:
        return -(-self.depth // self.form.unit)

    @property
    def padded_channels(self) -> int:
        return self.blocks * self.vectors * self.form.lanes

    @property
    def ending(self) -> int:
        """Channels that the ending does at a time: the largest power of two, up to a vector of bytes, that divides them
        and blocks of them."""
        whole, most = self.vectors * self.form.lanes, _SIGNED if self.form.dtype == "int8" else _UNSIGNED
        return power_of_two(math.gcd(self.channels, whole), most)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the function's parameters, pointers all, in order."""
        table, residual = ("table",) * self.table, ("r",) * (self.residual is not None)
        return ("w", "bias", "mult", "reals", "integers", *table, "x", *residual, "y")


#: Rows of taps, in dwords, up to which neighbouring rows share no loop.
_MOST_UNROLLED = 8


def scheduled(spec: Products) -> Any:
    """The PrimFunc, tiled and tensorized, over buffers as they lie in memory.

    reals: the bounds of a result and the factor of the residual; integers: the zero points of result and residual."""
    func, layouts = computed(spec)
    schedule = tvm().s_tir.Schedule(func)
    if spec.form.tiled:
        _by_tiles(schedule, spec)
    elif spec.form.by_rows:
        _by_rows(schedule, spec)
    else:
        _by_vectors(schedule, spec)
    return restrided(schedule.mod["main"], layouts)


def computed(spec: Products, kind: str = "llvm") -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The PrimFunc, not scheduled, over dense buffers, and the strides that they have; kind: of TVM's target."""
    te, form = tvm().te, spec.form
    bias = te.placeholder((spec.padded_channels,), "int32", "bias")
    mult = te.placeholder((spec.padded_channels,), "float32", "mult")
    given = {
        "bias": bias, "mult": mult, "reals": te.placeholder((3,), "float32", "reals"),
        "integers": te.placeholder((2,), "int32", "integers"),
    }  # fmt: skip
    shape = (spec.lines, spec.pixels, spec.channels)
    layouts: dict[str, tuple[int, ...]] = {"y": (*spec.y_strides, 1)}
    if spec.table:
        given["table"] = te.placeholder((256,), form.dtype, "table")
    if spec.residual is not None:
        given["r"] = te.placeholder(shape, form.dtype, "r")
        layouts["r"] = (*spec.residual, 1)
    sums = _depthwise_sums if form.depthwise else _sums
    given["x"], layouts["x"], given["w"], acc = sums(spec)
    given["y"] = te.compute(shape, _ending(spec, acc, given, kind), name="y")
    return te.create_prim_func([given[name] for name in spec.parameters]), layouts


def _sums(spec: Products) -> tuple[Any, tuple[int, ...], Any, Any]:
    """x, its strides, weights and acc[l, b, p, v, c] = sum over taps i, j, units u, quads q and bytes r of
    x[l, i, j, u, p, q, r] * w[b, i, j, u, v, q, c, r]."""
    te, form, quads = tvm().te, spec.form, spec.form.unit // 4
    x = te.placeholder((spec.lines, *spec.taps, spec.units, spec.pixels, quads, 4), form.dtype, "x")
    line, row, column, pixel = spec.x_strides
    shape = (spec.blocks, *spec.taps, spec.units, spec.vectors, quads, form.lanes, 4)
    weights = te.placeholder(shape, "int8", "w")
    extents = (*spec.taps, spec.units, quads, 4)
    axes = [te.reduce_axis((0, extent), name) for extent, name in zip(extents, "ijuqr", strict=True)]
    i, j, u, q, r = axes
    acc = te.compute(
        (spec.lines, spec.blocks, spec.pixels, spec.vectors, form.lanes),
        lambda line, b, pixel, v, c: te.sum(
            x[line, i, j, u, pixel, q, r].astype("int32") * weights[b, i, j, u, v, q, c, r].astype("int32"), axis=axes
        ),
        name="acc",
    )
    return x, (line, row, column, form.unit, pixel, 4, 1), weights, acc


def _depthwise_sums(spec: Products) -> tuple[Any, tuple[int, ...], Any, Any]:
    """x, its strides, weights and acc[l, b, p, v, c] = sum over taps i, j of
    x[l, i, p, b, v, j, c] * w[b, i, v, j, c]."""
    te, form = tvm().te, spec.form
    rows, columns = spec.taps
    shape = (spec.lines, rows, spec.pixels, spec.blocks, spec.vectors, columns, form.lanes)
    x = te.placeholder(shape, form.dtype, "x")
    line, row, column, pixel = spec.x_strides
    # By rows, how the taps of one are packed is the intrinsic's.
    packed = len(row_bytes(columns)) if form.by_rows else columns
    weights = te.placeholder((spec.blocks, rows, spec.vectors, packed, form.lanes), form.weights, "w")
    i, j = (te.reduce_axis((0, extent), name) for extent, name in zip(spec.taps, "ij", strict=True))
    acc = te.compute(
        (spec.lines, spec.blocks, spec.pixels, spec.vectors, form.lanes),
        lambda line, b, pixel, v, c: te.sum(
            x[line, i, pixel, b, v, j, c].astype("int32") * weights[b, i, v, j, c].astype("int32"), axis=[i, j]
        ),
        name="acc",
    )
    return x, (line, row, pixel, spec.vectors * form.lanes, form.lanes, column, 1), weights, acc


def _ending(spec: Products, acc: Any, given: dict[str, Any], kind: str) -> Any:
    lanes, vectors, dtype = spec.form.lanes, spec.vectors, spec.form.dtype
    reals, integers = given["reals"], given["integers"]

    def result(line: Any, pixel: Any, channel: Any) -> Any:
        place = (line, channel // (vectors * lanes), pixel, channel // lanes % vectors, channel % lanes)
        # Products of stored bytes may leave int32 where their sum with the bias does not: unsigned ones wrap.
        total = acc[place].astype("uint32") + given["bias"][channel].astype("uint32")
        real = total.astype("int32").astype("float32") * given["mult"][channel]
        if spec.dtype == "float32":
            return real
        if "r" in given:
            centred = given["r"][line, pixel, channel].astype("int32") - integers[1]
            real = added(real, centred.astype("float32") * reals[2], kind)
        byte = stored(real, reals[0], reals[1], integers[0], dtype)
        return looked_up(byte, given["table"], dtype) if "table" in given else byte

    return result


def _by_vectors(schedule: Any, spec: Products) -> None:
    """Sums of a block in vector registers; taps and depth run outside of its pixels and vectors."""
    acc, y = schedule.get_sblock("acc"), schedule.get_sblock("y")
    line, block, pixels, vector, lane, *taps = schedule.get_loops(acc)
    tile, pixel = schedule.split(pixels, [spec.tiles, spec.rows])
    outer = taps[: 3 if spec.form.unit > 4 else 4]  # a single quad of a unit has no loop to speak of
    schedule.reorder(block, line, tile, *outer, pixel, vector, lane, *taps[len(outer) :])
    _end_tile(schedule, spec, y, tile)
    _unroll(schedule, pixel, vector)
    code = spec.form.intrinsic
    if code is None:
        schedule.vectorize(lane)
    init = schedule.decompose_reduction(acc, outer[0])
    *_, pixel, vector, lane0 = schedule.get_loops(init)
    _unroll(schedule, pixel, vector)
    schedule.vectorize(lane0)
    if code is not None:
        schedule.tensorize(lane, code())


def _by_tiles(schedule: Any, spec: Products) -> None:
    """Sums of a block in tile registers, stored once taps and depth are through."""
    acc, y = schedule.get_sblock("acc"), schedule.get_sblock("y")
    clear, multiply, store = amx(spec.joined, spec.rows // spec.joined, spec.vectors)
    copy = schedule.cache_write(acc, 0, "global")
    line, block, pixels, vector, lane, *taps = schedule.get_loops(acc)
    tile, pixel = schedule.split(pixels, [spec.tiles, spec.rows])
    depth, (quad, byte) = taps[:3], taps[3:]
    schedule.reorder(block, line, tile, *depth, pixel, vector, lane, quad, byte)
    schedule.reverse_compute_at(copy, tile, preserve_unit_loops=True)
    _end_tile(schedule, spec, y, tile)
    init = schedule.decompose_reduction(acc, depth[0])
    schedule.tensorize(schedule.get_loops(init)[-3], clear)
    schedule.tensorize(pixel, multiply)
    schedule.tensorize(schedule.get_loops(copy)[-3], store)


def _by_rows(schedule: Any, spec: Products) -> None:
    """As by vectors, with sums in an order of their own until the taps are through."""
    acc, y = schedule.get_sblock("acc"), schedule.get_sblock("y")
    multiply, order = row(spec.taps[1])
    copy = schedule.cache_write(acc, 0, "global")
    line, block, pixels, vector, lane, tap_row, tap_column = schedule.get_loops(acc)
    tile, pixel = schedule.split(pixels, [spec.tiles, spec.rows])
    schedule.reorder(block, line, tile, tap_row, pixel, vector, lane, tap_column)
    schedule.reverse_compute_at(copy, tile, preserve_unit_loops=True)
    _end_tile(schedule, spec, y, tile)
    if spec.taps[0] * len(row_pairs(spec.taps[1])) <= _MOST_UNROLLED:
        schedule.unroll(tap_row)
    _unroll(schedule, pixel, vector)
    init = schedule.decompose_reduction(acc, tap_row)
    *_, pixel0, vector0, lane0 = schedule.get_loops(init)
    _unroll(schedule, pixel0, vector0)
    schedule.vectorize(lane0)
    schedule.tensorize(lane, multiply)
    *_, pixel1, vector1, lane1 = schedule.get_loops(copy)
    _unroll(schedule, pixel1, vector1)
    schedule.tensorize(lane1, order)


def _end_tile(schedule: Any, spec: Products, y: Any, tile: Any) -> None:
    """Results of a block follow its sums."""
    schedule.reverse_compute_at(y, tile, preserve_unit_loops=True)
    *_, pixel, channel = schedule.get_loops(y)
    outer, inner = schedule.split(channel, [None, spec.ending])
    if spec.form.tiled:
        schedule.unroll(outer)
    else:
        _unroll(schedule, pixel, outer)
    schedule.vectorize(inner)


def _unroll(schedule: Any, *loops: Any) -> None:
    for loop in loops:
        schedule.unroll(loop)
