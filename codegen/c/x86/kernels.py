"""The x86 vector rows of the kernel table: from a node and its buffers to the generators of this folder."""

from __future__ import annotations

from dataclasses import replace

from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.vector.rows import PoolRow, TableRow, computed_operands, operand_pair
from qcomp.codegen.c.vector.views import all_constant
from qcomp.codegen.c.vector.walk import can_walk
from qcomp.codegen.c.x86.elementwise import (
    Scalars,
    add_code,
    dequantize_code,
    mul_code,
    quantize_code,
    table_code,
)
from qcomp.codegen.c.x86.interleave import MAX_CHANNELS, interleave_code, quantize_nchw_code
from qcomp.codegen.c.x86.isa import ISAS
from qcomp.codegen.c.x86.pool import avg_pool_code, max_pool_code
from qcomp.codegen.c.x86.product_rows import PRODUCT_ROWS, TILE_KERNELS
from qcomp.codegen.c.x86.row import OFFSET, X86Kernel
from qcomp.codegen.c.x86.transformers import TRANSFORMER_ROWS
from qcomp.codegen.c.x86.transpose import as_matrices, transpose_code
from qcomp.codegen.c.x86.views import (
    requantization,
    stored_constant,
    stored_limits,
    stored_offset,
    stored_table,
)
from qcomp.codegen.c.x86.words import sum_code
from qcomp.ir import DType, Node
from qcomp.ir.ops.qpool import QAvgPool


class _Binary(X86Kernel):
    """Two operands, either of which may be constant or broadcast over pixels."""

    def fits(self, node: Node) -> bool:
        values = (node.input(0), node.input(1), node.output)
        shapes = tuple(v.shape for v in values)
        if any(v.dtype is not DType.I8 for v in values):
            return False
        return can_walk(shapes) and all_constant(node, 2) and not all_constant(node, 0, 1)

    def in_place(self, node: Node) -> tuple[int, ...]:
        return tuple(i for i, v in enumerate(computed_operands(node)) if v.shape == node.output.shape)

    def scalars(self, node: Node) -> Scalars:
        raise NotImplementedError

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        (a, b), constants = operand_pair(request)
        fixed = {i: stored_constant(value) for i, value in constants.items()}
        generate = add_code if self.op == "qadd" else mul_code
        return generate(
            a, b, request.outputs[0], self.scalars(node), stored_table(node, 2),
            self.isa, request.symbol, fixed,
        )  # fmt: skip


def _stored_scalars(node: Node, a_mult: float, b_mult: float) -> Scalars:
    call = node.call
    return Scalars(
        call.int("a_zp") + OFFSET, call.int("b_zp") + OFFSET, a_mult, b_mult,
        call.int("zp") + OFFSET, call.int("lo") + OFFSET, call.int("hi") + OFFSET,
    )  # fmt: skip


class QAdd(_Binary):
    kind, op = "add", "qadd"

    def scalars(self, node: Node) -> Scalars:
        scalars = _stored_scalars(node, node.call.float("a_mult"), node.call.float("b_mult"))
        # The zero point, as stored, joins the sum before rounding: nothing is left to add after it.
        return replace(scalars, zp=0, zero=float(scalars.zp))


class WordAdd(X86Kernel):
    """Sums of operands of one shape with int16 among them, or as their result."""

    kind, op = "add_words", "qadd"

    def fits(self, node: Node) -> bool:
        values = (node.input(0), node.input(1), node.output)
        alike = all(v.shape == node.output.shape for v in values) and node.optional(2) is None
        return alike and not all_constant(node, 0, 1) and any(v.dtype is DType.I16 for v in values)

    def in_place(self, node: Node) -> tuple[int, ...]:
        return tuple(i for i, v in enumerate(computed_operands(node)) if v.dtype is node.output.dtype)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call = request.node, request.node.call
        buffers, constants = operand_pair(request)
        fixed = {i: stored_constant(value) for i, value in constants.items()}
        a_zp, b_zp = (call.int(f"{n}_zp") + stored_offset(node.input(i)) for i, n in enumerate("ab"))
        limits = stored_limits(node)
        scalars = Scalars(a_zp, b_zp, call.float("a_mult"), call.float("b_mult"), **limits)
        if node.output.dtype is DType.I8:  # the zero point of a byte joins before rounding
            scalars = replace(scalars, zp=0, zero=float(scalars.zp))
        return sum_code([*buffers, request.outputs[0]], scalars, self.isa, request.symbol, fixed)


class Rescale(X86Kernel):
    """Between int8 and int16, or two grids of either."""

    kind, op = "rescale", "rescale"

    def fits(self, node: Node) -> bool:
        return not node.input(0).is_constant

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,) if node.input(0).dtype is node.output.dtype else ()

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call = request.node, request.node.call
        limits = stored_limits(node)
        scalars = Scalars(call.int("x_zp") + stored_offset(node.input(0)), a_mult=call.float("mult"), **limits)
        return sum_code([request.inputs[0], request.outputs[0]], scalars, self.isa, request.symbol)


class QMul(_Binary):
    kind, op = "mul", "qmul"

    def scalars(self, node: Node) -> Scalars:
        return _stored_scalars(node, node.call.float("mult"), 0.0)


class Table(TableRow, X86Kernel):
    def fits(self, node: Node) -> bool:
        return super().fits(node) and not all_constant(node, 0)

    def generate(self, request: KernelRequest) -> KernelCode:
        table = stored_table(request.node, 1)
        assert table is not None
        return table_code(request.inputs[0], request.outputs[0], table, self.isa, request.symbol)


class Quantize(X86Kernel):
    """float32 to int8 with one scale a tensor."""

    kind, op = "quantize", "quantize"

    code = staticmethod(quantize_code)

    def takes(self, node: Node) -> bool:
        """Whether the order of the result's dimensions is one that the code writes."""
        return not node.call.ints("perm")

    def fits(self, node: Node) -> bool:
        per_tensor = node.call.quant("quant").axis is None
        is_int8 = node.call.dtype("dtype") is DType.I8
        return per_tensor and is_int8 and not all_constant(node, 0) and self.takes(node)

    def generate(self, request: KernelRequest) -> KernelCode:
        quant = request.node.call.quant("quant")
        return self.code(
            request.inputs[0], request.outputs[0], quant.scale[0], quant.zero_point[0] + OFFSET, self.isa,
            request.symbol,
        )


class QuantizeImage(Quantize):
    """Planar float32 images of few channels to channels-last int8: a model's input, in one pass."""

    kind = "quantize_nchw"
    code = staticmethod(quantize_nchw_code)

    def takes(self, node: Node) -> bool:
        return node.call.ints("perm") == (0, 2, 3, 1) and node.input(0).shape[1] <= MAX_CHANNELS


class Dequantize(X86Kernel):
    """int8 to float32 with one scale a tensor."""

    kind, op = "dequantize", "dequantize"

    def fits(self, node: Node) -> bool:
        x = node.input(0)
        return not x.is_constant and x.dtype is DType.I8 and x.quant is not None and x.quant.axis is None

    def generate(self, request: KernelRequest) -> KernelCode:
        quant = request.node.input(0).quant
        assert quant is not None
        return dequantize_code(
            request.inputs[0], request.outputs[0], quant.scale[0], quant.zero_point[0] + OFFSET, self.isa,
            request.symbol,
        )


class MaxPool(PoolRow, X86Kernel):
    """Channels-last int8 windows."""

    kind, op = "max_pool", "max_pool"

    def fits(self, node: Node) -> bool:
        x = node.input(0)
        return x.dtype is DType.I8 and not x.is_constant and node.attrs["layout"] == "NHWC"

    def halo_fill(self, node: Node) -> int:
        return -128

    def generate(self, request: KernelRequest) -> KernelCode:
        return max_pool_code(self.shape(request), self.isa, request.symbol)


class QAveragePool(PoolRow, X86Kernel):
    """Windows of any size, whole images included."""

    kind, op = "avg_pool", "qavg_pool"

    def fits(self, node: Node) -> bool:
        return not all_constant(node, 0)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, mult = request.node, QAvgPool.multipliers(request.node.call)
        return avg_pool_code(self.shape(request), mult, requantization(node), self.isa, request.symbol)


class Interleave(X86Kernel):
    """Planar to channels-last int8 images of few channels: a model's input."""

    kind, op = "interleave", "transpose"

    def fits(self, node: Node) -> bool:
        x = node.input(0)
        planar = node.call.ints("perm") == (0, 2, 3, 1) and x.shape[1] <= MAX_CHANNELS
        return planar and x.dtype is DType.I8 and not x.is_constant

    def generate(self, request: KernelRequest) -> KernelCode:
        return interleave_code(request.inputs[0], request.outputs[0], self.isa, request.symbol)


class Transpose(X86Kernel):
    """Matrices of float32: a channels-last result in the order that a model's output has."""

    kind, op = "transpose", "transpose"

    def fits(self, node: Node) -> bool:
        x = node.input(0)
        matrices = as_matrices(x.shape, node.call.ints("perm"))
        return x.dtype is DType.F32 and not x.is_constant and matrices is not None and min(matrices[1:]) >= 8

    def generate(self, request: KernelRequest) -> KernelCode:
        return transpose_code(request.inputs[0], request.node.call.ints("perm"), self.isa, request.symbol)


_ROWS: tuple[type[X86Kernel], ...] = (
    *PRODUCT_ROWS, QAdd, WordAdd, Rescale, QMul, Table, Quantize, QuantizeImage, Dequantize, MaxPool, QAveragePool,
    Interleave, Transpose, *TRANSFORMER_ROWS,
)  # fmt: skip
X86_KERNELS: tuple[Kernel, ...] = (*TILE_KERNELS, *(row(isa) for isa in ISAS for row in _ROWS))
