"""Integer convolutions and matrix products: packing, folding of zero points, and the shared epilogue."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from qcomp.codegen.c.kernel import NO_HALO, CFunction, Halo, Kernel, KernelCode, KernelRequest, activations
from qcomp.codegen.c.portable.code import FIXED, ROUND, Operands, Source, fixed_rounded, render, rounded, stored_table
from qcomp.codegen.c.portable.nest import flat_index
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.lead import window_lead
from qcomp.codegen.c.vector.views import plane, window_shape
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType, Node
from qcomp.ir.requantize import is_fixed, product_factors
from qcomp.targets import Target

#: Output channels that a block of the portable kernels computes together.
BLOCK = 16
#: Contiguous inputs from which a dot product along them beats a vector across outputs.
LONG_RUN = 24


@dataclass
class Epilogue:
    """How an accumulator becomes a stored result: C of the value from `acc` and the multiplier `mult`.

    residual: what is added before rounding, as C finds it at `residual[j]`.
    """

    node: Node
    operands: Operands
    table: str = ""
    residual: Source | None = None
    helpers: list[CFunction] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.operands.present(4):
            stored = stored_table(self.node.input(4).array, self.operands.result().shift)
            self.table = self.operands.constant(stored)
        if self.operands.present(5):
            self.residual = self.operands.source(5)
        if not self.real:
            self.helpers.append(FIXED if self.fixed else ROUND)

    @property
    def fixed(self) -> bool:
        return is_fixed(self.node.call)

    @property
    def multipliers(self) -> np.ndarray:
        """What an accumulator is multiplied by: float32, or int32 in fixed point; [O]."""
        mult = self.node.input(3).array
        return product_factors(self.node.call, mult).factors[0].astype(np.int32) if self.fixed else mult

    @property
    def multiplier_type(self) -> str:
        return "int32_t" if self.fixed else "float"

    @property
    def real(self) -> bool:
        return self.node.call.dtype("dtype") is DType.F32

    def store(self, accumulator: str, multiplier: str) -> str:
        """C expression of the stored result."""
        if self.fixed:
            return self._store_fixed(accumulator, multiplier)
        product = f"(float)(int32_t){accumulator} * {multiplier}"
        if self.real:
            return product
        if self.residual is not None:
            centred = f"((int32_t)residual[j] - {self.residual.shift + self.node.call.int('r_zp')})"
            product = f"({product}) + (float){centred} * {float_literal(self.node.call.float('r_mult'))}"
        result, call = self.operands.result(), self.node.call
        stored = rounded(product, call.int("zp"), call.int("lo"), call.int("hi"), result.shift)
        return self._looked_up(stored)

    def _looked_up(self, stored: str) -> str:
        kind = self.operands.result().ctype
        return f"({kind})table[(uint8_t)({stored})]" if self.table else f"({kind})({stored})"

    def _store_fixed(self, accumulator: str, multiplier: str) -> str:
        call = self.node.call
        found = product_factors(call, self.node.input(3).array)
        terms = f"(int64_t)(int32_t){accumulator} * {multiplier}"
        if self.residual is not None:
            centred = f"((int32_t)residual[j] - {self.residual.shift + call.int('r_zp')})"
            terms += f" + (int64_t){centred} * {int(found.factors[1])}"
        zp, lo, hi, shift = call.int("zp"), call.int("lo"), call.int("hi"), self.operands.result().shift
        return self._looked_up(fixed_rounded(terms, found.shift, zp, lo, hi, shift))


def constant_operands(node: Node, indices: tuple[int, ...]) -> bool:
    """Whether the operands, where present, are constants."""
    return all(v is None or v.is_constant for v in (node.optional(i) for i in indices))


def folded_bias(node: Node, shift: int) -> np.ndarray:
    """bias − (x_zp + shift)·Σw per output channel, modulo 2^32: accumulation wraps back to the true sum."""
    weights, bias = node.input(1).array, node.input(2).array
    sums = weights.reshape(weights.shape[0], -1).astype(np.int64).sum(axis=1)
    folded = bias.astype(np.int64) - (node.call.int("x_zp") + shift) * sums
    return np.asarray(folded & 0xFFFFFFFF, np.uint32)


def blocked(array: np.ndarray, groups: int) -> np.ndarray:
    """[groups * n, ...] -> [groups, ceil(n / BLOCK), BLOCK, ...], padded with zeros."""
    per_group = array.shape[0] // groups
    split_up = array.reshape(groups, per_group, *array.shape[1:])
    pads = [(0, 0), (0, -per_group % BLOCK)] + [(0, 0)] * (array.ndim - 1)
    return np.asarray(np.pad(split_up, pads).reshape(groups, -1, BLOCK, *array.shape[1:]))


def _halo(node: Node) -> Halo:
    """Padding that the windows of a convolution read around its input (never less than zero)."""
    x, y, w = node.input(0).shape, node.output.shape, node.input(1).shape
    call = node.call
    strides, dilations, pads = call.ints("strides"), call.ints("dilations"), call.ints("pads")
    ends = [
        max(0, (y[1 + a] - 1) * strides[a] + (w[1 + a] - 1) * dilations[a] + 1 - pads[a] - x[1 + a]) for a in range(2)
    ]
    return (pads[0], pads[1], ends[0], ends[1])


class QConv2d(Kernel):
    """Walks the windows over a padded input: dot products along long runs, else vectors across output channels."""

    name, op, fixed = "qconv2d", "qconv2d", True

    def supports(self, node: Node, target: Target) -> bool:
        return constant_operands(node, (1, 2, 3, 4)) and not _pads_with_words(node)

    def halo(self, node: Node) -> tuple[Halo, ...]:
        return (_halo(node), *[NO_HALO] * (len(activations(node)) - 1))

    def lead(self, node: Node, x: Buffer, y: Buffer) -> int | None:
        kh, kw = node.input(1).shape[1:3]
        return window_lead(x, y, window_shape(node, plane(x), plane(y), (kh, kw), node.call.int("groups")))

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call = request.node, request.node.call
        weights, groups = node.input(1).array, call.int("groups")
        x, y = request.inputs[0], request.outputs[0]
        per_group = weights.shape[0] // groups
        if weights.shape[3] == 1 and per_group == 1 and node.optional(5) is None:
            return self._depthwise(request)
        operands = Operands(request)
        source, result = operands.source(0), operands.result()
        joined = call.ints("dilations")[1] == 1 and groups == 1
        taps, run = (1, weights.shape[2] * weights.shape[3]) if joined else weights.shape[2:]
        long = run >= LONG_RUN
        rows = weights.reshape(weights.shape[0], weights.shape[1], taps, run)
        packed = blocked(rows, groups)
        if not long:
            packed = np.moveaxis(packed, 2, -1)
        epilogue = Epilogue(node, operands)
        names = {
            "w": operands.constant(packed),
            "b": operands.constant(blocked(folded_bias(node, source.shift), groups)),
            "m": operands.constant(blocked(epilogue.multipliers, groups)),
        }
        parts = split(y.shape[0] * y.shape[1], y.shape[2] * weights.size / 8)
        pads, strides, dilations = call.ints("pads"), call.ints("strides"), call.ints("dilations")
        text = render(
            "conv.c.j2",
            symbol=request.symbol, mtype=epilogue.multiplier_type, x=x, y=y, xtype=source.ctype, ytype=result.ctype,
            names=names, out=result.pointer,
            parts=parts, groups=groups, per_group=per_group, blocks=-(-per_group // BLOCK), block=BLOCK,
            inner=weights.shape[3], kernel_rows=weights.shape[1], taps=taps, run=run, long=long,
            row_step=strides[0] * x.row_stride, column_step=strides[1] * x.shape[3],
            tap_row=dilations[0] * x.row_stride, tap_column=dilations[1] * x.shape[3],
            origin=pads[0] * x.row_stride + pads[1] * x.shape[3], table=epilogue.table, residual=epilogue.residual,
            store=epilogue.store("acc[j]", "mult[j]"),
        )  # fmt: skip
        kind = "dot" if long else "outer"
        return KernelCode(
            tuple(epilogue.helpers), text, parts.count, tuple(operands.constants), f"portable_qconv2d_{kind}"
        )

    def _depthwise(self, request: KernelRequest) -> KernelCode:
        node, call = request.node, request.node.call
        operands = Operands(request)
        source, result = operands.source(0), operands.result()
        x, y = request.inputs[0], request.outputs[0]
        weights, epilogue = node.input(1).array, Epilogue(node, operands)
        names = {
            "w": operands.constant(np.moveaxis(weights[:, :, :, 0], 0, -1)),
            "b": operands.constant(folded_bias(node, source.shift)),
            "m": operands.constant(epilogue.multipliers),
        }
        parts = split(y.shape[0] * y.shape[1], y.shape[2] * weights.size)
        pads, strides, dilations = call.ints("pads"), call.ints("strides"), call.ints("dilations")
        text = render(
            "depthwise.c.j2",
            symbol=request.symbol, mtype=epilogue.multiplier_type, x=x, y=y, xtype=source.ctype, ytype=result.ctype,
            names=names, out=result.pointer,
            parts=parts, kernel_rows=weights.shape[1], taps=weights.shape[2], channels=weights.shape[0], block=BLOCK,
            row_step=strides[0] * x.row_stride, column_step=strides[1] * x.shape[3],
            tap_row=dilations[0] * x.row_stride, tap_column=dilations[1] * x.shape[3],
            origin=pads[0] * x.row_stride + pads[1] * x.shape[3], table=epilogue.table,
            store=epilogue.store("acc[j]", "m[c + j]"),
        )  # fmt: skip
        return KernelCode(
            tuple(epilogue.helpers), text, parts.count, tuple(operands.constants), "portable_qconv2d_depthwise"
        )


def _pads_with_words(node: Node) -> bool:
    """Whether padding is an int16 other than 0, which halos are not filled with."""
    return node.input(0).dtype is DType.I16 and node.call.int("x_zp") != 0 and _halo(node) != NO_HALO


class QGemm(Kernel):
    """Rows of x times rows of w: dot products along k."""

    name, op, fixed = "qgemm", "qgemm", True

    def supports(self, node: Node, target: Target) -> bool:
        return constant_operands(node, (1, 2, 3, 4))

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        operands = Operands(request)
        source, result = operands.source(0), operands.result()
        columns, depth = node.input(1).shape
        rows = math.prod(result.shape[:-1])
        epilogue = Epilogue(node, operands)
        names = {
            "w": operands.constant(node.input(1).array),
            "b": operands.constant(folded_bias(node, source.shift)),
            "m": operands.constant(epilogue.multipliers),
        }
        parts = split(columns, rows * depth / 8, grain=4)
        text = render(
            "qgemm.c.j2",
            symbol=request.symbol, mtype=epilogue.multiplier_type, xtype=source.ctype, ytype=result.ctype, names=names,
            out=result.pointer,
            parts=parts, rows=rows, columns=columns, depth=depth, table=epilogue.table,
            x_row=flat_index("row", source.shape[:-1], source.strides[:-1]),
            y_row=flat_index("row", result.shape[:-1], result.strides[:-1]),
            store=epilogue.store("acc", "m[n]"),
        )  # fmt: skip
        return KernelCode(
            tuple(epilogue.helpers), text, parts.count, tuple(operands.constants), "portable_qgemm"
        )


PRODUCTS: tuple[Kernel, ...] = (QConv2d(), QGemm())
