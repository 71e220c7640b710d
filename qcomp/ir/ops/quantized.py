"""Conversions between real and integer tensors on grids that are known: fake_quant, quantize, dequantize.

Formulas follow the ONNX operator specification of QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.types import DType, Quantization, TensorType


def quantize_array(x: np.ndarray, quant: Quantization, dtype: DType) -> np.ndarray:
    """clamp(rne(x / scale) + zero_point): float32 division, round half to even; NaN becomes the zero point."""
    scale, zero = quant.broadcast(x.ndim)
    lo, hi = dtype.limits
    with np.errstate(all="ignore"):
        real = np.rint(np.asarray(x, np.float32) / scale).astype(np.float64)
    real = np.where(np.isnan(real), 0.0, real)
    return np.asarray(np.clip(real + zero, lo, hi)).astype(dtype.numpy)


def dequantize_array(q: np.ndarray, quant: Quantization) -> np.ndarray:
    """float32(q − zero_point) · scale, one float32 multiply."""
    scale, zero = quant.broadcast(q.ndim)
    return np.asarray((q.astype(np.int64) - zero).astype(np.float32) * scale, np.float32)


def _check(call: Call, x: TensorType) -> None:
    quant = call.quant("quant")
    if x.dtype is not DType.F32:
        raise call.fail(f"operand is {x.dtype.value}, not f32")
    if not call.dtype("dtype").is_integer:
        raise call.fail(f"cannot quantize to {call.dtype('dtype').value}")
    if quant.axis is not None and not (0 <= quant.axis < x.rank and x.shape[quant.axis] == len(quant.scale)):
        raise call.fail(f"{len(quant.scale)} scales along axis {quant.axis} of shape {x.shape}")


@register
class FakeQuant(Op):
    """Rounds reals to the grid of `quant`: dequantize(quantize(x)); x f32[...] -> f32[...]."""

    name = "fake_quant"
    attributes = {"quant": Attr("quant"), "dtype": Attr("dtype", DType.I8)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        _check(call, call.type(0))
        return [call.type(0)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        quant = call.quant("quant")
        return [dequantize_array(quantize_array(x, quant, call.dtype("dtype")), quant)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        quant, (lo, hi) = call.quant("quant"), call.dtype("dtype").limits
        scale, zero = quant.broadcast(call.type(0).rank)
        wide = scale.astype(np.float64)
        slack = 2.4e-7  # as in dequantize, the product rounds: two float32 units
        bound = Interval.of((lo - zero) * wide * (1 + slack), (hi - zero) * wide * (1 + slack))
        x = operands[0]
        if x is None:
            return [bound]
        # Rounding moves a value by half a step at most.
        half = scale.astype(np.float64) * 0.5000001
        low, high = x.lo - half - np.abs(x.lo) * slack, x.hi + half + np.abs(x.hi) * slack
        # an operand beyond the grid is clamped to the grid's end
        low = np.minimum(np.maximum(low, bound.lo), bound.hi * (1 - 2 * slack))
        high = np.maximum(np.minimum(high, bound.hi), bound.lo * (1 - 2 * slack))
        return [Interval(low, high)]


@register
class Quantize(Op):
    """x f32[...] -> integers of `dtype` whose type carries `quant`.

    The dimensions of the result are those of x in the order `perm` (empty: as they are); `quant` then has no axis.
    """

    name = "quantize"
    attributes = {"quant": Attr("quant"), "dtype": Attr("dtype", DType.I8), "perm": Attr("ints", ())}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, perm = call.type(0), call.ints("perm")
        _check(call, x)
        if perm and (sorted(perm) != list(range(x.rank)) or call.quant("quant").axis is not None):
            raise call.fail(f"perm {list(perm)} is no order of {x.rank} dimensions, or scales lie along an axis")
        shape = tuple(x.shape[axis] for axis in perm) if perm else x.shape
        return [TensorType(call.dtype("dtype"), shape, call.quant("quant"))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        y = quantize_array(x, call.quant("quant"), call.dtype("dtype"))
        return [np.ascontiguousarray(y.transpose(call.ints("perm"))) if call.ints("perm") else y]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        x, quant = operands[0], call.quant("quant")
        lo, hi = call.dtype("dtype").limits
        if x is None:
            return [Interval.of(lo, hi)]
        if call.ints("perm"):
            x = Interval.of(*x.span)  # bounds along one axis would have to move with it
        scale, zero = quant.broadcast(call.type(0).rank)
        with np.errstate(over="ignore"):
            real = [np.rint(e.astype(np.float32) / scale).astype(np.float64) for e in (x.lo, x.hi)]
        return [Interval(*(np.clip(r + zero, lo, hi) for r in real))]


@register
class Dequantize(Op):
    """x integer with quantization -> f32[...]: float32(x − zero_point) · scale."""

    name = "dequantize"

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        if x.quant is None:
            raise call.fail("operand carries no quantization")
        return [TensorType(DType.F32, x.shape)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        quant = call.type(0).quant
        assert x is not None and quant is not None
        return [dequantize_array(x, quant)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        quant = call.type(0).quant
        assert quant is not None
        x = operands[0] or Interval.of(*call.type(0).dtype.limits)
        scale, zero = quant.broadcast(call.type(0).rank)
        wide = scale.astype(np.float64)
        # float32(q - z) * scale rounds twice at most: widen by two float32 units in the last place.
        lo, hi = (x.lo - zero) * wide, (x.hi - zero) * wide
        return [Interval(lo - np.abs(lo) * 2.4e-7, hi + np.abs(hi) * 2.4e-7)]
