"""Rows of the kernel table for transformers."""

from __future__ import annotations

from collections.abc import Sequence

from qcomp.codegen.c.kernel import KernelCode, KernelRequest
from qcomp.codegen.c.x86.attention import AttentionScalars, AttentionShape, attention_code, attention_fits
from qcomp.codegen.c.x86.row import OFFSET, X86Kernel
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType, Node


class QAttention(X86Kernel):
    """Heads whose keys and values fit on the stack."""

    kind, op = "attention", "qattention"

    def fits(self, node: Node) -> bool:
        q, k, v = (node.input(i) for i in range(3))
        mask = node.optional(3)
        if any(x.is_constant for x in (q, k, v)) or (mask is not None and mask.shape[3] != k.shape[1]):
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


TRANSFORMER_ROWS: tuple[type[X86Kernel], ...] = (QAttention,)
