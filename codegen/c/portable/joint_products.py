"""Integer products of computed tensors: qmatmul and qattention."""

from __future__ import annotations

import math

import numpy as np

from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import ROUND, Operands, Source, render, rounded
from qcomp.codegen.c.portable.fixed_math import helpers_for
from qcomp.codegen.c.portable.nest import broadcast_strides, flat_index, sum_of, term
from qcomp.codegen.c.portable.products import BLOCK
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node
from qcomp.ir.ops.attention import TOP
from qcomp.targets import Target

_WORD = 4  # bytes of a score or a sum


def stored_result(node: Node, result: Source, real: str) -> tuple[str, tuple[CFunction, ...]]:
    """C of what a product stores, from the C of the float32 that rounding starts from, and the helpers it needs."""
    if node.call.dtype("dtype") is DType.F32:
        return real, ()
    zp, lo, hi = (node.call.int(name) for name in ("zp", "lo", "hi"))
    return f"({result.ctype})({rounded(real, zp, lo, hi, result.shift)})", (ROUND,)


class QMatMul(Kernel):
    """k in order, vectors across the columns of the result."""

    name, op = "qmatmul", "qmatmul"

    def generate(self, request: KernelRequest) -> KernelCode:
        node, operands = request.node, Operands(request)
        a, b, y = operands.source(0), operands.source(1), operands.result()
        rank, (depth, columns) = len(y.shape), b.shape[-2:]
        lead = y.shape[:-1]
        store, helpers = stored_result(node, y, f"(float)acc[j] * {float_literal(node.call.float('mult'))}")
        parts = split(math.prod(lead), depth * columns / 4)
        b_rows = (*broadcast_strides(b, rank)[:-2], 0)
        text = render(
            "qmatmul.c.j2",
            symbol=request.symbol, a=a, b=b, y=y, parts=parts, block=BLOCK, depth=depth, columns=columns, store=store,
            a_row=flat_index("row", lead, broadcast_strides(a, rank)[:-1]), b_row=flat_index("row", lead, b_rows),
            y_row=flat_index("row", lead, y.strides[:-1]), a_step=a.strides[-1], b_step=b.strides[-2],
            b_column=b.strides[-1], y_column=y.strides[-1],
            zeros=[node.call.int(f"{n}_zp") + s.shift for n, s in (("a", a), ("b", b))],
        )  # fmt: skip
        return KernelCode(helpers, text, parts.count, tuple(operands.constants), "portable_qmatmul")


def _stack_bytes(target: Target) -> int:
    """What scores, or sums, of a row may take of the stack: little where that shares a known memory."""
    return 512 if target.memories else 32 * 1024


def _kept_scores(keys: int, target: Target) -> int:
    """All of a row, or a block of as many as fit."""
    most = _stack_bytes(target) // _WORD
    return keys if keys <= most else min(most, 256)


class QAttention(Kernel):
    """One query of one head at a time: its scores, their exponentials, the weighted sum of values."""

    name, op = "qattention", "qattention"

    def supports(self, node: Node, target: Target) -> bool:
        return node.output.shape[3] * _WORD <= _stack_bytes(target)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call, operands = request.node, request.node.call, Operands(request)
        q, k, v = (operands.source(i) for i in range(3))
        mask = operands.source(3) if operands.present(3) else None
        y = operands.result()
        batches, rows, heads, width = y.shape
        keys, depth = k.shape[1], k.shape[3]
        parts = split(batches * heads * rows, keys * (depth + width + 24) / 4)
        mask_strides = broadcast_strides(mask, 4) if mask is not None else (0, 0, 0, 0)
        store, helpers = stored_result(node, y, "(float)sum[d] * rate")
        text = render(
            "qattention.c.j2",
            symbol=request.symbol, q=q, k=k, v=v, mask=mask, y=y, at=_offset, parts=parts, store=store,
            rows=rows, heads=heads, keys=keys, kept=_kept_scores(keys, request.target), depth=depth, width=width,
            lowest=float_literal(-np.inf),
            zeros=[call.int(f"{n}_zp") + s.shift for n, s in zip("qkv", (q, k, v), strict=True)],
            scale=float_literal(call.float("scale")), mult=float_literal(call.float("mult")),
            most=float_literal(TOP), mask_step=mask_strides[3],
            mask_at=sum_of([term(n, s) for n, s in zip(("batch", "head", "position"), mask_strides, strict=False)]),
        )  # fmt: skip
        return KernelCode(
            (*helpers, *helpers_for(text)), text, parts.count, tuple(operands.constants), "portable_qattention"
        )


def _offset(source: Source, *variables: str) -> str:
    """C offset of the element whose first indices are the variables, "" standing for 0."""
    return sum_of([term(v, s) for v, s in zip(variables, source.strides, strict=False) if v])


JOINT_PRODUCTS: tuple[Kernel, ...] = (QMatMul(), QAttention())
