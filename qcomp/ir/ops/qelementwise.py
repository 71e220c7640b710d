"""Integer elementwise ops: qadd, qmul, rescale and table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.fixed_point import FixedFactors, fixed_sum_factors
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.requantize import (
    ACTIVATIONS,
    FIXED,
    REQUANTIZE,
    apply_table,
    check_activation,
    check_clamp,
    check_factor,
    check_float32,
    check_int8,
    check_table,
    check_vector,
    check_zero_points,
    fixed_result,
    is_fixed,
    rescaled,
    result_interval,
    rounded_dtype,
    stored_interval,
    table_interval,
)
from qcomp.ir.types import DType, TensorType


@register
class QAdd(Op):
    """clamp(rne(float32(a−a_zp)·a_mult + float32(b−b_zp)·b_mult + (zp+128)) − 128, lo, hi), broadcasting.

    a and b are i8 or i16.  Two float32 products, their float32 sum, then the zero point of uint8, never fused.  It
    joins before rounding, and as that of uint8, so that sums next to a tie round as in onnxruntime's QLinearAdd.
    dtype i16: clamp(rne(float32(a−a_zp)·a_mult + float32(b−b_zp)·b_mult) + zp, lo, hi).
    fixed: the terms are added exactly, and rounded once (qcomp.ir.fixed_point).
    """

    name = "qadd"
    operands = ("a", "b", "table?")
    attributes = {
        "a_zp": Attr("int", 0),
        "b_zp": Attr("int", 0),
        "a_mult": Attr("float"),
        "b_mult": Attr("float"),
        **FIXED,
        **REQUANTIZE,
        "dtype": Attr("dtype", DType.I8),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        check_table(call, 2)
        check_clamp(call)
        for index, name in enumerate("ab"):
            check_factor(call, f"{name}_mult", check_activation(call, index).dtype)
        return [TensorType(_integer_result(call), broadcast_shape(call))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands[:2]
        table = operands[2] if len(operands) > 2 else None
        assert a is not None and b is not None
        if is_fixed(call):
            terms = a.astype(np.int64) - call.int("a_zp"), b.astype(np.int64) - call.int("b_zp")
            return [apply_table(fixed_result(call, qadd_factors(call), *terms), table)]
        left = (a.astype(np.int32) - call.int("a_zp")).astype(np.float32) * np.float32(call.float("a_mult"))
        right = (b.astype(np.int32) - call.int("b_zp")).astype(np.float32) * np.float32(call.float("b_mult"))
        steps = np.clip(_rounded_sum(call, left, right), call.int("lo"), call.int("hi"))
        return [apply_table(steps.astype(call.results[0].dtype.numpy), table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        # every step is monotone in each operand, rounding included, so the ends bound the result exactly
        terms = []
        for index, name in enumerate("ab"):
            bound = stored_interval(operands[index], call.type(index).dtype)
            mult = np.float32(call.float(f"{name}_mult"))
            ends = [(e - call.int(f"{name}_zp")).astype(np.float32) * mult for e in (bound.lo, bound.hi)]
            terms.append((np.minimum(*ends), np.maximum(*ends)))
        low, high = (_rounded_sum(call, terms[0][i], terms[1][i]) - call.int("zp") for i in (0, 1))
        return [result_interval(call, low, high, 2)]


def qadd_factors(call: Call) -> FixedFactors:
    """The integer factors of both terms of a qadd in fixed point: sums of terms and factors stay in 32 bits."""
    bits = max(call.type(index).dtype.bits for index in range(2))
    return fixed_sum_factors(bits, call.float("a_mult"), call.float("b_mult"))


def _rounded_sum(call: Call, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The sum of two float32 terms as steps, zero point included, before it is clamped."""
    if rounded_dtype(call) is DType.I16:
        return np.asarray(np.rint(left + right).astype(np.float64) + call.int("zp"))
    return np.asarray(np.rint(left + right + np.float32(call.int("zp") + 128)) - np.float32(128))


@register
class QMul(Op):
    """requantize((a−a_zp)·(b−b_zp), mult, zp, lo, hi), numpy broadcasting, i8 -> i8."""

    name = "qmul"
    operands = ("a", "b", "table?")
    attributes = {"a_zp": Attr("int", 0), "b_zp": Attr("int", 0), "mult": Attr("float"), **FIXED, **REQUANTIZE}

    def infer(self, call: Call) -> Sequence[TensorType]:
        for index in range(2):
            check_int8(call, index)
        check_table(call, 2)
        check_clamp(call)
        if float(np.float32(call.float("mult"))) != call.float("mult"):
            raise call.fail(f"mult {call.float('mult')} is not a float32")
        return [TensorType(DType.I8, broadcast_shape(call))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands[:2]
        table = operands[2] if len(operands) > 2 else None
        assert a is not None and b is not None
        acc = (a.astype(np.int32) - call.int("a_zp")) * (b.astype(np.int32) - call.int("b_zp"))
        return [apply_table(rescaled(call, acc, np.float32(call.float("mult"))), table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        a, b = stored_interval(operands[0]), stored_interval(operands[1])
        lefts = [e - call.int("a_zp") for e in (a.lo, a.hi)]
        rights = [e - call.int("b_zp") for e in (b.lo, b.hi)]
        products = np.broadcast_arrays(*(x * y for x in lefts for y in rights))
        mult = np.float32(call.float("mult"))
        low, high = (f(products).astype(np.float32) * mult for f in (np.minimum.reduce, np.maximum.reduce))
        return [result_interval(call, low, high, 2)]


@register
class Rescale(Op):
    """clamp(rne(float32(x−x_zp)·mult) + zp, lo, hi): integers of one grid on another; x i8 or i16 -> i8 or i16."""

    name = "rescale"
    operands = ("x",)
    attributes = {
        "x_zp": Attr("int", 0), "mult": Attr("float"), **FIXED, **REQUANTIZE, "dtype": Attr("dtype", DType.I8),
    }  # fmt: skip

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = check_activation(call, 0)
        check_clamp(call)
        check_zero_points(call, "x_zp", dtype=x.dtype)
        check_float32(call, "mult")
        return [TensorType(_integer_result(call), x.shape)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        with np.errstate(over="ignore"):
            return [rescaled(call, x.astype(np.int32) - call.int("x_zp"), np.float32(call.float("mult")))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        bound = stored_interval(operands[0], call.type(0).dtype)
        with np.errstate(over="ignore"):
            ends = _rescaled(call, bound.lo), _rescaled(call, bound.hi)
        return [result_interval(call, np.minimum(*ends), np.maximum(*ends))]


def _rescaled(call: Call, x: np.ndarray) -> np.ndarray:
    return np.asarray((x.astype(np.int32) - call.int("x_zp")).astype(np.float32) * np.float32(call.float("mult")))


def _integer_result(call: Call) -> DType:
    if call.dtype("dtype") not in ACTIVATIONS:
        raise call.fail(f"result type {call.dtype('dtype').value} is neither i8 nor i16")
    return call.dtype("dtype")


def broadcast_shape(call: Call) -> tuple[int, ...]:
    """Shape of the first two operands broadcast together."""
    a, b = call.type(0), call.type(1)
    try:
        return tuple(np.broadcast_shapes(a.shape, b.shape))
    except ValueError:
        raise call.fail(f"shapes {a.shape} and {b.shape} do not broadcast") from None


@register
class Table(Op):
    """y = t[x + 128]: any elementwise function of an int8 tensor as 256 entries; x i8[...], t i8[256] -> i8[...]."""

    name = "table"
    operands = ("x", "t")

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = check_int8(call, 0)
        check_vector(call, 1, DType.I8, 256, "table")
        return [TensorType(DType.I8, x.shape)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, t = operands
        assert x is not None and t is not None
        return [apply_table(x, t)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        table, x = call.constant(1), operands[0]
        if table is None:
            return [Interval.of(-128, 127)]
        return [table_interval(table, stored_interval(x))]
