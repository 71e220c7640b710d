"""How vectors of accumulators become results in memory: what all ARM kernels of products end with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from qcomp.codegen.c.arm.lanes import load, stores
from qcomp.codegen.c.arm.render import render
from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.packing import accumulator_reach
from qcomp.codegen.c.vector.shapes import Float32, Int8, Int32, Residual

#: Added to a float32 below 2**22 it rounds to the nearest integer, half to even, whose low bits are those of the sum.
_ROUNDING = 1.5 * 2.0**23
_NEAR = 32000.0


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

    def form(self, most: float) -> Form:
        """The code for it, if results before they are rounded are at most `most` in magnitude."""
        near = self.kind == "i8" and most < _NEAR  # not where it is NaN
        clamped = self.kind == "i16" or (self.kind == "i8" and (self.lo > -128 or self.hi < 127))
        return Form(
            self.kind, self.table is not None, self.residual is not None, clamped, near, near and self.zp % 2 == 0
        )

    def product_form(self, weights: Int8, bias: Int32, mult: Float32, x_zp: int) -> Form:
        """The code for accumulators bias + sum((x - x_zp) * weights), by channel, times `mult`."""
        reach = accumulator_reach(weights, bias, x_zp + 128)  # it takes bytes as unsigned
        added = 0.0 if self.residual is None else 256.0 * abs(self.residual.mult)
        return self.form(float(np.max(reach * np.abs(mult.astype(np.float64)), initial=0.0)) + added)

    def values(self, form: Form, whole: int) -> dict[str, object]:
        """Fields of a qc_neon_rq, without the table; whole: bytes of a run without its rest."""
        r_zp, r_mult = (0, 0.0) if self.residual is None else (self.residual.zp, self.residual.mult)
        return {
            "whole": whole, **self.limits(form), "r_zp": r_zp, "r_mult": float_literal(r_mult),
        }  # fmt: skip

    def limits(self, form: Form) -> dict[str, object]:
        """Fields that results are rounded and clamped with."""
        return {
            "zp": self.zp, "lo": self.lo, "hi": self.hi,
            "rounding": float_literal(_ROUNDING + (self.zp if form.even else 0)),
        }  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Accumulators, vectors of four channels, that become whole vectors of results.

    rows: pixels of the tile, each with its share of the accumulators, in order; or, `paired`, two pixels (the second
    may be missing) whose channels alternate by twos.  scales: vectors of multipliers, in the same order."""

    accumulators: tuple[str, ...]
    scales: tuple[str, ...]
    rows: tuple[int, ...]
    paired: bool = False


@dataclass(frozen=True)
class Form:
    """The code of an ending.  near: results fit into int16 before they are clamped; even: and the zero point, which is
    even then, joins them before they are rounded."""

    kind: str
    table: bool
    residual: bool
    clamped: bool
    near: bool
    even: bool

    @property
    def suffix(self) -> str:
        flags = (
            ("t", self.table), ("r", self.residual), ("c", self.clamped and self.kind == "i8"), ("n", self.near),
            ("e", self.even),
        )  # fmt: skip
        return self.kind + "".join(f"_{text}" for text, given in flags if given)

    @property
    def ctype(self) -> str:
        return {"i8": "int8_t", "i16": "int16_t", "f32": "float"}[self.kind]

    @property
    def _size(self) -> int:
        return {"i8": 1, "i16": 2, "f32": 4}[self.kind]

    def shared(self) -> list[str]:
        """Statements before all groups of a tile; `q` points to a qc_neon_rq."""
        lines = []
        if self.near:
            lines.append("const float32x4_t rounding = vdupq_n_f32(q->rounding);")
        if self.kind != "f32" and not self.even:
            lines.append("const int16x8_t zp = vdupq_n_s16(q->zp);")
        if self.clamped:
            bits, lanes = (8, 16) if self.kind == "i8" else (16, 8)
            for name in ("lo", "hi"):
                lines.append(f"const int{bits}x{lanes}_t {name} = vdupq_n_s{bits}((int{bits}_t)q->{name});")
        if self.residual:
            lines.append("const int8x8_t r_zp = vdup_n_s8(q->r_zp);")
            lines.append("const float32x4_t r_mult = vdupq_n_f32(q->r_mult);")
        return lines

    def statements(
        self, groups: Sequence[Group], channels: int, y: Sequence[str], r: Sequence[str] = ()
    ) -> list[str]:
        """The results of the groups, `channels` of a pixel, to memory.

        y, r: addresses of pixels' results and of what is added to them."""
        lines, vectors = [], []
        for index, group in enumerate(groups):
            found, names = self._results(index, group, channels, r)
            lines += found
            vectors.append(names)
        if self.table:
            lines += look_ups([name for names in vectors for name in names])
            vectors = [[f"l_{name}" for name in names] for names in vectors]
        for group, names in zip(groups, vectors, strict=True):
            share = (16 if group.paired else 4 * self._size) * len(names if group.paired else group.accumulators)
            share //= len(group.rows)
            for row, m in enumerate(group.rows):
                address = y[m] if self._size == 1 else f"(int8_t*)({y[m]})"
                lines += self._stored(address, names, row * share, channels * self._size)
        return lines

    def _stored(self, address: str, names: Sequence[str], start: int, count: int) -> list[str]:
        """Bytes of the vectors from byte `start` of the first on."""
        lines, done = [], 0
        while done < count:
            vector, at = divmod(start + done, 16)
            part = min(16 - at, count - done)
            lines += stores(f"{address} + {done}" if done else address, names[vector], part, at)
            done += part
        return lines

    def _results(self, g: int, group: Group, channels: int, r: Sequence[str]) -> tuple[list[str], list[str]]:
        """Statements that make int8x16_t vectors of a group's results, and their names; rows have equal shares."""
        lines = [
            f"{'' if self.residual else 'const '}float32x4_t f{g}_{i} = vmulq_f32(vcvtq_f32_s32({name}), {scale});"
            for i, (name, scale) in enumerate(zip(group.accumulators, group.scales, strict=True))
        ]
        if self.residual:
            lines += self._added(g, group, channels, r)
        found, names = self.packed(g, group)
        return lines + found, names

    def packed(self, g: int, group: Group) -> tuple[list[str], list[str]]:
        """Statements that make int8x16_t vectors of the group's real results f{g}_0, f{g}_1, ..., and their names."""
        count, lines = len(group.accumulators), list[str]()
        if self.kind == "f32":
            names = [f"f{g}_{i}" for i in range(count)]
            return self._rows(lines, g, names, group, "f32", 64)
        halves = []
        for u in range(-(-count // 2)):
            first, second = f"f{g}_{2 * u}", f"f{g}_{min(2 * u + 1, count - 1)}"
            halves.append(f"h{g}_{u}")
            lines.append(f"{'const ' if self.kind == 'i8' else ''}int16x8_t h{g}_{u} = {self._halves(first, second)};")
        if self.kind == "i16":
            lines += [f"{name} = vminq_s16(vmaxq_s16({name}, lo), hi);" for name in halves]
            return self._rows(lines, g, halves, group, "s16", 32)
        names = []
        for w in range(-(-len(halves) // 2)):
            first, second = halves[2 * w], halves[min(2 * w + 1, len(halves) - 1)]
            names.append(f"b{g}_{w}")
            narrowed = f"vqmovn_high_s16(vqmovn_s16({first}), {second})"
            if self.clamped:
                narrowed = f"vminq_s8(vmaxq_s8({narrowed}, lo), hi)"
            lines.append(f"const int8x16_t b{g}_{w} = {narrowed};")
        return self._rows(lines, g, names, group, "s8", 16)

    def _halves(self, first: str, second: str) -> str:
        """Eight results as int16, with the zero point."""
        if self.near:  # the low halves of the sums
            low = [f"vreinterpretq_s16_f32(vaddq_f32({name}, rounding))" for name in (first, second)]
            halves = f"vuzp1q_s16({low[0]}, {low[1]})"
            return halves if self.even else f"vaddq_s16({halves}, zp)"
        low = [f"vcvtnq_s32_f32({name})" for name in (first, second)]
        if self.kind == "i16":
            low = [f"vqaddq_s32({name}, vmovl_s16(vget_low_s16(zp)))" for name in low]
        halves = f"vqmovn_high_s32(vqmovn_s32({low[0]}), {low[1]})"
        # Saturated to int16 first: what is beyond stays beyond with any zero point.
        return halves if self.kind == "i16" else f"vqaddq_s16({halves}, zp)"

    def _rows(
        self, lines: list[str], g: int, names: list[str], group: Group, kind: str, bits: int
    ) -> tuple[list[str], list[str]]:
        """Vectors as bytes; of paired groups, whose rows alternate by `bits`, one row's after the other's."""
        if not group.paired:
            found = []
            for i, name in enumerate(names):
                if kind == "s8":
                    found.append(name)
                else:
                    lines.append(f"const int8x16_t p{g}_{i} = vreinterpretq_s8_{kind}({name});")
                    found.append(f"p{g}_{i}")
            return lines, found
        found = []
        for row in range(len(group.rows)):
            for i in range(0, len(names), 2):
                pair = (names[i], names[min(i + 1, len(names) - 1)])
                first, second = (n if bits == 8 else f"vreinterpretq_s{bits}_{kind}({n})" for n in pair)
                found.append(f"p{g}_{row}_{i // 2}")
                joined = f"vuzp{row + 1}q_s{bits}({first}, {second})"
                lines.append(f"const int8x16_t {found[-1]} = vreinterpretq_s8_s{bits}({joined});")
        return lines, found

    def _added(self, g: int, group: Group, channels: int, r: Sequence[str]) -> list[str]:
        """The residual's share of a group, in the order of its accumulators."""
        count = len(group.accumulators)
        if group.paired:
            rows = [load(r[m], channels) for m in group.rows]
            lines = [f"const int8x16_t r{g}_row{i} = {text};" for i, text in enumerate(rows)]
            pair = [f"vreinterpretq_s16_s8(r{g}_row{min(i, len(rows) - 1)})" for i in range(2)]
            zips = [f"vreinterpretq_s8_s16(vzip{i + 1}q_s16({pair[0]}, {pair[1]}))" for i in range(-(-count // 4))]
            lines += [f"const int8x16_t r{g}_{i} = {text};" for i, text in enumerate(zips)]
        else:
            share = 4 * count // len(group.rows)
            text = "vdupq_n_s8(0)"
            for row, m in enumerate(group.rows):
                text = load(r[m], channels, text, row * share)
            lines = [f"const int8x16_t r{g}_0 = {text};"]
        for u in range(-(-count // 2)):
            half = f"vget_{'low' if u % 2 == 0 else 'high'}_s8(r{g}_{u // 2})"
            lines.append(f"const int16x8_t r{g}_h{u} = vsubl_s8({half}, r_zp);")
        for i in range(count):
            words = f"vmovl_s16(vget_low_s16(r{g}_h{i // 2}))" if i % 2 == 0 else f"vmovl_high_s16(r{g}_h{i // 2})"
            lines.append(f"f{g}_{i} = vaddq_f32(f{g}_{i}, vmulq_f32(vcvtq_f32_s32({words}), r_mult));")
        return lines


def look_ups(names: Sequence[str]) -> list[str]:
    """Vectors l_NAME of what the table of 256 bytes at q->table has for those of the vectors, a quarter of it at a
    time."""
    lines = [f"const uint8x16_t i_{name} = vreinterpretq_u8_s8({name});" for name in names]
    for quarter in range(4):
        table = f"table{quarter}"
        lines.append(f"const uint8x16x4_t {table} = qc_neon_quarter(q->table + {64 * quarter});")
        for name in names:
            index = f"i_{name}" if quarter == 0 else f"vsubq_u8(i_{name}, vdupq_n_u8({64 * quarter}))"
            found = f"vqtbl4q_u8({table}, {index})" if quarter == 0 else f"vqtbx4q_u8(t_{name}, {table}, {index})"
            lines.append(f"{'uint8x16_t ' if quarter == 0 else ''}t_{name} = {found};")
    return [*lines, *(f"const int8x16_t l_{name} = vreinterpretq_s8_u8(t_{name});" for name in names)]


@cache
def types_helper() -> CFunction:
    return CFunction("qc_neon_rq", render("types.c.j2"))
