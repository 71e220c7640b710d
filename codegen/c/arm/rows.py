"""The ARM rows of the kernel table beside products: elementwise ops and pools of int8."""

from __future__ import annotations

from qcomp.codegen.c.arm.elementwise import (
    MOST_PLANES,
    Operand,
    add_code,
    dequantize_code,
    mul_code,
    quantize_code,
    quantize_planes_code,
    table_code,
)
from qcomp.codegen.c.arm.ending import Ending
from qcomp.codegen.c.arm.pool import MOST_SUMMED, average_pool_code, max_pool_code
from qcomp.codegen.c.kernel import Buffer, Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import signed_table
from qcomp.codegen.c.vector.rows import PoolRow, TableRow, computed_operands, operand_pair
from qcomp.codegen.c.vector.views import all_constant
from qcomp.codegen.c.vector.walk import can_walk
from qcomp.ir import DType, Node
from qcomp.ir.ops.qpool import QAvgPool
from qcomp.targets import Target


def takes(target: Target) -> bool:
    """Whether the kernels are for it: 32-bit ARM lacks some of their intrinsics, and activations are signed."""
    return target.arch == "aarch64" and target.activation_storage == "s8"


class NeonKernel(Kernel):
    """A row for any 64-bit ARM CPU; activations are stored signed."""

    kind: str
    family, requires = "neon", frozenset({"neon"})

    def __init__(self) -> None:
        self.name = f"neon_{self.kind}"

    def supports(self, node: Node, target: Target) -> bool:
        return takes(target) and not all_constant(node, 0) and self.fits(node)

    def fits(self, node: Node) -> bool:
        raise NotImplementedError


class _Binary(NeonKernel):
    """Two operands, either of which may be constant or broadcast over pixels."""

    def supports(self, node: Node, target: Target) -> bool:
        return takes(target) and not all_constant(node, 0, 1) and self.fits(node)

    def fits(self, node: Node) -> bool:
        values = (node.input(0), node.input(1), node.output)
        int8 = all(v.dtype is DType.I8 for v in values)
        return int8 and can_walk(tuple(v.shape for v in values)) and all_constant(node, 2)

    def in_place(self, node: Node) -> tuple[int, ...]:
        return tuple(i for i, v in enumerate(computed_operands(node)) if v.shape == node.output.shape)

    def mults(self, node: Node) -> tuple[float, float]:
        raise NotImplementedError

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call = request.node, request.node.call
        buffers, constants = operand_pair(request)
        fixed = {i: value.array for i, value in constants.items()}
        a_mult, b_mult = self.mults(node)
        a, b = Operand(call.int("a_zp"), a_mult), Operand(call.int("b_zp"), b_mult)
        ending = Ending("i8", call.int("zp"), call.int("lo"), call.int("hi"), signed_table(node, 2))
        code = add_code if self.op == "qadd" else mul_code
        return code(a, b, ending, [*buffers, request.outputs[0]], request.symbol, fixed)


class QAdd(_Binary):
    kind, op = "add", "qadd"

    def mults(self, node: Node) -> tuple[float, float]:
        return node.call.float("a_mult"), node.call.float("b_mult")


class QMul(_Binary):
    kind, op = "mul", "qmul"

    def mults(self, node: Node) -> tuple[float, float]:
        return node.call.float("mult"), 0.0


class Table(TableRow, NeonKernel):
    def generate(self, request: KernelRequest) -> KernelCode:
        table = signed_table(request.node, 1)
        assert table is not None
        return table_code(table, [request.inputs[0], request.outputs[0]], request.symbol)


class Quantize(NeonKernel):
    """float32 to int8 with one scale a tensor."""

    kind, op = "quantize", "quantize"

    def takes(self, node: Node) -> bool:
        """Whether the order of the result's dimensions is one that the code writes."""
        return not node.call.ints("perm")

    def fits(self, node: Node) -> bool:
        per_tensor = node.call.quant("quant").axis is None
        return per_tensor and node.call.dtype("dtype") is DType.I8 and self.takes(node)

    def generate(self, request: KernelRequest) -> KernelCode:
        quant = request.node.call.quant("quant")
        x, y = request.inputs[0], request.outputs[0]
        return self.code(quant.scale[0], quant.zero_point[0], x, y, request.symbol)

    def code(self, scale: float, zp: int, x: Buffer, y: Buffer, symbol: str) -> KernelCode:
        return quantize_code(scale, zp, (x, y), symbol)


class QuantizeImage(Quantize):
    """Planar float32 images of few channels to channels-last int8: a model's input, in one pass."""

    kind = "quantize_nchw"

    def takes(self, node: Node) -> bool:
        return node.call.ints("perm") == (0, 2, 3, 1) and node.input(0).shape[1] <= MOST_PLANES

    def code(self, scale: float, zp: int, x: Buffer, y: Buffer, symbol: str) -> KernelCode:
        return quantize_planes_code(scale, zp, x, y, symbol)


class Dequantize(NeonKernel):
    """int8 to float32 with one scale a tensor."""

    kind, op = "dequantize", "dequantize"

    def fits(self, node: Node) -> bool:
        x = node.input(0)
        return x.dtype is DType.I8 and x.quant is not None and x.quant.axis is None

    def generate(self, request: KernelRequest) -> KernelCode:
        quant = request.node.input(0).quant
        assert quant is not None
        buffers = [request.inputs[0], request.outputs[0]]
        return dequantize_code(quant.scale[0], quant.zero_point[0], buffers, request.symbol)


class MaxPool(PoolRow, NeonKernel):
    """Channels-last int8 windows."""

    kind, op = "max_pool", "max_pool"

    def fits(self, node: Node) -> bool:
        return node.input(0).dtype is DType.I8 and node.attrs["layout"] == "NHWC"

    def halo_fill(self, node: Node) -> int:
        return -128

    def generate(self, request: KernelRequest) -> KernelCode:
        return max_pool_code(self.shape(request), request.symbol, request.inputs[0].external)


class AveragePool(PoolRow, NeonKernel):
    """Windows of rows that are not too long, whole images included."""

    kind, op = "avg_pool", "qavg_pool"

    def fits(self, node: Node) -> bool:
        return node.call.ints("kernel")[1] <= MOST_SUMMED

    def generate(self, request: KernelRequest) -> KernelCode:
        call = request.node.call
        ending = Ending("i8", call.int("zp"), call.int("lo"), call.int("hi"))
        return average_pool_code(
            self.shape(request), QAvgPool.multipliers(call), call.int("x_zp"), ending, request.symbol,
            request.inputs[0].external,
        )  # fmt: skip


NEON_ROWS: tuple[Kernel, ...] = (
    QAdd(), QMul(), Table(), Quantize(), QuantizeImage(), Dequantize(), MaxPool(), AveragePool(),
)  # fmt: skip
