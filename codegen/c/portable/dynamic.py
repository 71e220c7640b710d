"""Quantization at run time, and products of what it gives."""

from __future__ import annotations

import math

import numpy as np

from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import ROUND, Operands, Source, render
from qcomp.codegen.c.portable.nest import flat_index
from qcomp.codegen.c.portable.products import constant_operands
from qcomp.codegen.c.portable.tasks import split
from qcomp.ir import DType, Node
from qcomp.targets import Target

#: The grid of a row and the row on it, with as many partial results as widest vectors have elements: the least and the
#: largest of finite numbers do not depend on the order.
QUANTIZE_ROW = CFunction("q_dynamic_grid", render("dynamic_grid.c.j2", lanes=16))


class DynamicQuantize(Kernel):
    """Of each row, or of the tensor as one row, the range, then the grid, then the elements on it."""

    name, op = "dynamic_quantize", "dynamic_quantize"

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        x, y, scale, zero = operands.source(0), *(operands.result(i) for i in range(3))
        per_row = request.node.call.bool("per_row")
        length = x.shape[-1] if per_row else math.prod(x.shape)
        parts = split(math.prod(x.shape[:-1]) if per_row else 1, length)
        text = render(
            "dynamic_quantize.c.j2",
            symbol=request.symbol, x=x.pointer, y=y, scale=scale.pointer, zero=zero, parts=parts, length=length,
            shift=_shift(y), zero_shift=_shift(zero),
        )  # fmt: skip
        return KernelCode(
            (ROUND, QUANTIZE_ROW), text, parts.count, tuple(operands.constants), "portable_dynamic_quantize"
        )


def _shift(result: Source) -> int:
    """What a stored element exceeds the uint8 of the formulas by: as int8 that is 128 less."""
    return result.shift - 128 if result.dtype is DType.I8 else 0


class DynamicQGemm(Kernel):
    """Rows of x times rows of w: dot products along k of the stored integers, then what zero points add."""

    name, op = "dynamic_qgemm", "dynamic_qgemm"

    def supports(self, node: Node, target: Target) -> bool:
        return constant_operands(node, (3, 4, 5, 6))

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        operands = Operands(request)
        x, scale, zero, result = (*(operands.source(i) for i in range(3)), operands.result())
        weights = node.input(3).array
        columns, depth = weights.shape
        zeros = node.input(6).array.astype(np.int64) if operands.present(6) else np.zeros(columns, np.int64)
        # Σ(x − z)(w − v) = Σxw − z·(Σw − K·v) − v·Σx, modulo 2^32
        sums = weights.astype(np.int64).sum(axis=1) - depth * zeros
        names = {
            "w": operands.constant(weights),
            "sums": operands.constant((sums & 0xFFFFFFFF).astype(np.uint32)),
            "scales": operands.constant(node.input(4).array),
            "bias": operands.constant(node.input(5).array) if operands.present(5) else "",
            "zeros": operands.constant((zeros & 0xFFFFFFFF).astype(np.uint32)) if zeros.any() else "",
        }
        rows = math.prod(result.shape[:-1])
        parts = split(columns, rows * depth / 8, grain=4)
        text = render(
            "dynamic_qgemm.c.j2",
            symbol=request.symbol, x=x, y=result, scale=scale, zero=zero, names=names, parts=parts, rows=rows,
            depth=depth, x_row=flat_index("row", x.shape[:-1], x.strides[:-1]),
            y_row=flat_index("row", result.shape[:-1], result.strides[:-1]),
            # as a dense line: its grids are those of the rows in order
            grid="row" if scale.shape else "0",
        )  # fmt: skip
        return KernelCode((), text, parts.count, tuple(operands.constants), "portable_dynamic_qgemm")


DYNAMIC: tuple[Kernel, ...] = (DynamicQuantize(), DynamicQGemm())
