"""Convolutions, transposed convolutions and matrix products in the stated order of summation, float and integer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import Operands, Source, render, scalar_type
from qcomp.codegen.c.portable.nest import flat_index
from qcomp.codegen.c.portable.products import BLOCK, Epilogue, blocked, constant_operands
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node
from qcomp.targets import Target


@dataclass(frozen=True)
class Image:
    """An image operand of either layout: sizes and strides by name."""

    source: Source
    n: int
    c: int
    h: int
    w: int
    sn: int
    sc: int
    sh: int
    sw: int


def image(source: Source, channels_last: bool) -> Image:
    order = (0, 3, 1, 2) if channels_last else (0, 1, 2, 3)
    return Image(source, *(source.shape[i] for i in order), *(source.strides[i] for i in order))


def is_channels_last(node: Node) -> bool:
    return "layout" not in node.attrs or node.call.str("layout") == "NHWC"


@dataclass(frozen=True)
class Arithmetic:
    """Types and expressions of a windowed product: elements, accumulator, how x is read and the result stored."""

    weight: str
    accumulator: str
    value: str  # type that an input element is widened to
    x_shift: int | str  # taken off every element: a number, or an expression where it is computed
    store: str
    real: bool
    multiplier: str = "float"  # type of the multipliers of `store`


def _windowed(
    request: KernelRequest,
    operands: Operands,
    weights: np.ndarray,
    initial: np.ndarray | None,
    late: np.ndarray | None,
    multiplier: np.ndarray | None,
    arithmetic: Arithmetic,
    *,
    transposed: bool,
    table: str = "",
    helpers: tuple[CFunction, ...] = (),
    last: bool,
) -> KernelCode:
    """weights [O, KH, KW, C / groups]; `initial` starts each sum, `late` is added last, `multiplier` is for `store`."""
    node, call = request.node, request.node.call
    groups = call.int("groups") if "groups" in node.attrs else 1
    x, y = image(operands.source(0), last), image(operands.result(), last)
    outputs, rows, columns, inner = weights.shape
    packed = np.moveaxis(blocked(weights, groups), 2, -1)  # [g, blocks, KH, KW, C, BLOCK]
    names = {"w": operands.constant(packed)}
    for name, array in (("initial", initial), ("late", late), ("multiplier", multiplier)):
        names[name] = "" if array is None else operands.constant(blocked(array, groups))
    parts = split(y.n * y.h, y.w * weights.size / 4)
    per_group = outputs // groups
    text = render(
        "windowed.c.j2",
        symbol=request.symbol, x=x, y=y, names=names, parts=parts, groups=groups, per_group=per_group, block=BLOCK,
        blocks=-(-per_group // BLOCK), rows=rows, columns=columns, inner=inner, arithmetic=arithmetic,
        strides=call.ints("strides"), dilations=call.ints("dilations"), pads=call.ints("pads"),
        transposed=transposed, table=table,
    )  # fmt: skip
    return KernelCode(
        helpers, text, parts.count, tuple(operands.constants), f"portable_{node.op.name}"
    )


_FLOAT = Arithmetic("float", "float", "float", 0, "acc[j]", True)


class Conv2d(Kernel):
    """Float convolution: kernel rows, columns, then channels in order; vectors run across output channels."""

    name, op = "conv2d", "conv2d"

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype is DType.F32 and constant_operands(node, (1, 2))

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        bias = node.optional(2)
        weights = node.input(1).array.transpose(0, 2, 3, 1)
        return _windowed(
            request, Operands(request), weights, None, None if bias is None else bias.array, None, _FLOAT,
            transposed=False, last=is_channels_last(node),
        )  # fmt: skip


class ConvTranspose2d(Kernel):
    """Float transposed convolution, as a gather: each output sums the taps that reach it, in order."""

    name, op = "conv_transpose2d", "conv_transpose2d"

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype is DType.F32 and constant_operands(node, (1, 2))

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        bias, groups = node.optional(2), node.call.int("groups")
        w = node.input(1).array
        per_group = w.shape[1]
        grouped = w.reshape(groups, w.shape[0] // groups, per_group, *w.shape[2:]).transpose(0, 2, 3, 4, 1)
        return _windowed(
            request, Operands(request), grouped.reshape(groups * per_group, *grouped.shape[2:]), None,
            None if bias is None else bias.array, None, _FLOAT, transposed=True, last=is_channels_last(node),
        )  # fmt: skip


class WindowedProduct(Kernel):
    """Integer convolution, transposed or not, without padding in memory: the zero point is subtracted from every
    element that a tap reaches."""

    def __init__(self, op: str, transposed: bool) -> None:
        self.name = op if transposed else f"{op}_windowed"
        self.op = op
        self.transposed = transposed
        self.fixed = True

    def supports(self, node: Node, target: Target) -> bool:
        return constant_operands(node, (1, 2, 3, 4)) and node.optional(5) is None

    def generate(self, request: KernelRequest) -> KernelCode:
        node, operands = request.node, Operands(request)
        shift = operands.source(0).shift + node.call.int("x_zp")
        epilogue = Epilogue(node, operands)
        arithmetic = Arithmetic(
            "int8_t", "uint32_t", "int32_t", shift, epilogue.store("acc[j]", "multiplier[j]"), False,
            epilogue.multiplier_type,
        )  # fmt: skip
        return _windowed(
            request, operands, node.input(1).array, node.input(2).array.astype(np.uint32), None, epilogue.multipliers,
            arithmetic, transposed=self.transposed, table=epilogue.table, helpers=tuple(epilogue.helpers), last=True,
        )  # fmt: skip


def _zero_point(node: Node, operands: Operands) -> int | str:
    """What to take off the stored elements of a conv_integer's x."""
    zero, shift = node.optional(2), operands.source(0).shift
    if zero is None:
        return shift
    if zero.data is not None:
        return shift + int(zero.data.reshape(-1)[0])
    source = operands.source(2)
    return f"({shift} + {source.load(f'*(const {source.ctype}*){source.pointer}')})"


class ConvInteger(Kernel):
    """int8 or uint8 convolution to int32, NCHW; the zero point of x is one number, constant or computed."""

    name, op = "conv_integer", "conv_integer"

    def supports(self, node: Node, target: Target) -> bool:
        zero = node.optional(2)
        return constant_operands(node, (1, 3)) and (zero is None or zero.type.elements == 1)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, operands = request.node, Operands(request)
        weights = node.input(1).array.astype(np.int64)
        w_zero = node.optional(3)
        if w_zero is not None:
            weights = weights - w_zero.array.astype(np.int64).reshape(-1, 1, 1, 1)
        shift = _zero_point(node, operands)
        arithmetic = Arithmetic("int16_t", "uint32_t", "int32_t", shift, "(int32_t)acc[j]", False)
        return _windowed(
            request, operands, weights.astype(np.int16).transpose(0, 2, 3, 1), None, None, None, arithmetic,
            transposed=False, last=False,
        )  # fmt: skip


class MatMul(Kernel):
    """matmul, gemm and matmul_integer: k in order, vectors across the columns of the result."""

    def __init__(self, op: str) -> None:
        self.name = self.op = op

    def supports(self, node: Node, target: Target) -> bool:
        dtypes = {node.input(0).dtype, node.input(1).dtype}
        if self.op == "matmul_integer":
            return dtypes <= {DType.I8, DType.U8}
        return dtypes == {DType.F32} or (self.op == "matmul" and dtypes <= {DType.I32, DType.I64})

    def generate(self, request: KernelRequest) -> KernelCode:
        node, operands = request.node, Operands(request)
        gemm = self.op == "gemm"
        turned = gemm and node.call.bool("trans_b") and node.input(1).is_constant
        a, y = operands.source(0), operands.result()
        b = _turned(operands) if turned else operands.source(1)
        a_view = _matrix(a, left=True, transposed=gemm and node.call.bool("trans_a"))
        b_view = _matrix(b, left=False, transposed=gemm and not turned and node.call.bool("trans_b"))
        depth, columns = b_view.rows, b_view.columns
        batch = np.broadcast_shapes(a_view.batch, b_view.batch)
        y_shape = (*batch, a_view.rows, columns)
        y_strides = _unsqueezed(y, len(a.shape) == 1, len(b.shape) == 1)
        count = math.prod(batch) * a_view.rows
        lead = (*batch, a_view.rows)

        def offset(view: _Matrix, row_stride: int) -> str:
            pad = (0,) * (len(batch) - len(view.batch))
            own = (0 if n == 1 else s for n, s in zip(view.batch, view.batch_strides, strict=True))
            return flat_index("row", lead, (*pad, *own, row_stride))

        kind = {DType.F32: "float", DType.I64: "uint64_t"}.get(y.dtype, "uint32_t")
        parts = split(count, depth * columns)
        text = render(
            "matmul.c.j2",
            symbol=request.symbol, a=a, b=b, y=y, parts=parts, depth=depth, columns=columns, kind=kind,
            block=BLOCK, a_row=offset(a_view, a_view.row_stride), b_row=offset(b_view, 0),
            y_row=flat_index("row", y_shape[:-1], y_strides[:-1]), a_step=a_view.column_stride,
            b_step=b_view.row_stride, b_column=b_view.column_stride, y_column=y_strides[-1],
            value="int32_t" if kind == "uint32_t" and y.dtype is DType.I32 and self.op == "matmul_integer" else kind,
            zeros=self._zeros(operands, a_view.rows), finish=self._finish(operands, y_shape),
            c=self._addend(operands, y_shape),
        )  # fmt: skip
        return KernelCode((), text, parts.count, tuple(operands.constants), f"portable_{self.name}")

    def _zeros(self, operands: Operands, rows: int) -> list[dict[str, str]]:
        """Zero points of a and b: what to subtract from an element."""
        if self.op != "matmul_integer":
            return []
        found = []
        for side, index in (("a", 0), ("b", 1)):
            shift = operands.source(index).shift if not operands.request.node.input(index).is_constant else 0
            line = str(shift)
            pointer = ""
            if operands.present(2 + index):
                zero = operands.source(2 + index)
                many = math.prod(zero.shape) > 1
                position = "0" if not many else (f"row % {rows}" if side == "a" else "n + j")
                pointer = zero.pointer
                line = f"{zero.load(f'{side}_zero[{position}]')} + {shift}"
                found.append({"side": side, "type": zero.ctype, "pointer": pointer, "value": line})
            else:
                found.append({"side": side, "type": "", "pointer": pointer, "value": line})
        return found

    def _addend(self, operands: Operands, shape: tuple[int, ...]) -> dict[str, object] | None:
        if self.op != "gemm" or not operands.present(2):
            return None
        c = operands.source(2)
        strides = (0, 0, *c.strides)[-2:]
        sizes = (1, 1, *c.shape)[-2:]
        used = [0 if n == 1 else s for n, s in zip(sizes, strides, strict=True)]
        return {"pointer": c.pointer, "row": used[0], "column": used[1]}

    def _finish(self, operands: Operands, shape: tuple[int, ...]) -> str:
        if self.op != "gemm":
            return "acc[j]"
        call = operands.request.node.call
        text = "acc[j]"
        if call.float("alpha") != 1.0:
            text += f" * {float_literal(call.float('alpha'))}"
        if operands.present(2):
            beta = call.float("beta")
            text += " + c_row[(n + j) * C_COLUMN]" + ("" if beta == 1.0 else f" * {float_literal(beta)}")
        return text


@dataclass(frozen=True)
class _Matrix:
    batch: tuple[int, ...]
    batch_strides: tuple[int, ...]
    rows: int
    columns: int
    row_stride: int
    column_stride: int


def _turned(operands: Operands) -> Source:
    """The constant operand b transposed: neighbours of a vector across columns are neighbours in memory."""
    array = np.ascontiguousarray(operands.request.node.input(1).array.T)
    dtype = operands.request.node.input(1).dtype
    ctype = scalar_type(dtype, operands.request.node)
    return Source(operands.constant(array), ctype, dtype, array.shape, (array.shape[1], 1))


def _matrix(source: Source, *, left: bool, transposed: bool) -> _Matrix:
    shape, strides = source.shape, source.strides
    if len(shape) == 1:
        shape, strides = ((1, *shape), (0, *strides)) if left else ((*shape, 1), (*strides, 0))
    rows, columns, step, across = shape[-2], shape[-1], strides[-2], strides[-1]
    if transposed:
        rows, columns, step, across = columns, rows, across, step
    return _Matrix(shape[:-2], strides[:-2], rows, columns, step, across)


def _unsqueezed(y: Source, row: bool, column: bool) -> tuple[int, ...]:
    """Strides of the result with the dimensions that vectors lose."""
    strides = y.strides
    if row:
        strides = (*strides[: len(strides) - (0 if column else 1)], 0, *strides[len(strides) - (0 if column else 1) :])
    return (*strides, 0) if column else strides


CONVOLUTIONS: tuple[Kernel, ...] = (
    Conv2d(), ConvTranspose2d(), WindowedProduct("qconv2d", False), WindowedProduct("qconv_transpose2d", True),
    ConvInteger(), MatMul("matmul"), MatMul("gemm"), MatMul("matmul_integer"),
)  # fmt: skip
