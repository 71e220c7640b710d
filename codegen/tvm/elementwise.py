"""Ops without products: pools, sums of two operands and tables, as TE computes over lines of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcomp.codegen.tvm.adapter import restrided, tvm
from qcomp.codegen.tvm.numbers import added, looked_up, stored
from qcomp.codegen.tvm.shares import power_of_two

#: Bytes, and integers, that are computed together.
_WIDEST, _SUMS = 64, 16


@dataclass(frozen=True)
class Windows:
    """A pool of `lines` lines of `pixels` pixels; strides as of `Products`. average: the mean, rounded by a multiplier
    for each pixel; else the greatest."""

    dtype: str
    average: bool
    lines: int
    pixels: int
    channels: int
    taps: tuple[int, int]
    x_strides: tuple[int, int, int, int]
    y_strides: tuple[int, int]

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("mult", "reals", "integers", "x", "y") if self.average else ("x", "y")


@dataclass(frozen=True)
class Pair:
    """Sums of two operands of the result's shape; strides: from line to line, of a, b and y."""

    dtype: str
    lines: int
    length: int
    strides: tuple[int, int, int]
    table: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("reals", "integers", *(("table",) if self.table else ()), "a", "b", "y")


@dataclass(frozen=True)
class Lookup:
    """A table of 256 entries applied to lines; strides: from line to line, of x and y."""

    dtype: str
    lines: int
    length: int
    strides: tuple[int, int]

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("table", "x", "y")


Computed = tuple[Any, dict[str, tuple[int, ...]]]
"""A PrimFunc over dense buffers, and the strides that these have."""


def pool(spec: Windows) -> Any:
    """The scheduled PrimFunc."""
    func, layouts = pooled(spec)
    schedule = tvm().s_tir.Schedule(func)
    block = schedule.get_sblock("acc" if spec.average else "y")
    line, pixel, channel, *taps = schedule.get_loops(block)
    outer, inner = schedule.split(channel, [None, power_of_two(spec.channels, _SUMS if spec.average else _WIDEST)])
    schedule.reorder(line, pixel, outer, *taps, inner)
    if spec.average:
        ending = schedule.get_sblock("y")
        schedule.reverse_compute_at(ending, outer, preserve_unit_loops=True)
        schedule.vectorize(schedule.get_loops(ending)[-1])
    schedule.vectorize(inner)
    schedule.decompose_reduction(block, taps[0])
    return restrided(schedule.mod["main"], layouts)


def pooled(spec: Windows, kind: str = "llvm") -> Computed:
    """Of x and y; for a mean, of mult f32[lines, pixels], reals (the bounds of a result) and integers (its zero point
    and that of the input times the taps) before them."""
    te = tvm().te
    x = te.placeholder((spec.lines, *spec.taps, spec.pixels, spec.channels), spec.dtype, "x")
    i, j = (te.reduce_axis((0, extent), name) for extent, name in zip(spec.taps, "ij", strict=True))
    shape = (spec.lines, spec.pixels, spec.channels)
    layouts = {"x": (*spec.x_strides, 1), "y": (*spec.y_strides, 1)}
    if not spec.average:
        y = te.compute(shape, lambda line, pixel, c: te.max(x[line, i, j, pixel, c], axis=[i, j]), name="y")
        return te.create_prim_func([x, y]), layouts
    mult = te.placeholder((spec.lines, spec.pixels), "float32", "mult")
    reals, integers = te.placeholder((2,), "float32", "reals"), te.placeholder((2,), "int32", "integers")
    acc = te.compute(
        shape, lambda line, pixel, c: te.sum(x[line, i, j, pixel, c].astype("int32"), axis=[i, j]), name="acc"
    )

    def mean(line: Any, pixel: Any, c: Any) -> Any:
        real = (acc[line, pixel, c] - integers[1]).astype("float32") * mult[line, pixel]
        return stored(real, reals[0], reals[1], integers[0], spec.dtype)

    return te.create_prim_func([mult, reals, integers, x, te.compute(shape, mean, name="y")]), layouts


def add(spec: Pair) -> Any:
    """The scheduled PrimFunc."""
    func, layouts = total(spec)
    return restrided(_vectorized(func, spec.length, _SUMS), layouts)


def total(spec: Pair, kind: str = "llvm") -> Computed:
    """Of reals (the factors of a and b, the zero point of uint8, the bounds in its terms), integers (the zero points of
    a and b, and what is added to get the stored byte), the table if there is one, a, b and y."""
    te = tvm().te
    shape = (spec.lines, spec.length)
    reals, integers = te.placeholder((5,), "float32", "reals"), te.placeholder((3,), "int32", "integers")
    a, b = (te.placeholder(shape, spec.dtype, name) for name in "ab")
    table = te.placeholder((256,), spec.dtype, "table")

    def result(*at: Any) -> Any:
        left, right = (
            (x[at].astype("int32") - integers[i]).astype("float32") * reals[i] for i, x in enumerate((a, b))
        )
        byte = stored(added(left, right, kind) + reals[2], reals[3], reals[4], integers[2], spec.dtype)
        return looked_up(byte, table, spec.dtype) if spec.table else byte

    y = te.compute(shape, result, name="y")
    given = {"reals": reals, "integers": integers, "table": table, "a": a, "b": b, "y": y}
    layouts = _lines("aby", spec.strides)
    return te.create_prim_func([given[name] for name in spec.parameters]), layouts


def look_up(spec: Lookup) -> Any:
    """The scheduled PrimFunc."""
    func, layouts = looked_up_lines(spec)
    return restrided(_vectorized(func, spec.length, 1), layouts)


def looked_up_lines(spec: Lookup, kind: str = "llvm") -> Computed:
    """Of table[256], which is in the order of stored bytes, signed ones from -128 on, x and y."""
    te = tvm().te
    shape = (spec.lines, spec.length)
    table, x = te.placeholder((256,), spec.dtype, "table"), te.placeholder(shape, spec.dtype, "x")
    y = te.compute(shape, lambda *at: looked_up(x[at], table, spec.dtype), name="y")
    layouts = _lines("xy", spec.strides)
    return te.create_prim_func([table, x, y]), layouts


def _lines(names: str, strides: Sequence[int]) -> dict[str, tuple[int, ...]]:
    return {name: (stride, 1) for name, stride in zip(names, strides, strict=True)}


def _vectorized(func: Any, length: int, lanes: int) -> Any:
    schedule = tvm().s_tir.Schedule(func)
    *_, element = schedule.get_loops(schedule.get_sblock("y"))
    vector = power_of_two(length, lanes)
    if vector > 1:
        _, inner = schedule.split(element, [None, vector])
        schedule.vectorize(inner)
    return schedule.mod["main"]
