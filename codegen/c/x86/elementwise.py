"""qadd, qmul, table, quantize and dequantize, 64 bytes a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.x86.epilogue import table_helper
from qcomp.codegen.c.x86.render import merge_helpers, plain_helper, render
from qcomp.codegen.c.x86.walk import walk
from qcomp.codegen.plan.buffer import Buffer

SCALARS = plain_helper("qc_x86_scalars", "elementwise.c.j2")

_ADD = """  QC_X86_WIDEN(fa, a);
  QC_X86_WIDEN(fb, b);
  const __m512 ao = _mm512_set1_ps(q->a_offset), bo = _mm512_set1_ps(q->b_offset);
  const __m512 am = _mm512_set1_ps(q->a_mult), bm = _mm512_set1_ps(q->b_mult), zero = _mm512_set1_ps(q->zero);
""" + "".join(
    f"  const __m512 s{i} = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(_mm512_sub_ps(fa{i}, ao), am), "
    f"_mm512_mul_ps(_mm512_sub_ps(fb{i}, bo), bm)), zero);\n"
    for i in range(4)
)
_MUL = """  QC_X86_WIDEN(fa, a);
  QC_X86_WIDEN(fb, b);
  const __m512 ao = _mm512_set1_ps(q->a_offset), bo = _mm512_set1_ps(q->b_offset), am = _mm512_set1_ps(q->a_mult);
""" + "".join(
    f"  const __m512 s{i} = qc_x86_bound(_mm512_mul_ps(_mm512_mul_ps(_mm512_sub_ps(fa{i}, ao), "
    f"_mm512_sub_ps(fb{i}, bo)), am), q);\n"
    for i in range(4)
)
_PACK = "qc_x86_round_pack(s0, s1, s2, s3, q)"


@dataclass(frozen=True)
class Scalars:
    """Parameters of an elementwise node in stored (unsigned) terms; multipliers are float32 values.

    A sum adds `zero` before it rounds, and every op adds `zp` after it.
    """

    a_zp: int = 0
    b_zp: int = 0
    a_mult: float = 0.0
    b_mult: float = 0.0
    zp: int = 0
    lo: int = 0
    hi: int = 255
    zero: float = 0.0

    def values(self) -> dict[str, object]:
        return {
            "a_offset": float_literal(2.0**23 + self.a_zp),
            "b_offset": float_literal(2.0**23 + self.b_zp),
            "a_mult": float_literal(self.a_mult),
            "b_mult": float_literal(self.b_mult),
            "lo": float_literal(self.lo - self.zp),
            "hi": float_literal(self.hi - self.zp),
            "zero": float_literal(self.zero),
            "zp": self.zp,
            "lo8": self.lo,
            "hi8": self.hi,
        }


def _row_code(
    function: tuple[CFunction, ...],
    buffers: Sequence[Buffer],
    ctypes: Sequence[str],
    scalars: Scalars,
    symbol: str,
    kernel: str,
    table: tuple[int, ...] | None = None,
    fixed: Mapping[int, np.ndarray] | None = None,
) -> KernelCode:
    """A node that calls a row function; `fixed` holds operands (by index) that are constants."""
    fixed = fixed or {}
    steps, operands = walk(buffers, ctypes)
    moving = [i for i in range(len(buffers)) if i not in fixed]
    order = [*moving, *fixed]
    constants = [*fixed.values(), *((np.array(table, np.uint8),) if table else ())]
    text = render(
        "rows.c.j2",
        symbol=symbol,
        function=function[-1].name,
        walk=steps,
        operands=operands,
        slots=[order.index(i) for i in range(len(buffers))],
        table=f"(const uint8_t*)p[{len(buffers)}]" if table else "0",
        **scalars.values(),
    )
    return KernelCode(merge_helpers((SCALARS,), function), text, steps.tasks, tuple(constants), kernel)


def _bytes_row(
    name: str, note: str, inputs: tuple[str, ...], text: str, value: str, table: bool, vbmi: bool
) -> tuple[CFunction, ...]:
    """A row function over bytes whose result `value` (after `text`) goes through a table or not."""
    helpers: tuple[CFunction, ...] = (SCALARS,)
    full = f"qc_x86_{name}"
    if table:
        lookup = table_helper(vbmi)
        helpers += (lookup,)
        value, full = f"{lookup.name}({value}, q->table)", f"{full}_t{'vbmi' if vbmi else 'bw'}"
    body = f"{text}  return {value};"
    return (*helpers, CFunction(full, render("row_bytes.c.j2", name=full, note=note, inputs=inputs, body=body)))


def add_code(
    a: Buffer,
    b: Buffer,
    y: Buffer,
    scalars: Scalars,
    table: tuple[int, ...] | None,
    features: frozenset[str],
    symbol: str,
    fixed: Mapping[int, np.ndarray] | None = None,
) -> KernelCode:
    """C of qadd on stored u8; shapes must satisfy `walk.can_walk`; an input may share y's memory.

    fixed: stored values of operand 0 or 1 where it is a constant."""
    row = _bytes_row("add", "Sum", ("a", "b"), _ADD, _PACK, table is not None, "avx512vbmi" in features)
    return _row_code(row, (a, b, y), ("uint8_t",) * 3, scalars, symbol, "avx512 add", table, fixed)


def mul_code(
    a: Buffer,
    b: Buffer,
    y: Buffer,
    scalars: Scalars,
    table: tuple[int, ...] | None,
    features: frozenset[str],
    symbol: str,
    fixed: Mapping[int, np.ndarray] | None = None,
) -> KernelCode:
    """C of qmul on stored u8: the product of two bytes is exact in float32, so it is rounded by `a_mult` alone."""
    row = _bytes_row("mul", "Product", ("a", "b"), _MUL, _PACK, table is not None, "avx512vbmi" in features)
    return _row_code(row, (a, b, y), ("uint8_t",) * 3, scalars, symbol, "avx512 mul", table, fixed)


def table_code(x: Buffer, y: Buffer, table: tuple[int, ...], features: frozenset[str], symbol: str) -> KernelCode:
    """C of a 256-entry table on stored u8; `table` maps stored to stored values."""
    row = _bytes_row("map", "Table lookup", ("x",), "", "x", True, "avx512vbmi" in features)
    return _row_code(row, (x, y), ("uint8_t",) * 2, Scalars(), symbol, "avx512 table", table)


def quantize_code(x: Buffer, y: Buffer, scale: float, zp: int, symbol: str) -> KernelCode:
    """C of quantize f32 -> u8 with a per-tensor scale (float32) and stored zero point."""
    row = CFunction("qc_x86_quantize", render("row_quantize.c.j2", name="qc_x86_quantize"))
    scalars = Scalars(a_mult=scale, zp=zp)
    return _row_code((row,), (x, y), ("float", "uint8_t"), scalars, symbol, "avx512 quantize")


def dequantize_code(x: Buffer, y: Buffer, scale: float, zp: int, symbol: str) -> KernelCode:
    """C of dequantize u8 -> f32 with a per-tensor scale (float32) and stored zero point."""
    row = CFunction("qc_x86_dequantize", render("row_dequantize.c.j2", name="qc_x86_dequantize"))
    scalars = Scalars(a_mult=scale, zp=zp)
    return _row_code((row,), (x, y), ("uint8_t", "float"), scalars, symbol, "avx512 dequantize")
