"""The x86 vector rows of the kernel table: from a node and its buffers to the generators of this folder."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qcomp.codegen.c.kernel import NO_HALO, Buffer, CFunction, Halo, Kernel, KernelCode, KernelRequest, activations
from qcomp.codegen.c.portable.recurrent import Gru, Lstm
from qcomp.codegen.c.x86.amx import FEATURES as AMX
from qcomp.codegen.c.x86.amx import amx_or_vector_code
from qcomp.codegen.c.x86.conv import conv_code
from qcomp.codegen.c.x86.depthwise import depthwise_code, is_depthwise
from qcomp.codegen.c.x86.dynamic import dynamic_gemm_code
from qcomp.codegen.c.x86.elementwise import (
    Scalars,
    add_code,
    dequantize_code,
    mul_code,
    quantize_code,
    table_code,
)
from qcomp.codegen.c.x86.interleave import MAX_CHANNELS, interleave_code, quantize_nchw_code
from qcomp.codegen.c.x86.isa import AVX512_VBMI, ISAS
from qcomp.codegen.c.x86.packing import bias_fits
from qcomp.codegen.c.x86.pool import avg_pool_code, max_pool_code
from qcomp.codegen.c.x86.recurrent import packed_state_weights
from qcomp.codegen.c.x86.row import OFFSET, X86Kernel, all_constant
from qcomp.codegen.c.x86.schedule import parse_schedule
from qcomp.codegen.c.x86.search import conv_schedules, depthwise_schedules, products_form, tile_schedules
from qcomp.codegen.c.x86.shapes import ConvShape, Int8, Plane, Requantization, Residual
from qcomp.codegen.c.x86.transformers import TRANSFORMER_ROWS
from qcomp.codegen.c.x86.transpose import as_matrices, transpose_code
from qcomp.codegen.c.x86.walk import can_walk
from qcomp.ir import DType, Node
from qcomp.ir.ops.qpool import QAvgPool


def stored_table(node: Node, operand: int) -> tuple[int, ...] | None:
    """The constant table operand as a map of stored to stored values, None where it is absent."""
    value = node.optional(operand)
    if value is None:
        return None
    return tuple(int(v) + OFFSET for v in value.array)


def plane(buffer: Buffer) -> Plane:
    """An NHWC buffer; of any other rank, its rows of channels as one line of pixels."""
    if len(buffer.shape) == 4:
        n, h, w, c = buffer.shape
        return Plane(n, h, w, c, buffer.halo)
    return Plane(1, 1, math.prod(buffer.shape[:-1]), buffer.shape[-1])


def requantization(node: Node, table: int | None = None) -> Requantization:
    """Output arithmetic of a node in stored terms; `table` is the index of its table operand."""
    call = node.call
    return Requantization(
        call.int("x_zp") + OFFSET,
        call.int("zp") + OFFSET,
        call.int("lo") + OFFSET,
        call.int("hi") + OFFSET,
        None if table is None else stored_table(node, table),
        "f32" if "dtype" in node.attrs and call.dtype("dtype") is DType.F32 else "u8",
    )


def window_shape(node: Node, x: Plane, y: Plane, kernel: tuple[int, int], groups: int) -> ConvShape:
    """Geometry of a node with attributes strides, pads and (optionally) dilations."""
    call = node.call
    sh, sw = call.ints("strides")
    dh, dw = call.ints("dilations") if "dilations" in node.attrs else (1, 1)
    top, left, bottom, right = call.ints("pads")
    return ConvShape(x, y, kernel, (sh, sw), (dh, dw), (top, left, bottom, right), groups)


def _window_halo(node: Node, kernel: tuple[int, ...]) -> Halo:
    x, y = (plane(Buffer(v.dtype, v.shape)) for v in (node.input(0), node.output))
    return window_shape(node, x, y, (kernel[0], kernel[1]), 1).halo


class _Products(X86Kernel):
    """Convolutions, and what can be seen as one."""

    scheduled = True
    products = staticmethod(conv_code)

    def fits(self, node: Node) -> bool:
        return all_constant(node, 1, 2, 3, 4) and bias_fits(
            node.input(1).array, node.input(2).array, node.call.int("x_zp") + OFFSET
        )

    def shape(self, node: Node, x: Plane, y: Plane) -> ConvShape:
        raise NotImplementedError

    def weights(self, node: Node) -> Int8:
        """int8 [O, KH, KW, C/groups]."""
        raise NotImplementedError

    def form(self, node: Node) -> str:
        x, y = (plane(Buffer(v.dtype, v.shape)) for v in (node.input(0), node.output))
        return products_form(self.shape(node, x, y), self.weights(node), self.isa)

    def schedules(self, request: KernelRequest) -> tuple[str, ...]:
        shape = self.shape(request.node, plane(request.inputs[0]), plane(request.outputs[0]))
        if _by_rows(shape, request.node):
            return depthwise_schedules(shape)
        return conv_schedules(shape, self.weights(request.node), self.isa, _residual(request))

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        shape = self.shape(node, plane(request.inputs[0]), plane(request.outputs[0]))
        schedule = parse_schedule(request.schedule)
        by_rows = _by_rows(shape, node) and schedule.form != "dense"
        if schedule.form is not None and not _by_rows(shape, node):
            raise schedule.reject("it is no depthwise convolution")
        generate = depthwise_code if by_rows else self.products
        return generate(
            shape,
            self.weights(node),
            node.input(2).array,
            node.input(3).array,
            replace(requantization(node, 4), residual=_residual(request)),
            self.isa,
            request.symbol,
            schedule,
        )


def _by_rows(shape: ConvShape, node: Node) -> bool:
    return is_depthwise(shape) and node.output.dtype is DType.I8 and node.optional(5) is None


def _residual(request: KernelRequest) -> Residual | None:
    call = request.node.call
    if request.node.optional(5) is None:
        return None
    return Residual(plane(request.inputs[1]), call.int("r_zp") + OFFSET, call.float("r_mult"))


class QConv2d(_Products):
    """Implicit GEMM, or interleaved rows for a depthwise convolution of int8 results."""

    kind, op = "conv", "qconv2d"

    def fits(self, node: Node) -> bool:
        residual = node.optional(5)
        return super().fits(node) and (residual is None or not residual.is_constant)

    def halo(self, node: Node) -> tuple[Halo, ...]:
        return (_window_halo(node, node.input(1).shape[1:3]), *[NO_HALO] * (len(activations(node)) - 1))

    def in_place(self, node: Node) -> tuple[int, ...]:
        return () if node.optional(5) in (None, node.input(0)) else (1,)  # the input is read around a pixel

    def shape(self, node: Node, x: Plane, y: Plane) -> ConvShape:
        _, rows, columns, _ = node.input(1).shape
        return window_shape(node, x, y, (rows, columns), node.call.int("groups"))

    def weights(self, node: Node) -> Int8:
        return node.input(1).array


class QGemm(_Products):
    """A matrix product is a 1x1 convolution of rows."""

    kind, op = "gemm", "qgemm"

    def shape(self, node: Node, x: Plane, y: Plane) -> ConvShape:
        return ConvShape(x, y)

    def weights(self, node: Node) -> Int8:
        return node.input(1).array[:, None, None, :]


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
        shape = self.shape(request.node, plane(request.inputs[0]), plane(request.outputs[0]))
        return (default, *(() if _by_rows(shape, request.node) else tile_schedules()), *by_vectors)


class TileConv2d(_Tiles, QConv2d):
    pass


class TileGemm(_Tiles, QGemm):
    pass


class _Binary(X86Kernel):
    """Two operands, either of which may be constant or broadcast over pixels."""

    def fits(self, node: Node) -> bool:
        shapes = (node.input(0).shape, node.input(1).shape, node.output.shape)
        return can_walk(shapes) and all_constant(node, 2) and not all_constant(node, 0, 1)

    def in_place(self, node: Node) -> tuple[int, ...]:
        moving = [v for v in (node.input(0), node.input(1)) if not v.is_constant]
        return tuple(i for i, v in enumerate(moving) if v.shape == node.output.shape)

    def scalars(self, node: Node) -> Scalars:
        raise NotImplementedError

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        moving = iter(request.inputs)
        buffers, fixed = [], {}
        for i in range(2):
            value = node.input(i)
            if value.is_constant:
                buffers.append(Buffer(value.dtype, value.shape))
                fixed[i] = (value.array.astype(np.int16) + OFFSET).astype(np.uint8)
            else:
                buffers.append(next(moving))
        generate = add_code if self.op == "qadd" else mul_code
        return generate(
            buffers[0], buffers[1], request.outputs[0], self.scalars(node), stored_table(node, 2),
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


class QMul(_Binary):
    kind, op = "mul", "qmul"

    def scalars(self, node: Node) -> Scalars:
        return _stored_scalars(node, node.call.float("mult"), 0.0)


class Table(X86Kernel):
    kind, op = "table", "table"

    def fits(self, node: Node) -> bool:
        return all_constant(node, 1) and not all_constant(node, 0)

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

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


class MaxPool(X86Kernel):
    """Channels-last int8 windows."""

    kind, op = "max_pool", "max_pool"

    def fits(self, node: Node) -> bool:
        x = node.input(0)
        return x.dtype is DType.I8 and not x.is_constant and node.attrs["layout"] == "NHWC"

    def halo(self, node: Node) -> tuple[Halo, ...]:
        return (_window_halo(node, node.call.ints("kernel")),)

    def halo_fill(self, node: Node) -> int:
        return -128

    def generate(self, request: KernelRequest) -> KernelCode:
        x, y = plane(request.inputs[0]), plane(request.outputs[0])
        kh, kw = request.node.call.ints("kernel")
        return max_pool_code(window_shape(request.node, x, y, (kh, kw), x.channels), self.isa, request.symbol)


class QAveragePool(X86Kernel):
    """Windows of any size, whole images included."""

    kind, op = "avg_pool", "qavg_pool"

    def fits(self, node: Node) -> bool:
        return not all_constant(node, 0)

    def halo(self, node: Node) -> tuple[Halo, ...]:
        return (_window_halo(node, node.call.ints("kernel")),)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call = request.node, request.node.call
        x, y = plane(request.inputs[0]), plane(request.outputs[0])
        kh, kw = call.ints("kernel")
        mult = (call.float("ratio") / QAvgPool.counts(call)).astype(np.float32)
        shape = window_shape(node, x, y, (kh, kw), x.channels)
        return avg_pool_code(shape, mult, requantization(node), self.isa, request.symbol)


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
    QConv2d, QGemm, DynamicGemm, VectorLstm, VectorGru, QAdd, QMul, Table, Quantize, QuantizeImage, Dequantize,
    MaxPool, QAveragePool, Interleave, Transpose, *TRANSFORMER_ROWS,
)  # fmt: skip
X86_KERNELS: tuple[Kernel, ...] = (TileConv2d(), TileGemm(), *(row(isa) for isa in ISAS for row in _ROWS))
