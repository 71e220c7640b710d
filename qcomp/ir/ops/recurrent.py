"""Recurrent layers: lstm and gru, one direction, over what the input and the biases contribute to the gates.

The product of the input with its weights is a gemm of its own, over all steps at once; what is left is the product of
the state with the recurrent weights, step after step:

    recurrent(h)[j] = Σ h[k]·r[j, k], k in order as in `qcomp.ir.ordered`                              r float32
    recurrent(h)[j] = float32(Σ (q[k] − zp)·r[j, k])·(scale·r_scale[j])                                r int8

with q, scale, zp those of `dynamic_quantize` for each row of h, or where `state_scale` is not 0 that scale,
q = clamp(rne(h / scale), −128, 127) with 0 for NaN, and zp = 0.  sigmoid(x) = 1 / (1 + exp(−x)); exp and tanh are those
of `qcomp.ir.fixed_math`; every operation is float32 and rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qcomp.ir import fixed_math as fm
from qcomp.ir.intervals import magnitude, operand_interval, span
from qcomp.ir.ops.dynamic import dynamic_quantize
from qcomp.ir.ops.quantized import quantize_array
from qcomp.ir.ops.unary import sigmoid
from qcomp.ir.ordered import ordered_product
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.requantize import check_taps, check_vector, integer_matmul
from qcomp.ir.types import DType, Quantization, TensorType

ONE = np.float32(1)


def recurrent_product(h: np.ndarray, r: np.ndarray, r_scale: np.ndarray | None, state_scale: float) -> np.ndarray:
    """h f32[B, H] times r [N, H] -> f32[B, N]; r is float32, or int8 with scales f32[N]."""
    if r_scale is None:
        return ordered_product(h, np.ascontiguousarray(r.T))
    if state_scale:
        q = quantize_array(h, Quantization.per_tensor(state_scale), DType.I8).astype(np.int64)
        scale, zero = np.full(h.shape[0], state_scale, np.float32), np.zeros(h.shape[0], np.int64)
    else:
        q, scale, zero = dynamic_quantize(h)
    acc = integer_matmul(q - zero[:, None], r.T).astype(np.int32)
    return np.asarray(acc.astype(np.float32) * (scale[:, None] * r_scale))


def _check_state(call: Call, index: int, batch: int, hidden: int) -> None:
    if call.has(index) and (call.type(index).dtype is not DType.F32 or call.type(index).shape != (batch, hidden)):
        raise call.fail(f"state {list(call.type(index).shape)} is not f32[{batch}, {hidden}]")


def _check_gates(call: Call, gates: int, r_scale: int) -> tuple[int, int, int]:
    """(steps, batch, hidden) of a layer whose x and r fit."""
    x, r = call.type(0), call.type(1)
    if x.dtype is not DType.F32 or x.rank != 3:
        raise call.fail(f"x is {x.dtype.value} of rank {x.rank}, not f32[steps, batch, {gates}·hidden]")
    steps, batch, width = x.shape
    hidden = width // gates
    integer = r.dtype is DType.I8
    if r.shape != (width, hidden) or gates * hidden != width or not (integer or r.dtype is DType.F32):
        raise call.fail(f"x {list(x.shape)} and r {r.dtype.value}{list(r.shape)} do not fit")
    state_scale = call.float("state_scale")
    known = 0.0 <= state_scale < 3.4e38 and float(np.float32(state_scale)) == state_scale
    if not known or (state_scale and not integer):
        raise call.fail(f"state_scale {state_scale} is not a float32 of int8 weights")
    if integer is not call.has(r_scale):
        raise call.fail("int8 weights want scales, and others none")
    if integer:
        check_vector(call, r_scale, DType.F32, width, "r_scale")
        check_taps(call, hidden)
    return steps, batch, hidden


def _steps(call: Call) -> Iterator[int]:
    count = call.type(0).shape[0]
    return iter(reversed(range(count)) if call.bool("reverse") else range(count))


def _state(call: Call, given: np.ndarray | None) -> np.ndarray:
    return np.zeros(call.results[1].shape, np.float32) if given is None else given


def _state_size(call: Call, operands: Sequence[Interval | None], index: int) -> float:
    return float(magnitude(span(operand_interval(call, operands, index)))) if call.has(index) else 0.0


@register
class Lstm(Op):
    """x f32[T,B,4H], r f32 or i8 [4H,H], h0 f32[B,H], c0 f32[B,H], r_scale f32[4H] -> y f32[T,B,H], h and c f32[B,H].

    p = x[t] + recurrent(h), in gates i, o, f, g of H each;  c = sigmoid(f)·c + sigmoid(i)·tanh(g);
    h = sigmoid(o)·tanh(c);  y[t] = h.  States that are not given are 0; `reverse` goes from the last step to the first.
    """

    name = "lstm"
    operands = ("x", "r", "h0?", "c0?", "r_scale?")
    attributes = {"reverse": Attr("bool", False), "state_scale": Attr("float", 0.0)}
    results = 3

    def infer(self, call: Call) -> Sequence[TensorType]:
        steps, batch, hidden = _check_gates(call, 4, 4)
        for index in (2, 3):
            _check_state(call, index, batch, hidden)
        state = TensorType(DType.F32, (batch, hidden))
        return [TensorType(DType.F32, (steps, batch, hidden)), state, state]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, r, h0, c0, r_scale = (*operands, None, None, None)[:5]
        assert x is not None and r is not None
        y, h, c = np.empty(call.results[0].shape, np.float32), _state(call, h0), _state(call, c0)
        with np.errstate(all="ignore"):
            for t in _steps(call):
                i, o, f, g = np.split(x[t] + recurrent_product(h, r, r_scale, call.float("state_scale")), 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * fm.tanh(g)
                y[t] = h = sigmoid(o) * fm.tanh(c)
        return [y, np.asarray(h), np.asarray(c)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        steps = call.type(0).shape[0]
        # a step multiplies by 1 at most and adds 1 at most, and rounds three times
        cell = (_state_size(call, operands, 3) + steps) * (1 + steps * 2.0**-22)
        return [Interval.of(-1, 1), Interval.of(-1, 1), Interval.of(-cell, cell)]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * 4 * call.type(1).shape[1]


@register
class Gru(Op):
    """x f32[T,B,3H], r f32 or i8 [3H,H], rb f32[H], h0 f32[B,H], r_scale f32[3H] -> y f32[T,B,H], h f32[B,H].

    z = sigmoid(xz + recurrent(h)z);  s = sigmoid(xr + recurrent(h)r);  h = (1 − z)·n + z·h;  y[t] = h, with
    n = tanh(xn + recurrent(s·h)n), or where `linear_before_reset`  n = tanh(xn + s·(recurrent(h)n + rb)); without rb
    nothing is added.  x and r hold the gates z, r, n of H each.
    """

    name = "gru"
    operands = ("x", "r", "rb?", "h0?", "r_scale?")
    attributes = {
        "reverse": Attr("bool", False),
        "linear_before_reset": Attr("bool", False),
        "state_scale": Attr("float", 0.0),
    }
    results = 2

    def infer(self, call: Call) -> Sequence[TensorType]:
        steps, batch, hidden = _check_gates(call, 3, 4)
        if call.has(2):
            check_vector(call, 2, DType.F32, hidden, "rb")
            if not call.bool("linear_before_reset"):
                raise call.fail("rb is for linear_before_reset alone")
        _check_state(call, 3, batch, hidden)
        return [TensorType(DType.F32, (steps, batch, hidden)), TensorType(DType.F32, (batch, hidden))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, r, rb, h0, r_scale = (*operands, None, None, None)[:5]
        assert x is not None and r is not None
        y, h, linear = np.empty(call.results[0].shape, np.float32), _state(call, h0), call.bool("linear_before_reset")
        both, grid = 2 * r.shape[1], call.float("state_scale")
        scales = (None, None) if r_scale is None else (r_scale[:both], r_scale[both:])
        with np.errstate(all="ignore"):
            for t in _steps(call):
                gates = sigmoid(x[t][:, :both] + recurrent_product(h, r[:both], scales[0], grid))
                z, s = np.split(gates, 2, axis=1)
                own = x[t][:, both:]
                if linear:
                    part = recurrent_product(h, r[both:], scales[1], grid)
                    n = fm.tanh(own + s * (part if rb is None else part + rb))
                else:
                    n = fm.tanh(own + recurrent_product(s * h, r[both:], scales[1], grid))
                y[t] = h = (ONE - z) * n + z * h
        return [y, np.asarray(h)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        # a step gives what lies between n and h, but for four roundings
        size = max(1.0, _state_size(call, operands, 3)) * (1 + call.type(0).shape[0] * 2.0**-21)
        return [Interval.of(-size, size)] * 2

    def macs(self, call: Call) -> int:
        return call.results[0].elements * 3 * call.type(1).shape[1]
