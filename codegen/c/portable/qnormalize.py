"""Integer softmax and layer normalization: exact sums along rows, one factor a row."""

from __future__ import annotations

import math

from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import Operands, render
from qcomp.codegen.c.portable.fixed_math import helpers_for
from qcomp.codegen.c.portable.joint_products import stored_result
from qcomp.codegen.c.portable.nest import flat_index
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node
from qcomp.targets import Target


class QSoftmax(Kernel):
    """The largest score, the sum of what the table has for the distances from it, then the quotients."""

    name, op = "qsoftmax", "qsoftmax"

    def generate(self, request: KernelRequest) -> KernelCode:
        node, operands = request.node, Operands(request)
        x, y = operands.source(0), operands.result()
        store, helpers = stored_result(node, y, "(float)table[top - from[n]] * rate")
        parts = split(math.prod(x.shape[:-1]), x.shape[-1] * 4)
        text = render(
            "qsoftmax.c.j2",
            symbol=request.symbol, x=x, y=y, table=operands.constant(node.input(1).array), parts=parts, store=store,
            x_row=flat_index("row", x.shape[:-1], x.strides[:-1]), mult=float_literal(node.call.float("mult")),
            y_row=flat_index("row", y.shape[:-1], y.strides[:-1]), length=x.shape[-1],
        )  # fmt: skip
        return KernelCode(helpers, text, parts.count, tuple(operands.constants), "portable_qsoftmax")


class QLayerNorm(Kernel):
    """Sums of elements and of squares as stored: an offset of all elements cancels."""

    name, op = "qlayer_norm", "qlayer_norm"

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype in (DType.I8, DType.I16)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, operands = request.node, Operands(request)
        x, y = operands.source(0), operands.result()
        store, helpers = stored_result(node, y, "real")
        length = x.shape[-1]
        parts = split(math.prod(x.shape[:-1]), length * 4)
        text = render(
            "qlayer_norm.c.j2",
            symbol=request.symbol, x=x, y=y, parts=parts, store=store, length=length,
            scale=operands.constant(node.input(1).array), bias=operands.constant(node.input(2).array),
            x_row=flat_index("row", x.shape[:-1], x.strides[:-1]), epsilon=float_literal(node.call.float("epsilon")),
            y_row=flat_index("row", y.shape[:-1], y.strides[:-1]),
            # 2^15 squares of stored int8, at most 255 each, stay below 2^31
            square="int32_t" if x.dtype is DType.I8 else "int64_t",
        )  # fmt: skip
        return KernelCode(
            (*helpers, *helpers_for(text)), text, parts.count, tuple(operands.constants), "portable_qlayer_norm"
        )


NORMALIZATIONS: tuple[Kernel, ...] = (QSoftmax(), QLayerNorm())
