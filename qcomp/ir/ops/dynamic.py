"""Quantization at run time: dynamic_quantize finds the grid of a tensor or of each row, dynamic_qgemm multiplies on it.

    lo = min(0, finite x), hi = max(0, finite x)                 of the tensor, or of each row along the last axis
    scale = (hi − lo) / 255;  where that overflows  hi / 255 − lo / 255;  where it is 0  1
    zero_point = clamp(rne(0 − lo / scale), 0, 255)
    q = clamp(rne(x / scale) + zero_point, 0, 255), NaN gives the zero point

Every operation is float32.  For finite x whose range does not overflow these are the formulas of the ONNX operator
DynamicQuantizeLinear.  As int8 both q and zero_point are less by 128.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.intervals import magnitude, operand_interval, outward, span
from qcomp.ir.registry import Attr, Call, Interval, Op, full_interval, register
from qcomp.ir.requantize import check_int8, check_taps, check_vector, integer_matmul
from qcomp.ir.types import DType, TensorType


def dynamic_grid(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scale f32[R], zero point f32[R] in 0..255) of rows f32[R, K]."""
    zero, steps = np.float32(0), np.float32(255)
    with np.errstate(all="ignore"):
        finite = np.where(np.abs(rows) < np.float32(np.inf), rows, zero)
        lo = np.minimum(zero, finite.min(axis=1, initial=zero))
        hi = np.maximum(zero, finite.max(axis=1, initial=zero))
        scale = (hi - lo) / steps
        scale = np.where(scale < np.float32(np.inf), scale, hi / steps - lo / steps)
        scale = np.where(scale == zero, np.float32(1), scale)
        return scale, np.clip(np.rint(zero - lo / scale), zero, steps)


def dynamic_quantize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(q int64[R, K] in 0..255, scale f32[R], zero point int64[R]) of rows f32[R, K], each on its own grid."""
    scale, zero = dynamic_grid(rows)
    with np.errstate(all="ignore"):
        real = np.rint(rows / scale[:, None])
        real = np.where(np.isnan(real), np.float32(0), real)
        q = np.clip(real, -zero[:, None], 255 - zero[:, None]) + zero[:, None]
    return q.astype(np.int64), scale, zero.astype(np.int64)


@register
class DynamicQuantize(Op):
    """x f32[...] -> (q u8 or i8 [...], scale f32, zero_point as q), chosen from the values of x at run time.

    Scale and zero point are scalars, or one for each row along the last axis: f32[x.shape[:-1]].
    """

    name = "dynamic_quantize"
    attributes = {"dtype": Attr("dtype", DType.U8), "per_row": Attr("bool", False)}
    results = 3

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, dtype = call.type(0), call.dtype("dtype")
        if x.dtype is not DType.F32:
            raise call.fail(f"operand is {x.dtype.value}, not f32")
        if dtype not in (DType.U8, DType.I8):
            raise call.fail(f"cannot quantize to {dtype.value} at run time")
        if call.bool("per_row") and not x.rank:
            raise call.fail("a scalar has no rows")
        grid = x.shape[:-1] if call.bool("per_row") else ()
        return [TensorType(dtype, x.shape), TensorType(DType.F32, grid), TensorType(dtype, grid)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        rows = x.reshape(-1, x.shape[-1]) if call.bool("per_row") else x.reshape(1, -1)
        q, scale, zero = dynamic_quantize(rows)
        offset = 128 if call.dtype("dtype") is DType.I8 else 0
        arrays = q - offset, scale, zero - offset
        return [
            np.asarray(a.reshape(t.shape)).astype(t.dtype.numpy) for a, t in zip(arrays, call.results, strict=True)
        ]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        lo, hi = span(operand_interval(call, operands, 0)).span
        most = outward(np.asarray(0.0), np.asarray(min(max(hi, 0.0) - min(lo, 0.0), 6.9e38) / 255.0), 1e-6)
        scale = Interval.of(0, max(1.0, float(most.hi)))
        return [full_interval(call.results[0]), scale, full_interval(call.results[2])]


@register
class DynamicQGemm(Op):
    """x i8[...,K], scale and zp of dynamic_quantize, w i8[N,K], w_scale f32[N], bias f32[N], w_zp i8[N] -> f32 [...,N].

    acc = Σ (x − zp)·(w − w_zp) exactly, in int32; y = float32(acc)·(scale·w_scale); y = y + bias: two products and a
    sum, each rounded to float32.  `scale` and `zp` are scalars, or one for each row of x.
    """

    name = "dynamic_qgemm"
    operands = ("x", "scale", "zp", "w", "w_scale", "bias?", "w_zp?")

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w = check_int8(call, 0), check_int8(call, 3)
        if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
            raise call.fail(f"x {x.shape} and w {w.shape} do not fit")
        check_taps(call, w.shape[1])
        scale, zero = call.type(1), check_int8(call, 2)
        if scale.dtype is not DType.F32 or scale.shape != zero.shape or scale.shape not in ((), x.shape[:-1]):
            shapes = f"scale {scale.dtype.value}{list(scale.shape)} and zero point {list(zero.shape)}"
            raise call.fail(f"{shapes} do not fit x {list(x.shape)}")
        check_vector(call, 4, DType.F32, w.shape[0], "w_scale")
        if call.has(5):
            check_vector(call, 5, DType.F32, w.shape[0], "bias")
        if call.has(6):
            check_vector(call, 6, DType.I8, w.shape[0], "w_zp")
        return [TensorType(DType.F32, (*x.shape[:-1], w.shape[0]))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, scale, zp, w, w_scale = (np.asarray(o) for o in operands[:5])
        bias, w_zp = (*operands[5:], None, None)[:2]
        left, right = x.astype(np.int64) - zp.astype(np.int64)[..., None], w.astype(np.int64)
        if w_zp is not None:
            right = right - w_zp.astype(np.int64)[:, None]
        acc = integer_matmul(left, right.T).astype(np.int32)
        with np.errstate(all="ignore"):
            y = acc.astype(np.float32) * (scale[..., None] * w_scale)
            return [np.asarray(y if bias is None else y + bias, np.float32)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        w, w_zp, scale = call.constant(3), call.constant(6), magnitude(span(operand_interval(call, operands, 1)))
        if w is None or not np.isfinite(scale):
            return [full_interval(call.results[0])]
        wide = w.astype(np.float64) - (0.0 if w_zp is None else w_zp.astype(np.float64)[:, None])
        most = 255.0 * (np.abs(wide) + (128.0 if call.has(6) and w_zp is None else 0.0)).sum(axis=1)
        bias = operand_interval(call, operands, 5) if call.has(5) else Interval.of(0, 0)
        with np.errstate(all="ignore"):
            # scale·w_scale may be rounded to a multiple of the smallest float32
            size = most * (scale * magnitude(operand_interval(call, operands, 4)) * (1 + 1e-6) + 1.5e-45)
            return [outward(bias.lo - size, bias.hi + size, 1e-6)]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * call.type(3).shape[1]
