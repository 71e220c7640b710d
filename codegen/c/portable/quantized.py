"""Elementwise kernels on quantized tensors: quantize, dequantize, qadd, qmul, rescale, table."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.portable.code import FIXED, ROUND, fixed_rounded, rounded, scalar_type, stored_table
from qcomp.codegen.c.portable.elementwise import Elementwise, Walk
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node, Quantization
from qcomp.ir.fixed_point import fixed_factors
from qcomp.ir.ops.qelementwise import qadd_factors
from qcomp.ir.requantize import is_fixed
from qcomp.targets import Target


def _int(node: Node, name: str) -> int:
    return node.call.int(name)


def requantize_lines(walk: Walk, node: Node, real: str, table_index: int, *, zero_inside: bool = False) -> None:
    """Lines that clamp and round the float expression `real`, add the zero point and store, through a table if any.

    With `zero_inside` the zero point, as that of uint8, is added as a float before rounding.
    """
    zp, lo, hi = _int(node, "zp"), _int(node, "lo"), _int(node, "hi")
    walk.helpers.append(ROUND)
    if zero_inside:
        real, zp = f"({real}) + {float_literal(zp + 128)}", -128
    _store_lines(walk, node, rounded(real, zp, lo, hi, walk.operands.result().shift), table_index)


def fixed_lines(walk: Walk, node: Node, terms: str, shift: int, table_index: int, *, wide: bool = True) -> None:
    """Lines that round a sum of products in fixed point, add the zero point and store, through a table if any."""
    zp, lo, hi = _int(node, "zp"), _int(node, "lo"), _int(node, "hi")
    walk.helpers.append(FIXED)
    stored = fixed_rounded(terms, shift, zp, lo, hi, walk.operands.result().shift, wide=wide)
    _store_lines(walk, node, stored, table_index)


def _store_lines(walk: Walk, node: Node, stored: str, table_index: int) -> None:
    shift = walk.operands.result().shift
    kind = walk.operands.result().ctype
    if walk.operands.present(table_index):
        table = node.input(table_index).array
        pointer = walk.operands.constant(stored_table(table, shift))
        walk.prologue.append(f"const uint8_t* const table = (const uint8_t*){pointer};")
        walk.lines.append(f"@y = ({kind})table[(uint8_t)({stored})];")
    else:
        walk.lines.append(f"@y = ({kind})({stored});")


def _scaled_lines(walk: Walk, node: Node, steps: str, table_index: int) -> None:
    """Lines that multiply an int32 expression by the node's `mult` and round, in the arithmetic that it has."""
    mult = node.call.float("mult")
    if is_fixed(node.call):
        found = fixed_factors(mult)
        return fixed_lines(walk, node, f"(int64_t){steps} * {int(found.factors[0])}", found.shift, table_index)
    requantize_lines(walk, node, f"(float){steps} * {float_literal(mult)}", table_index)


class QAdd(Elementwise):
    name, op, fixed = "qadd", "qadd", True

    def supports(self, node: Node, target: Target) -> bool:
        return _constant_table(node, 2)

    def build(self, node: Node, walk: Walk) -> None:
        if is_fixed(node.call):
            return self._build_fixed(node, walk)
        sums = []
        for index, name in enumerate("ab"):
            source = walk.read(index, name)
            zero = _int(node, f"{name}_zp") + source.shift
            mult = float_literal(node.call.float(f"{name}_mult"))
            walk.lines.append(f"const float {name}r = (float)((int32_t)@{name} - {zero}) * {mult};")
            sums.append(f"{name}r")
        walk.work = 2.0
        requantize_lines(walk, node, " + ".join(sums), 2, zero_inside=node.output.dtype is DType.I8)

    def _build_fixed(self, node: Node, walk: Walk) -> None:
        found = qadd_factors(node.call)
        terms = []
        for index, name in enumerate("ab"):
            source = walk.read(index, name)
            zero = _int(node, f"{name}_zp") + source.shift
            terms.append(f"((int32_t)@{name} - {zero}) * {int(found.factors[index])}")
        walk.work = 2.0
        fixed_lines(walk, node, " + ".join(terms), found.shift, 2, wide=False)


class QMul(Elementwise):
    name, op, fixed = "qmul", "qmul", True

    def supports(self, node: Node, target: Target) -> bool:
        return _constant_table(node, 2)

    def build(self, node: Node, walk: Walk) -> None:
        factors = []
        for index, name in enumerate("ab"):
            source = walk.read(index, name)
            factors.append(f"((int32_t)@{name} - {_int(node, f'{name}_zp') + source.shift})")
        walk.work = 2.0
        _scaled_lines(walk, node, f"({' * '.join(factors)})", 2)


class Rescale(Elementwise):
    name, op, fixed = "rescale", "rescale", True

    def build(self, node: Node, walk: Walk) -> None:
        source = walk.read(0, "x")
        walk.work = 2.0
        _scaled_lines(walk, node, f"((int32_t)@x - {_int(node, 'x_zp') + source.shift})", 2)


class Table(Elementwise):
    name, op = "table", "table"

    def supports(self, node: Node, target: Target) -> bool:
        return _constant_table(node, 1)

    def build(self, node: Node, walk: Walk) -> None:
        walk.read(0, "x")
        result = walk.operands.result()
        pointer = walk.operands.constant(stored_table(node.input(1).array, result.shift))
        walk.prologue.append(f"const uint8_t* const table = (const uint8_t*){pointer};")
        walk.lines.append(f"@y = ({result.ctype})table[(uint8_t)@x];")


def _constant_table(node: Node, index: int) -> bool:
    value = node.optional(index)
    return value is None or value.is_constant


def quantization_lines(walk: Walk, quant: Quantization, dtype: DType, shift: int) -> str:
    """Lines that set `q` to the quantized integer of `v`; the C expression of what is to be stored."""
    lo, hi = dtype.limits
    walk.helpers.append(ROUND)
    if quant.axis is None:
        scale, zero = float_literal(quant.scale[0]), str(quant.zero_point[0])
    else:
        walk.along("s", np.asarray(quant.scale, np.float32), quant.axis)
        walk.along("z", np.asarray(quant.zero_point, np.int32), quant.axis)
        scale, zero = "@s", "@z"
    walk.lines.append(f"const float r = v / {scale};")
    walk.lines.append(
        f"const int32_t q = q_round(r == r ? r : 0.0f, (float)({lo} - {zero}), (float)({hi} - {zero})) + {zero};"
    )
    return f"q + {shift}" if shift else "q"


class Quantize(Elementwise):
    name, op = "quantize", "quantize"

    def supports(self, node: Node, target: Target) -> bool:
        return node.output.dtype in (DType.I8, DType.U8, DType.I16, DType.U16)

    def build(self, node: Node, walk: Walk) -> None:
        walk.read(0, "x", node.call.ints("perm"))
        result = walk.operands.result()
        walk.lines.append("const float v = @x;")
        stored = quantization_lines(walk, node.call.quant("quant"), node.output.dtype, result.shift)
        walk.lines.append(f"@y = ({result.ctype})({stored});")
        walk.work = 2.0


class FakeQuant(Elementwise):
    name, op = "fake_quant", "fake_quant"

    def supports(self, node: Node, target: Target) -> bool:
        return node.call.dtype("dtype") in (DType.I8, DType.U8, DType.I16, DType.U16)

    def build(self, node: Node, walk: Walk) -> None:
        quant = node.call.quant("quant")
        walk.read(0, "x")
        walk.lines.append("const float v = @x;")
        quantization_lines(walk, quant, node.call.dtype("dtype"), 0)
        zero, scale = ("@z", "@s") if quant.axis is not None else (str(quant.zero_point[0]), None)
        scale = scale or float_literal(quant.scale[0])
        walk.lines.append(f"@y = (float)(q - {zero}) * {scale};")
        walk.work = 2.0


class Dequantize(Elementwise):
    name, op = "dequantize", "dequantize"

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype in (DType.I8, DType.U8, DType.I16, DType.U16, DType.I32)

    def build(self, node: Node, walk: Walk) -> None:
        quant = node.input(0).quant
        assert quant is not None
        source = walk.read(0, "x")
        # int32 minus its zero point may need one bit more; the interpreter subtracts in int64.
        wide = scalar_type(DType.I64 if source.dtype is DType.I32 else DType.I32, node)
        if quant.axis is None:
            scale, zero = float_literal(quant.scale[0]), str(quant.zero_point[0] + source.shift)
        else:
            walk.along("s", np.asarray(quant.scale, np.float32), quant.axis)
            zeros = np.asarray(quant.zero_point, np.int32) + np.int32(source.shift)
            walk.along("z", zeros, quant.axis)
            scale, zero = "@s", "@z"
        walk.lines.append(f"@y = (float)(({wide})@x - {zero}) * {scale};")


QUANTIZED: tuple[Kernel, ...] = (QAdd(), QMul(), Rescale(), Table(), Quantize(), FakeQuant(), Dequantize())
