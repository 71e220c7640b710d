"""The TVM rows of the kernel table for what has no products: pools, sums of two operands, tables."""

from __future__ import annotations

from qcomp.codegen.c.kernel import KernelCode, KernelRequest
from qcomp.codegen.c.vector.rows import PoolRow, TableRow
from qcomp.codegen.c.vector.runs import tap_offsets
from qcomp.codegen.c.vector.views import all_constant
from qcomp.codegen.tvm.elementwise import Lookup, Pair, Windows, add, look_up, pool
from qcomp.codegen.tvm.forms import DENSE
from qcomp.codegen.tvm.row import TvmKernel, stored_dtype, stored_table
from qcomp.codegen.tvm.walks import Constant, Place, flat_places, lines_of_a_task, walk_code
from qcomp.ir import DType, Node
from qcomp.ir.ops.qpool import QAvgPool as AveragePool
from qcomp.targets import Target


class _Plain(TvmKernel):
    def supports(self, node: Node, target: Target) -> bool:
        return any(form.fits(target) for form in DENSE) and not all_constant(node, 0) and self.fits(node)

    def fits(self, node: Node) -> bool:
        raise NotImplementedError


class _Pool(PoolRow, _Plain):
    """Windows of channels-last images; padding is in the halo."""

    average = False

    def generate(self, request: KernelRequest) -> KernelCode:
        call, offset = request.node.call, request.stored_offset
        shape = self.shape(request)
        x, y, (dh, dw) = shape.x, shape.y, shape.dilations
        lines = lines_of_a_task(y.height, y.width * y.channels * shape.kernel[0] * shape.kernel[1])
        spec = Windows(
            stored_dtype(request.target), self.average, lines, y.width, y.channels, shape.kernel,
            (shape.strides[0] * x.row_stride, dh * x.row_stride, dw * x.channels, shape.x_step),
            (y.row_stride, y.channels),
        )  # fmt: skip
        reals, integers, constants = [], [], {}
        if self.average:
            zp, lo, hi = (call.int(name) for name in ("zp", "lo", "hi"))
            reals = [float(lo - zp), float(hi - zp)]
            integers = [zp + offset, (call.int("x_zp") + offset) * shape.kernel[0] * shape.kernel[1]]
            constants = {"mult": Constant(AveragePool.multipliers(call), y.width)}
        operands = {"x": Place(x.image_stride, shape.strides[0] * x.row_stride, tap_offsets(shape)[0])}
        return walk_code(
            spec, pool, request.target, request.symbol, y.batch, y.height // lines, lines, operands,
            Place(y.image_stride, y.row_stride), reals, integers, constants, self.kind,
        )  # fmt: skip


class MaxPool(_Pool):
    kind, op = "max_pool", "max_pool"

    def fits(self, node: Node) -> bool:
        return node.input(0).dtype is DType.I8 and node.attrs["layout"] == "NHWC"

    def halo_fill(self, node: Node) -> int:
        return -128


class QAvgPool(_Pool):
    kind, op, average = "avg_pool", "qavg_pool", True

    def fits(self, node: Node) -> bool:
        return True


class QAdd(_Plain):
    """Two computed operands of the result's shape."""

    kind, op = "add", "qadd"

    def fits(self, node: Node) -> bool:
        values = (node.input(0), node.input(1), node.output)
        alike = all(v.dtype is DType.I8 and v.shape == node.output.shape for v in values)
        return alike and not node.input(1).is_constant and all_constant(node, 2)

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0, 1)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call, target = request.node, request.node.call, request.target
        dtype, table = stored_dtype(target), stored_table(node.optional(2), target)
        images, rows, length, (a, b, y) = flat_places((*request.inputs, request.outputs[0]))
        lines = lines_of_a_task(rows, length)
        spec = Pair(dtype, lines, length, (a.line, b.line, y.line), table is not None)
        # The zero point joins before rounding, as that of uint8.
        zp, lo, hi = (call.int(name) + 128 for name in ("zp", "lo", "hi"))
        reals = [call.float("a_mult"), call.float("b_mult"), float(zp), float(lo), float(hi)]
        integers = [*(call.int(name) + request.stored_offset for name in ("a_zp", "b_zp")), request.stored_offset - 128]
        return walk_code(
            spec, add, target, request.symbol, images, rows // lines, lines, {"a": a, "b": b}, y, reals, integers,
            {} if table is None else {"table": Constant(table)}, self.kind, aliased=True,
        )  # fmt: skip


class Table(TableRow, _Plain):
    def generate(self, request: KernelRequest) -> KernelCode:
        dtype, table = stored_dtype(request.target), stored_table(request.node.input(1), request.target)
        assert table is not None
        images, rows, length, (x, y) = flat_places((request.inputs[0], request.outputs[0]))
        lines = lines_of_a_task(rows, length)
        spec = Lookup(dtype, lines, length, (x.line, y.line))
        return walk_code(
            spec, look_up, request.target, request.symbol, images, rows // lines, lines, {"x": x}, y, [], [],
            {"table": Constant(table)}, self.kind, aliased=True,
        )  # fmt: skip


PLAIN_ROWS: tuple[type[_Plain], ...] = (MaxPool, QAvgPool, QAdd, Table)
