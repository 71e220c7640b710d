"""Integer products of two computed tensors by vectors: one operand is packed on the stack of a task."""

from __future__ import annotations

import math
from functools import cache

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.nest import flat_index
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.x86.attention import (
    STACK_BYTES,
    arranged,
    block_of,
    column_calls,
    dwords,
    pack_values_helper,
    row_sums_helper,
    tile_rows,
    value_step,
)
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import merge_helpers, render
from qcomp.codegen.plan.buffer import Buffer


@cache
def column_sums_helper(isa: Isa) -> CFunction:
    """What sums start from, for the zero points of a product with packed columns."""
    products = [*isa.dot.weights(0, "wp"), *isa.dot.pixel(0, "&ones"), f"c0_0 = {isa.dot.product('c0_0', 0, 0)};"]
    text = render("column_sums.c.j2", V=isa, products=products, arranged=lambda x: arranged(isa, x))
    return CFunction("qc_x86_column_sums", text)


def matmul_fits(depth: int, columns: int) -> bool:
    """Whether a packed operand [depth, columns] fits on the stack."""
    return dwords(depth) * value_step(columns) + value_step(columns) <= STACK_BYTES


def matmul_code(
    a: Buffer, b: Buffer, y: Buffer, zero_points: tuple[int, int], mult: float, result: tuple[int, int, int] | None,
    isa: Isa, symbol: str,
) -> KernelCode:  # fmt: skip
    """C of qmatmul on stored u8: a [..., M, K], b [..., K, N], batches broadcast.

    zero_points: of a and b, logical int8; result: (zp, lo, hi) as stored, None for float32."""
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    lead = y.shape[:-2]
    batches = math.prod(lead)
    tallest = tile_rows(rows, isa)
    tiles = -(-rows // tallest)
    tiles_per_block = block_of(tiles, batches)
    blocks = -(-tiles // tiles_per_block)
    parts = split(batches * blocks, rows * columns * depth / 64 / blocks)
    helpers = [pack_values_helper(isa), row_sums_helper(isa), (column_sums_helper(isa),)]
    calls = {}
    for height in {tallest, rows % tallest} - {0}:
        calls[height], own = column_calls(isa, height, columns, result is None, started=True)
        helpers += own
    a_stored = zero_points[0] + 128
    zp, lo, hi = result or (0, 0, 0)
    bounds = f"{float_literal(lo - zp)}, {float_literal(hi - zp)}, {zp}, "
    text = render(
        "matmul.c.j2", symbol=symbol, ctype="float" if result is None else "uint8_t", parts=parts, blocks=blocks,
        rows=rows, depth=depth, columns=columns, groups=dwords(depth), value_step=value_step(columns),
        packed_bytes=dwords(depth) * value_step(columns), packed_columns=value_step(columns) // 4, tallest=tallest,
        shortest=rows % tallest, rows_per_block=tiles_per_block * tallest, calls=calls, mult=float_literal(mult),
        bounds="" if result is None else bounds, b_zp=zero_points[1], start_factor=-a_stored,
        start_base=depth * a_stored * zero_points[1], last_dword=(1 << 8 * (depth % 4)) - 1 if depth % 4 else -1,
        **{name: _place(x, lead, f"(item / {blocks})") for name, x in (("a", a), ("b", b), ("y", y))},
    )  # fmt: skip
    return KernelCode(merge_helpers(*helpers), text, parts.count, (), f"{isa.name} qmatmul")


def _place(buffer: Buffer, lead: tuple[int, ...], batch: str) -> dict[str, object]:
    """Where the matrix of a batch starts, in elements, and how far apart its rows are."""
    own = tuple(0 if size == 1 else s for size, s in zip(buffer.shape[:-2], buffer.strides, strict=False))
    strides = (0,) * (len(lead) - len(own)) + own
    return {"at": flat_index(batch, lead, strides), "step": buffer.strides[-2]}
