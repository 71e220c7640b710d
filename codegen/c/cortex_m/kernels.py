"""The Cortex-M rows of the kernel table: products with constant weights, the richest instructions first."""

from __future__ import annotations

from collections.abc import Callable

from qcomp.codegen.c.cortex_m.dsp import conv_code
from qcomp.codegen.c.cortex_m.dsp_depthwise import MOST_TAPS, depthwise_code
from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.mve import conv_code as mve_conv_code
from qcomp.codegen.c.cortex_m.mve_depthwise import depthwise_code as mve_depthwise_code
from qcomp.codegen.c.cortex_m.walk import flattened
from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable import products as portable
from qcomp.codegen.c.portable.code import signed_table
from qcomp.codegen.c.vector.lead import window_lead
from qcomp.codegen.c.vector.lines import is_flat
from qcomp.codegen.c.vector.packing import bias_fits
from qcomp.codegen.c.vector.rows import (
    ConvolutionRow,
    MatrixProductRow,
    ProductRow,
    dense_shape,
    residual_moves,
    residual_of,
)
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.views import all_constant, is_depthwise, plane
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType, Node
from qcomp.ir.requantize import is_fixed, product_factors
from qcomp.targets import Target

#: Of the tiles of all kernels here.
_MOST_PIXELS = 3


def is_product(node: Node, target: Target) -> bool:
    """Whether a node multiplies int8 by constants, to int8 or float32."""
    x, y = node.input(0), node.output
    if target.activation_storage != "s8" or x.dtype is not DType.I8 or x.is_constant or y.dtype is DType.I16:
        return False
    constant = all_constant(node, 1, 2, 3, 4)
    return constant and bias_fits(node.input(1).array, node.input(2).array, node.call.int("x_zp"))


def ending_of(request: KernelRequest) -> Ending:
    """How a product rounds."""
    node, call = request.node, request.node.call
    return Ending(
        call.int("zp"), call.int("lo"), call.int("hi"), signed_table(node, 4), residual_of(request),
        product_factors(call, node.input(3).array) if is_fixed(call) else None, node.output.dtype is DType.F32,
    )  # fmt: skip


class _Products(ProductRow):
    """Convolutions, and what can be seen as one."""

    portable: Kernel
    family, fixed = "cortex_m", True
    by_blocks = True
    """Whether the code goes through blocks of groups outside the pixels of a line."""

    def supports(self, node: Node, target: Target) -> bool:
        return is_product(node, target)

    def lead(self, node: Node, x: Buffer, y: Buffer) -> int | None:
        # Tiles of up to three pixels; blocks of groups are taken one after the other along a line, perhaps of all rows.
        shape = self.shape(node, plane(x), plane(y))
        pixels = None if self.by_blocks and runs_of(shape).blocks > 1 else _MOST_PIXELS
        return window_lead(x, y, flattened(shape) if is_flat(shape, None) else shape, pixels)

    def code(self, request: KernelRequest, generate: Callable[..., KernelCode]) -> KernelCode:
        """What a generator of this folder makes of the node."""
        node = request.node
        shape = self.shape(node, plane(request.inputs[0]), plane(request.outputs[0]))
        return generate(
            shape, self.weights(node), node.input(2).array, node.input(3).array, node.call.int("x_zp"),
            ending_of(request), request.symbol,
        )  # fmt: skip


class _Dsp(_Products):
    requires = frozenset({"dsp"})

    def __init__(self) -> None:
        self.name = f"dsp_{self.kind}"

    def generate(self, request: KernelRequest) -> KernelCode:
        shape = self.shape(request.node, plane(request.inputs[0]), plane(request.outputs[0]))
        if request.inputs[0].external and runs_of(shape).length % 4:
            return self.portable.generate(request)  # words would be read behind the caller's memory
        return self.code(request, conv_code)


class _Conv2d(ConvolutionRow, _Products):
    portable = portable.QConv2d()

    def supports(self, node: Node, target: Target) -> bool:
        return super().supports(node, target) and residual_moves(node)


class _Gemm(MatrixProductRow, _Products):
    portable = portable.QGemm()


class _Depthwise(_Conv2d):
    """One channel a group, of few taps."""

    by_blocks = False

    def supports(self, node: Node, target: Target) -> bool:
        if not super().supports(node, target) or node.optional(5) is not None:
            return False
        shape = dense_shape(self, node)
        return is_depthwise(shape) and shape.kernel[0] * shape.kernel[1] <= MOST_TAPS


class DspDepthwise(_Depthwise):
    """By SMLABB and SMLATT."""

    name, requires = "dsp_depthwise", frozenset({"dsp"})

    def generate(self, request: KernelRequest) -> KernelCode:
        if request.inputs[0].external and request.node.input(0).shape[3] % 4:
            return self.portable.generate(request)
        return self.code(request, depthwise_code)


class _Mve(_Products):
    requires = frozenset({"mve", "fp32"})

    def __init__(self) -> None:
        self.name = f"mve_{self.kind}"

    def supports(self, node: Node, target: Target) -> bool:
        return super().supports(node, target) and not is_fixed(node.call)

    def generate(self, request: KernelRequest) -> KernelCode:
        return self.code(request, mve_conv_code)


class MveConv2d(_Mve, _Conv2d):
    """By VMLADAVA."""


class MveGemm(_Mve, _Gemm):
    """By VMLADAVA."""


class MveDepthwise(_Depthwise):
    """One channel a group, of few taps; the weights -128, which other tools may make, are left to others."""

    name, requires = "mve_depthwise", frozenset({"mve", "fp32"})

    def supports(self, node: Node, target: Target) -> bool:
        fits = not is_fixed(node.call) and int(node.input(1).array.min(initial=0)) > -128
        return fits and super().supports(node, target)

    def generate(self, request: KernelRequest) -> KernelCode:
        return self.code(request, mve_depthwise_code)


class DspConv2d(_Conv2d, _Dsp):
    """By SMLAD."""


class DspGemm(_Gemm, _Dsp):
    """By SMLAD."""


CORTEX_M_KERNELS: tuple[Kernel, ...] = (
    MveDepthwise(), MveConv2d(), MveGemm(), DspDepthwise(), DspConv2d(), DspGemm(),
)  # fmt: skip
