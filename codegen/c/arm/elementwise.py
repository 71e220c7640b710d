"""qadd, qmul, tables, quantize and dequantize of int8, sixteen elements at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from qcomp.codegen.c.arm.ending import Ending, Form, Group, look_ups, types_helper
from qcomp.codegen.c.arm.render import render
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.walk import walk
from qcomp.codegen.plan.buffer import Buffer

_GROUP = Group(tuple(f"f0_{i}" for i in range(4)), (), (0,))
#: Channels of planar images that are interleaved while they are quantized.
MOST_PLANES = 4


@dataclass(frozen=True)
class Operand:
    """An int8 input; its elements less `zp` are multiplied by `mult`, a float32 value."""

    zp: int
    mult: float = 0.0


@dataclass(frozen=True)
class Row:
    """A C function of n elements: its text follows from what is here, its parameters are at run time.

    inputs: C types of its operands' elements by name; lines: sixteen results `p` from vectors or arrays of inputs."""

    name: str
    inputs: Mapping[str, str]
    ctype: str
    lines: tuple[str, ...]
    prologue: tuple[str, ...] = field(default=())

    def function(self) -> CFunction:
        return CFunction(self.name, render("row.c.j2", row=self))


@cache
def scalars_helper() -> CFunction:
    """Parameters of an elementwise node, and loads and stores of less than a vector."""
    return CFunction("qc_neon_scalars", render("scalars.c.j2"))


def _row_code(
    row: Row, buffers: Sequence[Buffer], ctypes: Sequence[str], scalars: Mapping[str, object], symbol: str, kernel: str,
    table: tuple[int, ...] | None = None, fixed: Mapping[int, np.ndarray] | None = None,
) -> KernelCode:  # fmt: skip
    """A node that calls a row; `fixed` holds operands (by index) that are constants."""
    fixed = fixed or {}
    steps, operands = walk(buffers, ctypes)
    order = [*(i for i in range(len(buffers)) if i not in fixed), *fixed]
    constants = [*fixed.values(), *((np.array(table, np.uint8),) if table else ())]
    text = render(
        "rows.c.j2", symbol=symbol, function=row.name, walk=steps, operands=operands, scalars=scalars,
        slots=[order.index(i) for i in range(len(buffers))], table=len(buffers) if table else None,
    )  # fmt: skip
    helpers = (types_helper(), scalars_helper(), row.function())
    return KernelCode(helpers, text, steps.tasks, tuple(constants), f"neon {kernel}")


def _words(name: str) -> list[str]:
    """Statements that make two int16x8_t vectors of an operand less its zero point."""
    return [
        f"const int16x8_t {name}_0 = vsubl_s8(vget_low_s8({name}), vdup_n_s8(q->{name}_zp));",
        f"const int16x8_t {name}_1 = vsubl_high_s8({name}, vdupq_n_s8(q->{name}_zp));",
    ]


def _reals(name: str) -> list[str]:
    """Float32 expressions of the four quarters of the vectors of `_words`, times the operand's multiplier."""
    halves = [
        text.format(word=f"{name}_{h}")
        for h in range(2)
        for text in ("vmovl_s16(vget_low_s16({word}))", "vmovl_high_s16({word})")
    ]
    return [f"vmulq_f32(vcvtq_f32_s32({half}), vdupq_n_f32(q->{name}_mult))" for half in halves]


def _results(form: Form) -> tuple[str, ...]:
    """Statements that make `p` of the real results f0_0 ... f0_3."""
    lines, (name,) = form.packed(0, _GROUP)
    if form.table:
        lines += look_ups([name])
        name = f"l_{name}"
    return (*lines, f"const int8x16_t p = {name};")


def _binary(op: str, form: Form, lines: Sequence[str]) -> Row:
    inputs = {"a": "int8_t", "b": "int8_t"}
    whole = (*_words("a"), *_words("b"), *lines, *_results(form))
    return Row(f"qc_neon_{op}_{form.suffix}", inputs, "int8_t", whole, tuple(form.shared()))


def add_code(
    a: Operand, b: Operand, ending: Ending, buffers: Sequence[Buffer], symbol: str, fixed: Mapping[int, np.ndarray]
) -> KernelCode:
    """C of qadd of buffers that `walk.can_walk` accepts; the zero point, as that of uint8, joins before rounding."""
    zero = float(ending.zp + 128)
    inside = Ending("i8", -128, ending.lo, ending.hi, ending.table)
    form = inside.form(255.0 * (abs(a.mult) + abs(b.mult)) + abs(zero))
    lines = [
        f"const float32x4_t f0_{i} = vaddq_f32(vaddq_f32({left}, {right}), vdupq_n_f32(q->zero));"
        for i, (left, right) in enumerate(zip(_reals("a"), _reals("b"), strict=True))
    ]
    scalars = _scalars(a, b) | inside.limits(form) | {"zero": float_literal(zero)}
    row = _binary("add", form, lines)
    return _row_code(row, buffers, ("int8_t",) * 3, scalars, symbol, "add", ending.table, fixed)


def mul_code(
    a: Operand, b: Operand, ending: Ending, buffers: Sequence[Buffer], symbol: str, fixed: Mapping[int, np.ndarray]
) -> KernelCode:
    """C of qmul; the operands' multipliers are the product's."""
    form = ending.form(255.0 * 255.0 * abs(a.mult))
    products = [
        text.format(h=h)
        for h in range(2)
        for text in ("vmull_s16(vget_low_s16(a_{h}), vget_low_s16(b_{h}))", "vmull_high_s16(a_{h}, b_{h})")
    ]
    lines = [
        f"const float32x4_t f0_{i} = vmulq_f32(vcvtq_f32_s32({product}), vdupq_n_f32(q->a_mult));"
        for i, product in enumerate(products)
    ]
    scalars = _scalars(a, b) | ending.limits(form)
    row = _binary("mul", form, lines)
    return _row_code(row, buffers, ("int8_t",) * 3, scalars, symbol, "mul", ending.table, fixed)


def _scalars(a: Operand, b: Operand) -> dict[str, object]:
    return {
        "a_zp": a.zp, "b_zp": b.zp, "a_mult": float_literal(a.mult), "b_mult": float_literal(b.mult),
    }  # fmt: skip


def table_code(table: tuple[int, ...], buffers: Sequence[Buffer], symbol: str) -> KernelCode:
    """C of a 256-entry table, as uint8 by stored byte."""
    row = Row("qc_neon_map", {"a": "int8_t"}, "int8_t", (*look_ups(["a"]), "const int8x16_t p = l_a;"))
    return _row_code(row, buffers, ("int8_t",) * 2, {}, symbol, "table", table)


def _quantized(values: str) -> tuple[str, ...]:
    """Statements for `p` from four vectors of floats: one true division each; NaN becomes the zero point."""
    form = Ending("i8", 0, -128, 127).form(np.inf)
    reals = [f"const float32x4_t f0_{i} = vdivq_f32({values.format(i=i)}, vdupq_n_f32(q->a_mult));" for i in range(4)]
    return (*reals, *_results(form))


def quantize_code(scale: float, zp: int, buffers: Sequence[Buffer], symbol: str) -> KernelCode:
    """C of quantize f32 -> i8 with a scale (float32) and zero point of the tensor."""
    prologue = tuple(Ending("i8", 0, -128, 127).form(np.inf).shared())
    row = Row("qc_neon_quantize", {"a": "float"}, "int8_t", _quantized("a.val[{i}]"), prologue)
    scalars = {"a_mult": float_literal(scale), "zp": zp}
    return _row_code(row, buffers, ("float", "int8_t"), scalars, symbol, "quantize")


def dequantize_code(scale: float, zp: int, buffers: Sequence[Buffer], symbol: str) -> KernelCode:
    """C of dequantize i8 -> f32 with a scale (float32) and zero point of the tensor."""
    lines = (*_words("a"), f"const float32x4x4_t p = {{{{ {', '.join(_reals('a'))} }}}};")
    row = Row("qc_neon_dequantize", {"a": "int8_t"}, "float", lines)
    scalars = {"a_zp": zp, "a_mult": float_literal(scale)}
    return _row_code(row, buffers, ("int8_t", "float"), scalars, symbol, "dequantize")


def quantize_planes_code(scale: float, zp: int, x: Buffer, y: Buffer, symbol: str) -> KernelCode:
    """C of quantize and transpose(0, 2, 3, 1): x f32 [N, C, H, W], y i8 [N, H, W, C] with any halo, C at most
    MOST_PLANES."""
    batch, height, width, channels = y.shape
    flat = x.dense and y.dense
    rows, length = (batch, height * width) if flat else (batch * height, width)
    parts = split(rows, length * channels)
    prologue = Ending("i8", 0, -128, 127).form(np.inf).shared()
    name = f"qc_neon_quantize_planes{channels}"
    lines = _quantized("a.val[{i}]")
    helper = CFunction(
        name, render("quantize_planes.c.j2", name=name, channels=channels, prologue=prologue, lines=lines)
    )
    text = render(
        "planes.c.j2", symbol=symbol, function=name, scalars={"a_mult": float_literal(scale), "zp": zp}, parts=parts,
        per_image=rows // batch, length=length, plane=x.strides[1], x_image=x.strides[0], x_row=x.strides[2],
        y_image=y.strides[0], y_row=y.strides[1],
    )  # fmt: skip
    return KernelCode((types_helper(), scalars_helper(), helper), text, parts.count, (), "neon quantize nchw")
