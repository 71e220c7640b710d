"""The TVM rows of the kernel table for products with constant weights."""

from __future__ import annotations

from qcomp.codegen.c.kernel import KernelCode, KernelRequest, KernelTable, Measure
from qcomp.codegen.c.vector.packing import bias_fits
from qcomp.codegen.c.vector.rows import (
    ConvolutionRow,
    MatrixProductRow,
    ProductRow,
    dense_shape,
    residual_moves,
    residual_of,
)
from qcomp.codegen.c.vector.shapes import ConvShape, Residual
from qcomp.codegen.c.vector.views import all_constant, plane
from qcomp.codegen.tvm.layers import Ending, Layer, cycles_of, forms_of, schedules_of
from qcomp.codegen.tvm.metaschedule import search
from qcomp.codegen.tvm.product_code import layer_code
from qcomp.codegen.tvm.row import TvmKernel, stored_dtype, stored_table
from qcomp.codegen.tvm.tiling import Tiling
from qcomp.ir import DType, Node
from qcomp.targets import Target

_RESULTS = {DType.I8: "", DType.F32: "float32"}


class _Products(TvmKernel, ProductRow):
    """Convolutions, and what can be seen as one.

    fallback: rows that compute what turns out, once buffers are known, to be beyond this one."""

    scheduled = True

    def __init__(self, fallback: KernelTable) -> None:
        super().__init__()
        self.fallback = fallback

    def supports(self, node: Node, target: Target) -> bool:
        x = node.input(0)
        if x.dtype is not DType.I8 or x.is_constant or node.output.dtype not in _RESULTS:
            return False
        if not (all_constant(node, 1, 2, 3, 4) and residual_moves(node)):
            return False
        x_zp = node.call.int("x_zp") + target.stored_offset
        if not bias_fits(node.input(1).array, node.input(2).array, x_zp):
            return False
        return bool(forms_of(self._layer(node, dense_shape(self, node), None, target), target))

    def _layer(self, node: Node, shape: ConvShape, residual: Residual | None, target: Target) -> Layer:
        call, offset = node.call, target.stored_offset
        ending = Ending(
            _RESULTS[node.output.dtype] or stored_dtype(target), call.int("zp") + offset, call.int("lo") + offset,
            call.int("hi") + offset, stored_table(node.optional(4), target), residual,
        )  # fmt: skip
        bias, mult = node.input(2).array, node.input(3).array
        return Layer(shape, self.weights(node), bias, mult, call.int("x_zp") + offset, ending)

    def _requested(self, request: KernelRequest) -> Layer:
        shape = self.shape(request.node, plane(request.inputs[0]), plane(request.outputs[0]))
        residual = residual_of(request, request.stored_offset)
        return self._layer(request.node, shape, residual, request.target)

    def schedules(self, request: KernelRequest) -> tuple[str, ...]:
        return ("", *(tiling.text for tiling in self._tilings(request)))

    def explore(self, request: KernelRequest, most: int, measure: Measure) -> list[str]:
        found = self._tilings(request)
        if len(found) < 2:
            return []
        layer = self._requested(request)
        cycles = [cycles_of(layer, tiling) for tiling in found]
        return [tiling.text for tiling in search(found, cycles, min(most, len(found)), measure)]

    def _tilings(self, request: KernelRequest) -> list[Tiling]:
        """All of the node, those of promise first."""
        layer, exact = self._requested(request), request.inputs[0].external
        return [t for t in schedules_of(layer, request.target) if not (exact and layer.over(t.form))]

    def generate(self, request: KernelRequest) -> KernelCode:
        layer, exact = self._requested(request), request.inputs[0].external
        code = layer_code(layer, request.target, request.symbol, request.schedule, exact)
        return code or self.fallback.select(request.node, request.target).generate(request)


class QConv2d(ConvolutionRow, _Products):
    pass


class QGemm(MatrixProductRow, _Products):
    pass


PRODUCT_ROWS: tuple[type[_Products], ...] = (QConv2d, QGemm)
