"""The ARM rows of the kernel table: products with constant weights, the richest instructions first; and the others."""

from __future__ import annotations

from qcomp.codegen.c.arm.conv import conv_code, line_length
from qcomp.codegen.c.arm.depthwise import MOST_TAPS, depthwise_code
from qcomp.codegen.c.arm.depthwise_dots import depthwise_dots_code, has_dots
from qcomp.codegen.c.arm.ending import Ending
from qcomp.codegen.c.arm.products import SDOT, SMLAL, SMMLA, Products
from qcomp.codegen.c.arm.rows import NEON_ROWS, takes
from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import signed_table
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
from qcomp.codegen.c.vector.shapes import ConvShape, Int8, Plane
from qcomp.codegen.c.vector.views import all_constant, is_depthwise, plane
from qcomp.ir import DType, Node
from qcomp.targets import Target

#: Forms of products in order of preference.
_FORMS: tuple[Products, ...] = (SMMLA, SDOT, SMLAL)
_KINDS = {DType.I8: "i8", DType.I16: "i16", DType.F32: "f32"}


class _Products(ProductRow):
    """Convolutions, and what can be seen as one."""

    def __init__(self, form: Products) -> None:
        self.products = form
        self.name = f"{form.name}_{self.kind}"
        self.family = "neon"
        self.requires = frozenset({"neon", form.feature})

    def supports(self, node: Node, target: Target) -> bool:
        multiplies = self.products.multiplies(node.input(1).array)
        return _is_product(node, target) and multiplies and not self._is_slower(node, target)

    def _is_slower(self, node: Node, target: Target) -> bool:
        """Whether another form does more at a time for runs and lines of these lengths."""
        shape = dense_shape(self, node)
        taps, pixels = runs_of(shape).length, line_length(shape)
        others = (form for form in _FORMS if form.feature in target.features)
        return any(form.rate(taps, pixels) > self.products.rate(taps, pixels) for form in others)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, (x, y) = request.node, _planes(request)
        return conv_code(
            self.shape(node, x, y), self.weights(node), node.input(2).array, node.input(3).array,
            node.call.int("x_zp"), _ending(request), self.products, request.symbol, request.inputs[0].external,
        )  # fmt: skip


def _is_product(node: Node, target: Target) -> bool:
    x = node.input(0)
    if not takes(target) or x.dtype is not DType.I8 or x.is_constant:
        return False
    constant = all_constant(node, 1, 2, 3, 4)
    return constant and bias_fits(node.input(1).array, node.input(2).array, node.call.int("x_zp"))


def _planes(request: KernelRequest) -> tuple[Plane, Plane]:
    return plane(request.inputs[0]), plane(request.outputs[0])


def _ending(request: KernelRequest) -> Ending:
    node, call = request.node, request.node.call
    return Ending(
        _KINDS[node.output.dtype], call.int("zp"), call.int("lo"), call.int("hi"), signed_table(node, 4),
        residual_of(request),
    )  # fmt: skip


class Conv2d(ConvolutionRow, _Products):
    def supports(self, node: Node, target: Target) -> bool:
        return super().supports(node, target) and residual_moves(node)


class Depthwise(ConvolutionRow):
    """One channel a group, of few taps; the weights -128, which other tools may make, are left to portable code."""

    name, family, requires = "neon_depthwise", "neon", frozenset({"neon"})
    code = staticmethod(depthwise_code)

    def supports(self, node: Node, target: Target) -> bool:
        if not _is_product(node, target) or node.optional(5) is not None:
            return False
        shape = dense_shape(self, node)
        return is_depthwise(shape) and self.takes(shape, node.input(1).array)

    def takes(self, shape: ConvShape, weights: Int8) -> bool:
        few = shape.kernel[0] * shape.kernel[1] <= MOST_TAPS
        return few and int(weights.min(initial=0)) > -128

    def generate(self, request: KernelRequest) -> KernelCode:
        node, (x, y) = request.node, _planes(request)
        return self.code(
            self.shape(node, x, y), self.weights(node), node.input(2).array, node.input(3).array,
            node.call.int("x_zp"), _ending(request), request.symbol, request.inputs[0].external,
        )  # fmt: skip


class DepthwiseDots(Depthwise):
    """3 x 3 taps of neighbours, for CPUs with dot products."""

    name, requires = "sdot_depthwise", frozenset({"neon", "dotprod"})
    code = staticmethod(depthwise_dots_code)

    def takes(self, shape: ConvShape, weights: Int8) -> bool:
        return has_dots(shape)


class Gemm(MatrixProductRow, _Products):
    pass


ARM_KERNELS: tuple[Kernel, ...] = (
    DepthwiseDots(), Depthwise(), *(row(form) for form in _FORMS for row in (Conv2d, Gemm)), *NEON_ROWS,
)  # fmt: skip
