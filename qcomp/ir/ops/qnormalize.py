"""Integer softmax and layer normalization: sums of integers are exact, one float32 factor a row ends them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.requantize import (
    REQUANTIZE,
    check_clamp,
    check_float32,
    check_int8,
    check_vector,
    product_result,
    rounded_interval,
    rounded_result,
)
from qcomp.ir.types import DType, TensorType

#: exp(0) in the table of qsoftmax; sums of LONGEST_ROW of them stay below 2^31.
ONE = 2**16 - 1
LONGEST_ROW = 2**15


def exponentials(step: float) -> np.ndarray:
    """Table of qsoftmax for scores in units of `step`: rne(exp(−d · step) · ONE) for d = 0..255, u16[256]."""
    return np.asarray(np.rint(np.exp(-np.arange(256) * float(step)) * ONE), np.uint16)


@register
class QSoftmax(Op):
    """x i8[...,N], t u16[256] -> i8 (i16, f32) [...,N], along the last axis.

        e = t[max x − x],  z = Σ e                exact integers
        r = mult / float32(z)
        y = clamp(rne(float32(e) · r) + zp, lo, hi)       dtype f32: float32(e) · r

    `exponentials` makes the table; mult is 1 / s_y (1 for dtype f32).  t[0] is not 0.
    """

    name = "qsoftmax"
    operands = ("x", "t")
    attributes = {"mult": Attr("float"), **REQUANTIZE, "dtype": Attr("dtype", DType.I8)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = check_int8(call, 0)
        check_vector(call, 1, DType.U16, 256, "table")
        check_clamp(call)
        if x.rank < 1 or not 1 <= x.shape[-1] <= LONGEST_ROW:
            raise call.fail(f"rows of x {list(x.shape)} do not have 1 to {LONGEST_ROW} elements")
        check_float32(call, "mult")
        if call.float("mult") <= 0:
            raise call.fail(f"mult {call.float('mult')} is not positive")
        table = call.constant(1)
        if table is None or table[0] == 0:
            raise call.fail("the table is no constant, or has 0 for the largest score")
        return product_result(call, x.shape)

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, t = operands
        assert x is not None and t is not None
        wide = x.astype(np.int64)
        e = t.astype(np.int64)[wide.max(axis=-1, keepdims=True) - wide]
        z = e.sum(axis=-1, keepdims=True).astype(np.float32)
        with np.errstate(all="ignore"):
            return [rounded_result(call, e.astype(np.float32) * (np.float32(call.float("mult")) / z))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [rounded_interval(call, 0.0, call.float("mult") * (1 + 2.0**-20))]


@register
class QLayerNorm(Op):
    """x i8 or i16, scale f32[C], bias f32[C] -> i8 (i16, f32) of x's shape; normalizes the last axis of C elements.

        d = C·x − Σx,  v = C·Σx² − (Σx)²                 exact integers: the zero point of x cancels
        r = 1 / sqrt(float32(v) + epsilon)
        y = clamp(rne((float32(d) · r) · scale + bias) + zp, lo, hi)      dtype f32: (float32(d) · r) · scale + bias

    All float32, never fused.  epsilon is the float op's times (C / s_x)²; scale and bias are divided by s_y.  A row of
    equal elements without epsilon gives the bias.
    """

    name = "qlayer_norm"
    operands = ("x", "scale", "bias")
    attributes = {"epsilon": Attr("float"), **REQUANTIZE, "dtype": Attr("dtype", DType.I8)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        if x.dtype not in (DType.I8, DType.I16):
            raise call.fail(f"x is {x.dtype.value}, neither i8 nor i16")
        if x.rank < 1 or not 1 <= x.shape[-1] < LONGEST_ROW:
            raise call.fail(f"rows of x {list(x.shape)} do not have 1 to {LONGEST_ROW - 1} elements")
        for index, what in ((1, "scale"), (2, "bias")):
            check_vector(call, index, DType.F32, x.shape[-1], what)
            constant = call.constant(index)
            if constant is None or not np.isfinite(constant).all():
                raise call.fail(f"{what} is not a constant of finite numbers")
        check_float32(call, "epsilon")
        if call.float("epsilon") < 0:
            raise call.fail(f"epsilon {call.float('epsilon')} is negative")
        check_clamp(call)
        return product_result(call, x.shape)

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, scale, bias = operands
        assert x is not None and scale is not None and bias is not None
        wide, count = x.astype(np.int64), x.shape[-1]
        total = wide.sum(axis=-1, keepdims=True)
        spread = count * (wide * wide).sum(axis=-1, keepdims=True) - total * total
        with np.errstate(all="ignore"):
            width = spread.astype(np.float32) + np.float32(call.float("epsilon"))
            rate = np.where(width > 0, np.float32(1) / np.sqrt(width), np.float32(0))
            return [rounded_result(call, ((count * wide - total).astype(np.float32) * rate) * scale + bias)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        scale, bias = call.constants[1], call.constants[2]
        assert scale is not None and bias is not None
        # Σ(d·r)² <= C, so each normalized element is at most sqrt(C) in magnitude
        size = np.sqrt(call.type(0).shape[-1]) * 1.0001 * np.abs(scale.astype(np.float64))
        return [rounded_interval(call, float((bias - size).min()), float((bias + size).max()))]
