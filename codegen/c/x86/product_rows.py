"""The x86 rows of the kernel table for products with constant weights: convolutions, gemm, recurrent layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcomp.codegen.c.kernel import Buffer, CFunction, Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.recurrent import Gru, Lstm
from qcomp.codegen.c.vector.packing import bias_fits
from qcomp.codegen.c.vector.rows import ConvolutionRow, MatrixProductRow, ProductRow, residual_moves, residual_of
from qcomp.codegen.c.vector.shapes import ConvShape
from qcomp.codegen.c.vector.views import all_constant, is_depthwise, plane
from qcomp.codegen.c.x86.amx import FEATURES as AMX
from qcomp.codegen.c.x86.amx import amx_or_vector_code
from qcomp.codegen.c.x86.conv import conv_code
from qcomp.codegen.c.x86.depthwise import depthwise_code
from qcomp.codegen.c.x86.dynamic import dynamic_gemm_code
from qcomp.codegen.c.x86.isa import AVX512_VBMI, Isa
from qcomp.codegen.c.x86.recurrent import packed_state_weights
from qcomp.codegen.c.x86.row import OFFSET, X86Kernel
from qcomp.codegen.c.x86.schedule import parse_schedule
from qcomp.codegen.c.x86.search import conv_schedules, depthwise_schedules, products_form, tile_schedules
from qcomp.codegen.c.x86.views import byte_plane, requantization
from qcomp.ir import DType, Node


class _Products(X86Kernel, ProductRow):
    """Convolutions, and what can be seen as one."""

    scheduled = True
    products = staticmethod(conv_code)

    def fits(self, node: Node) -> bool:
        zp = requantization(node).x_zp
        if _reads_words(node) and (zp != 0 or node.input(0).is_constant):
            return False
        return all_constant(node, 1, 2, 3, 4) and bias_fits(node.input(1).array, node.input(2).array, zp)

    def isa_of(self, node: Node) -> Isa:
        return self.isa.for_words if _reads_words(node) else self.isa

    def form(self, node: Node) -> str:
        x, y = (Buffer(v.dtype, v.shape) for v in (node.input(0), node.output))
        return products_form(self.shape(node, byte_plane(x), plane(y)), self.weights(node), self.isa_of(node))

    def schedules(self, request: KernelRequest) -> tuple[str, ...]:
        node = request.node
        shape = self.shape(node, byte_plane(request.inputs[0]), plane(request.outputs[0]))
        if _by_rows(shape, node):
            return depthwise_schedules(shape)
        return conv_schedules(shape, self.weights(node), self.isa_of(node), residual_of(request, OFFSET))

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        shape = self.shape(node, byte_plane(request.inputs[0]), plane(request.outputs[0]))
        schedule = parse_schedule(request.schedule)
        by_rows = _by_rows(shape, node) and schedule.form != "dense"
        if schedule.form is not None and not _by_rows(shape, node):
            raise schedule.reject("it is no depthwise convolution")
        generate = depthwise_code if by_rows else conv_code if _reads_words(node) else self.products
        return generate(
            shape,
            self.weights(node),
            node.input(2).array,
            node.input(3).array,
            replace(requantization(node, 4), residual=residual_of(request, OFFSET)),
            self.isa_of(node),
            request.symbol,
            schedule,
        )


def _reads_words(node: Node) -> bool:
    return node.input(0).dtype is DType.I16


def _by_rows(shape: ConvShape, node: Node) -> bool:
    return is_depthwise(shape) and node.output.dtype is DType.I8 and node.optional(5) is None


class QConv2d(ConvolutionRow, _Products):
    """Implicit GEMM, or interleaved rows for a depthwise convolution of int8 results."""

    def fits(self, node: Node) -> bool:
        return super().fits(node) and residual_moves(node)


class QGemm(MatrixProductRow, _Products):
    pass


class DynamicGemm(X86Kernel):
    """Rows that were quantized at run time; weights with zero points are left to portable code."""

    kind, op = "dynamic_gemm", "dynamic_qgemm"

    def fits(self, node: Node) -> bool:
        zeros = node.optional(6)
        centred = zeros is None or (zeros.is_constant and not zeros.array.any())
        moving = not any(node.input(i).is_constant for i in range(3))
        return centred and moving and all_constant(node, 3, 4, 5)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, bias = request.node, request.node.optional(5)
        shape = ConvShape(plane(request.inputs[0]), plane(request.outputs[0]))
        return dynamic_gemm_code(
            shape, node.input(3).array, node.input(4).array, None if bias is None else bias.array,
            bool(node.input(1).shape), self.isa, request.symbol,
        )  # fmt: skip


class _Layer(X86Kernel):
    """A recurrent layer whose weights are int8; before the portable one in the order of bases."""

    def fits(self, node: Node) -> bool:
        return node.input(1).dtype is DType.I8 and all_constant(node, 1, 4)

    def packed(self, weights: np.ndarray, gates: int) -> tuple[np.ndarray, tuple[CFunction, ...]]:
        return packed_state_weights(self.isa, weights, gates)


class VectorLstm(_Layer, Lstm):
    kind = "lstm"


class VectorGru(_Layer, Gru):
    kind = "gru"


class _Tiles(_Products):
    """Products by AMX tiles where they are expected to be faster, all else by vectors of 512 bits."""

    products = staticmethod(amx_or_vector_code)

    def __init__(self) -> None:
        super().__init__(AVX512_VBMI)
        self.name = f"amx_{self.kind}"
        self.requires |= AMX

    def schedules(self, request: KernelRequest) -> tuple[str, ...]:
        default, *by_vectors = super().schedules(request)
        node = request.node
        shape = self.shape(node, byte_plane(request.inputs[0]), plane(request.outputs[0]))
        by_tiles = not _by_rows(shape, node) and not _reads_words(node)
        return (default, *(tile_schedules() if by_tiles else ()), *by_vectors)


class TileConv2d(_Tiles, QConv2d):
    pass


class TileGemm(_Tiles, QGemm):
    pass


PRODUCT_ROWS: tuple[type[X86Kernel], ...] = (QConv2d, QGemm, DynamicGemm, VectorLstm, VectorGru)
TILE_KERNELS: tuple[Kernel, ...] = (TileConv2d(), TileGemm())
