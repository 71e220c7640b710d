"""qadd, qmul, table, quantize and dequantize, a vector of bytes a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.walk import walk
from qcomp.codegen.c.x86.epilogue import widen_helper
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import merge_helpers, render
from qcomp.codegen.plan.buffer import Buffer

_PACK = "qc_x86_round_pack(s0, s1, s2, s3, q)"


@cache
def scalars_helper(isa: Isa) -> tuple[CFunction, ...]:
    """Parameters of an elementwise node, and what all rows share."""
    return *isa.helpers, widen_helper(isa), CFunction("qc_x86_scalars", render("elementwise.c.j2", V=isa))


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


def row_code(
    isa: Isa,
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
    constants = [*fixed.values(), *((isa.packed_table(table),) if table else ())]
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
    return KernelCode(merge_helpers(scalars_helper(isa), function), text, steps.tasks, tuple(constants), kernel)


def _bytes_row(
    isa: Isa, name: str, note: str, inputs: tuple[str, ...], value: str, table: bool
) -> tuple[CFunction, ...]:
    """A row function over bytes whose result `value` (after the text of its body, if any) may go through a table."""
    helpers = scalars_helper(isa)
    full = f"qc_x86_{name}"
    if table:
        helpers += (isa.table_helper,)
        value, full = f"{isa.table_name}({value}, q->table)", f"{full}_t{isa.table_form}"
    text = render(
        "row_bytes.c.j2",
        V=isa,
        name=full,
        note=note,
        inputs=inputs,
        body=render(f"body_{name}.c.j2", V=isa) if len(inputs) > 1 else "",
        value=value,
        whole=_call(f"{full}_{isa.bytes}", [isa.load(i) for i in inputs]),
        part=_call(f"{full}_{isa.bytes}", [isa.load_first(i, "n") for i in inputs]),
    )
    return (*helpers, CFunction(full, text))


def _call(function: str, arguments: Sequence[str]) -> str:
    return f"{function}({', '.join(arguments)}, q)"


def add_code(
    a: Buffer,
    b: Buffer,
    y: Buffer,
    scalars: Scalars,
    table: tuple[int, ...] | None,
    isa: Isa,
    symbol: str,
    fixed: Mapping[int, np.ndarray] | None = None,
) -> KernelCode:
    """C of qadd on stored u8; shapes must satisfy `walk.can_walk`; an input may share y's memory.

    fixed: stored values of operand 0 or 1 where it is a constant."""
    row = _bytes_row(isa, "add", "Sum", ("a", "b"), _PACK, table is not None)
    return row_code(isa, row, (a, b, y), ("uint8_t",) * 3, scalars, symbol, f"{isa.name} add", table, fixed)


def mul_code(
    a: Buffer,
    b: Buffer,
    y: Buffer,
    scalars: Scalars,
    table: tuple[int, ...] | None,
    isa: Isa,
    symbol: str,
    fixed: Mapping[int, np.ndarray] | None = None,
) -> KernelCode:
    """C of qmul on stored u8: the product of two bytes is exact in float32, so it is rounded by `a_mult` alone."""
    row = _bytes_row(isa, "mul", "Product", ("a", "b"), _PACK, table is not None)
    return row_code(isa, row, (a, b, y), ("uint8_t",) * 3, scalars, symbol, f"{isa.name} mul", table, fixed)


def table_code(x: Buffer, y: Buffer, table: tuple[int, ...], isa: Isa, symbol: str) -> KernelCode:
    """C of a 256-entry table on stored u8; `table` maps stored to stored values."""
    row = _bytes_row(isa, "map", "Table lookup", ("x",), "x", True)
    return row_code(isa, row, (x, y), ("uint8_t",) * 2, Scalars(), symbol, f"{isa.name} table", table)


def quantize_code(x: Buffer, y: Buffer, scale: float, zp: int, isa: Isa, symbol: str) -> KernelCode:
    """C of quantize f32 -> u8 with a per-tensor scale (float32) and stored zero point."""
    row = CFunction("qc_x86_quantize", render(f"row_quantize_{isa.bits}.c.j2", V=isa, name="qc_x86_quantize"))
    scalars = Scalars(a_mult=scale, zp=zp)
    return row_code(isa, (row,), (x, y), ("float", "uint8_t"), scalars, symbol, f"{isa.name} quantize")


def dequantize_code(x: Buffer, y: Buffer, scale: float, zp: int, isa: Isa, symbol: str) -> KernelCode:
    """C of dequantize u8 -> f32 with a per-tensor scale (float32) and stored zero point."""
    row = CFunction("qc_x86_dequantize", render(f"row_dequantize_{isa.bits}.c.j2", V=isa, name="qc_x86_dequantize"))
    scalars = Scalars(a_mult=scale, zp=zp)
    return row_code(isa, (row,), (x, y), ("uint8_t", "float"), scalars, symbol, f"{isa.name} dequantize")
