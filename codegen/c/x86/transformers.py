"""Rows of the kernel table for transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qcomp.codegen.c.kernel import KernelCode, KernelRequest
from qcomp.codegen.c.vector.views import all_constant
from qcomp.codegen.c.x86.attention import AttentionScalars, AttentionShape, attention_code, attention_fits
from qcomp.codegen.c.x86.elementwise import Scalars
from qcomp.codegen.c.x86.float_rows import layer_norm_code, softmax_code
from qcomp.codegen.c.x86.matmul import matmul_code, matmul_fits
from qcomp.codegen.c.x86.qnorm import qnorm_code
from qcomp.codegen.c.x86.row import OFFSET, X86Kernel
from qcomp.codegen.c.x86.views import stored_limits
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType, Node


class QAttention(X86Kernel):
    """Heads whose keys and values fit on the stack."""

    kind, op = "attention", "qattention"

    def fits(self, node: Node) -> bool:
        q, k, v = (node.input(i) for i in range(3))
        mask = node.optional(3)
        if node.output.dtype is DType.I16 or any(x.is_constant for x in (q, k, v)):
            return False
        if mask is not None and mask.shape[3] != k.shape[1]:
            return False
        return attention_fits(_shape(node, [Buffer(x.dtype, x.shape) for x in (q, k, v, node.output)]), self.isa)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call = request.node, request.node.call
        mask = node.optional(3)
        scalars = AttentionScalars(
            call.int("q_zp"), call.int("k_zp"), call.int("v_zp"), call.float("scale"), call.float("mult"),
            call.int("zp") + OFFSET, call.int("lo") + OFFSET, call.int("hi") + OFFSET,
            call.dtype("dtype") is DType.F32,
        )  # fmt: skip
        shape = _shape(node, [*request.inputs[:3], request.outputs[0]])
        constant = mask.array if mask is not None and mask.is_constant else None
        return attention_code(shape, scalars, self.isa, request.symbol, constant)


def _shape(node: Node, buffers: Sequence[Buffer]) -> AttentionShape:
    q, k, v, y = buffers
    mask = node.optional(3)
    return AttentionShape(q, k, v, y, None if mask is None else mask.shape)


class QMatMul(X86Kernel):
    """Right operands that fit on the stack."""

    kind, op = "matmul", "qmatmul"

    def fits(self, node: Node) -> bool:
        a, b = node.input(0), node.input(1)
        if node.output.dtype is DType.I16:
            return False
        return not (a.is_constant or b.is_constant) and 0 not in node.output.shape and matmul_fits(*b.shape[-2:])

    def generate(self, request: KernelRequest) -> KernelCode:
        call = request.node.call
        bounds = (call.int("zp") + OFFSET, call.int("lo") + OFFSET, call.int("hi") + OFFSET)
        a, b = request.inputs
        return matmul_code(
            a, b, request.outputs[0], (call.int("a_zp"), call.int("b_zp")), call.float("mult"),
            None if call.dtype("dtype") is DType.F32 else bounds, self.isa, request.symbol,
        )  # fmt: skip


class LayerNorm(X86Kernel):
    """float32, with a scale and perhaps a bias of every element of a row."""

    kind, op = "layer_norm", "layer_norm"

    def fits(self, node: Node) -> bool:
        x, length = node.input(0), _row_length(node)
        whole = all(v is None or v.type.elements == length for v in (node.input(1), node.optional(2)))
        return not x.is_constant and all_constant(node, 1, 2) and whole and length > 0

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, bias = request.node, request.node.optional(2)
        return layer_norm_code(
            request.inputs[0], _row_length(node), node.input(1).array.reshape(-1),
            None if bias is None else bias.array.reshape(-1), node.call.float("epsilon"), self.isa, request.symbol,
        )  # fmt: skip


class QLayerNorm(X86Kernel):
    """int8 or int16 rows to int8, int16 or float32."""

    kind, op = "qlayer_norm", "qlayer_norm"

    def fits(self, node: Node) -> bool:
        return not node.input(0).is_constant

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,) if node.input(0).dtype is node.output.dtype else ()

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        return qnorm_code(
            request.inputs[0], request.outputs[0], node.input(1).array, node.input(2).array,
            node.call.float("epsilon"), Scalars(**stored_limits(node)), self.isa, request.symbol,
        )  # fmt: skip


def _row_length(node: Node) -> int:
    return math.prod(node.input(0).shape[node.call.int("axis") :])


class Softmax(X86Kernel):
    """float32 along the last axis."""

    kind, op = "softmax", "softmax"

    def fits(self, node: Node) -> bool:
        x = node.input(0)
        return not x.is_constant and node.call.int("axis") % x.type.rank == x.type.rank - 1 and x.shape[-1] > 0

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def generate(self, request: KernelRequest) -> KernelCode:
        return softmax_code(request.inputs[0], self.isa, request.symbol)


TRANSFORMER_ROWS: tuple[type[X86Kernel], ...] = (QAttention, QMatMul, LayerNorm, QLayerNorm, Softmax)
