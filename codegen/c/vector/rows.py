"""What rows of the kernel table share that see nodes as planes: products as convolutions, pools as windows, pairs of
operands."""

from __future__ import annotations

from qcomp.codegen.c.kernel import NO_HALO, Buffer, Halo, Kernel, KernelRequest, activations
from qcomp.codegen.c.vector.shapes import ConvShape, Int8, Plane, Residual
from qcomp.codegen.c.vector.views import all_constant, plane, window_halo, window_shape
from qcomp.ir import Node, Value


class ProductRow(Kernel):
    """A node as a convolution of planes with constant weights."""

    kind: str

    def shape(self, node: Node, x: Plane, y: Plane) -> ConvShape:
        raise NotImplementedError

    def weights(self, node: Node) -> Int8:
        """int8 [O, KH, KW, C/groups]."""
        raise NotImplementedError


class ConvolutionRow(ProductRow):
    """qconv2d, its residual included."""

    kind, op = "conv", "qconv2d"

    def halo(self, node: Node) -> tuple[Halo, ...]:
        return (window_halo(node, node.input(1).shape[1:3]), *[NO_HALO] * (len(activations(node)) - 1))

    def in_place(self, node: Node) -> tuple[int, ...]:
        return () if node.optional(5) in (None, node.input(0)) else (1,)  # the input is read around a pixel

    def shape(self, node: Node, x: Plane, y: Plane) -> ConvShape:
        _, rows, columns, _ = node.input(1).shape
        return window_shape(node, x, y, (rows, columns), node.call.int("groups"))

    def weights(self, node: Node) -> Int8:
        return node.input(1).array


class MatrixProductRow(ProductRow):
    """A matrix product is a 1x1 convolution of rows."""

    kind, op = "gemm", "qgemm"

    def shape(self, node: Node, x: Plane, y: Plane) -> ConvShape:
        return ConvShape(x, y)

    def weights(self, node: Node) -> Int8:
        return node.input(1).array[:, None, None, :]


def residual_moves(node: Node) -> bool:
    """Whether the residual of a convolution, if it has one, is computed."""
    residual = node.optional(5)
    return residual is None or not residual.is_constant


def residual_of(request: KernelRequest, offset: int = 0) -> Residual | None:
    """What a convolution adds before it rounds; offset: what stored activations exceed their logical values by."""
    call = request.node.call
    if request.node.optional(5) is None:
        return None
    return Residual(plane(request.inputs[1]), call.int("r_zp") + offset, call.float("r_mult"))


def dense_shape(row: ProductRow, node: Node) -> ConvShape:
    """A row's view of a node whose operands have no halo."""
    return row.shape(node, *(plane(Buffer(v.dtype, v.shape)) for v in (node.input(0), node.output)))


class PoolRow(Kernel):
    """Windows of channels-last images; padding is in the halo."""

    def halo(self, node: Node) -> tuple[Halo, ...]:
        return (window_halo(node, node.call.ints("kernel")),)

    def shape(self, request: KernelRequest) -> ConvShape:
        x, y = plane(request.inputs[0]), plane(request.outputs[0])
        kh, kw = request.node.call.ints("kernel")
        return window_shape(request.node, x, y, (kh, kw), x.channels)


class TableRow(Kernel):
    """A constant table of bytes, applied where its operand lies."""

    kind, op = "table", "table"

    def fits(self, node: Node) -> bool:
        return all_constant(node, 1)

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)


def operand_pair(request: KernelRequest) -> tuple[list[Buffer], dict[int, Value]]:
    """The buffers of operands 0 and 1, dense ones for constants, and the constants among them by index."""
    moving, pair = iter(request.inputs), [request.node.input(i) for i in range(2)]
    buffers = [Buffer(v.dtype, v.shape) if v.is_constant else next(moving) for v in pair]
    return buffers, {i: v for i, v in enumerate(pair) if v.is_constant}


def computed_operands(node: Node) -> list[Value]:
    """Operands 0 and 1 as far as they are no constants."""
    return [v for v in (node.input(0), node.input(1)) if not v.is_constant]
