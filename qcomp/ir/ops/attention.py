"""Scaled dot-product attention, float and integer: softmax(scale · q·kᵀ + mask)·v, head by head.

Tensors hold the heads inside the positions, as projections leave them: [batch, position, head, feature].
Formula: A. Vaswani et al., "Attention Is All You Need", 2017, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir import fixed_math as fm
from qcomp.ir.intervals import REALS, operand_interval
from qcomp.ir.ops.reduce import row_max
from qcomp.ir.ordered import ordered_product, ordered_sum
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.requantize import (
    REQUANTIZE,
    check_clamp,
    check_float32,
    check_int8,
    check_taps,
    check_zero_points,
    integer_matmul,
    product_result,
    rounded_interval,
    rounded_result,
    stored_interval,
)
from qcomp.ir.types import DType, TensorType

#: Probabilities are integers from 0 to this; the largest of a row has it.
TOP = 255
_MASK = 3  # index of the mask


def _shape(call: Call) -> tuple[int, ...]:
    """[B, M, H, E] of the result, operands checked against each other."""
    q, k, v = (call.type(i) for i in range(3))
    if not q.rank == k.rank == v.rank == 4:
        raise call.fail(f"q, k and v have ranks {q.rank}, {k.rank} and {v.rank}, all must be 4")
    batch, rows, heads, depth = q.shape
    _, keys, _, width = v.shape
    if k.shape != (batch, keys, heads, depth) or v.shape != (batch, keys, heads, width):
        raise call.fail(f"q {q.shape}, k {k.shape} and v {v.shape} do not fit")
    if min(batch, rows, heads, depth, keys, width) < 1:
        raise call.fail("an operand is empty")
    if call.has(_MASK):
        mask = call.type(_MASK)
        fits = mask.rank == 4 and all(m in (1, s) for m, s in zip(mask.shape, (batch, heads, rows, keys), strict=True))
        if mask.dtype is not DType.F32 or not fits:
            raise call.fail(
                f"mask {mask.dtype.value}{list(mask.shape)} does not broadcast to f32{[batch, heads, rows, keys]}"
            )
    return batch, rows, heads, width


def _macs(call: Call) -> int:
    keys, depth, width = call.type(1).shape[1], call.type(0).shape[3], call.type(2).shape[3]
    batch, rows, heads, _ = call.type(0).shape
    return batch * heads * rows * keys * (depth + width)


@register
class Attention(Op):
    """q f32[B,M,H,D], k f32[B,N,H,D], v f32[B,N,H,E], mask f32 broadcast to [B,H,M,N] -> f32[B,M,H,E].

    s = q·kᵀ, times float32(scale) unless that is 1, plus the mask if there is one; the softmax of s along N; its
    product with v.  Sums in the orders of matmul and softmax.
    """

    name = "attention"
    operands = ("q", "k", "v", "mask?")
    attributes = {"scale": Attr("float", 1.0)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        for index in range(3):
            if call.type(index).dtype is not DType.F32:
                raise call.fail(f"operand {index} is {call.type(index).dtype.value}, not f32", fix="cast it first")
        return [TensorType.f32(*_shape(call))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        q, k, v = operands[:3]
        mask = operands[_MASK] if len(operands) > _MASK else None
        assert q is not None and k is not None and v is not None
        y = np.empty(call.results[0].shape, np.float32)
        batch, rows, heads, _ = q.shape
        spread = None if mask is None else np.broadcast_to(mask, (batch, heads, rows, k.shape[1]))
        with np.errstate(all="ignore"):
            for b in range(batch):
                for h in range(heads):
                    s = ordered_product(q[b, :, h], k[b, :, h].T)
                    if call.float("scale") != 1.0:
                        s = s * np.float32(call.float("scale"))
                    if spread is not None:
                        s = s + spread[b, h]
                    e = fm.exp(s - row_max(s)[:, None])
                    y[b, :, h] = ordered_product(e / ordered_sum(e)[:, None], v[b, :, h])
        return [y]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        lo, hi = operand_interval(call, operands, 2).span
        if not (np.isfinite(lo) and np.isfinite(hi)):
            return [REALS]
        slack = max(abs(lo), abs(hi)) * call.type(1).shape[1] * 2.0**-22  # roundings of the weighted mean
        return [Interval.of(min(lo, 0.0) - slack, max(hi, 0.0) + slack)]

    def macs(self, call: Call) -> int:
        return _macs(call)


@register
class QAttention(Op):
    """q i8[B,M,H,D], k i8[B,N,H,D], v i8[B,N,H,E], mask f32 broadcast to [B,H,M,N] -> i8 (i16, f32) [B,M,H,E].

        x = float32(Σ (q−q_zp)·(k−k_zp)) · scale  (+ mask)         one float32 product, one float32 sum
        p = rne(exp(x − max x) · 255), 0 where that is NaN          exp of `qcomp.ir.fixed_math`
        a = Σ p·(v−v_zp),  z = Σ p                                  exact integers
        r = mult / float32(z), 0 where z is 0
        y = clamp(rne(float32(a) · r) + zp, lo, hi)                 dtype f32: float32(a) · r

    The weights are normalized after the second product, by the sum of the integers that it used, so that they add up
    to one exactly, and the scores between are never rounded to 8 bits.  A row whose every score is masked by −inf,
    or holds a NaN throughout, gives the zero point.
    """

    name = "qattention"
    operands = ("q", "k", "v", "mask?")
    attributes = {
        "q_zp": Attr("int", 0),
        "k_zp": Attr("int", 0),
        "v_zp": Attr("int", 0),
        "scale": Attr("float"),
        "mult": Attr("float"),
        **REQUANTIZE,
        "dtype": Attr("dtype", DType.I8),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        for index in range(3):
            check_int8(call, index)
        shape = _shape(call)
        check_clamp(call)
        check_zero_points(call, "q_zp", "k_zp", "v_zp")
        check_float32(call, "scale", "mult")
        check_taps(call, max(call.type(0).shape[3], call.type(1).shape[1]))
        return product_result(call, shape)

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        q, k, v = operands[:3]
        mask = operands[_MASK] if len(operands) > _MASK else None
        assert q is not None and k is not None and v is not None
        queries, keys, values = (
            a.astype(np.int32).transpose(0, 2, 1, 3) - call.int(f"{n}_zp")
            for a, n in ((q, "q"), (k, "k"), (v, "v"))
        )
        with np.errstate(all="ignore"):
            scores = integer_matmul(queries, keys.swapaxes(2, 3)).astype(np.float32) * np.float32(call.float("scale"))
            if mask is not None:
                scores = scores + mask
            flat = scores.reshape(-1, scores.shape[-1])
            real = fm.exp(flat - row_max(flat)[:, None]) * np.float32(TOP)
            weights = np.where(real > 0, np.rint(real), np.float32(0)).astype(np.int64).reshape(scores.shape)
            total = weights.sum(axis=3, keepdims=True).astype(np.float32)
            rate = np.where(total > 0, np.float32(call.float("mult")) / total, np.float32(0))
            y = integer_matmul(weights, values).astype(np.float32) * rate
        return [np.ascontiguousarray(rounded_result(call, y.transpose(0, 2, 1, 3)))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        x, zp = stored_interval(operands[2]), call.int("v_zp")
        # a mean of values, or nothing at all; the division and the product round once each
        ends = np.array([min(x.span[0] - zp, 0), max(x.span[1] - zp, 0)]) * call.float("mult")
        return [rounded_interval(call, ends.min() * (1 + 2.0**-20), ends.max() * (1 + 2.0**-20))]

    def macs(self, call: Call) -> int:
        return _macs(call)
