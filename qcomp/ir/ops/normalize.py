"""Softmax and normalizations, float32; sums as `qcomp.ir.ordered` states them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir import fixed_math as fm
from qcomp.ir.intervals import REALS, operand_interval, outward
from qcomp.ir.ops.reduce import mean, row_max
from qcomp.ir.ordered import ordered_sum, to_rows
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.shapes import check_axis
from qcomp.ir.types import DType, TensorType


def _float32(call: Call, *indices: int) -> TensorType:
    for index in indices:
        if call.has(index) and call.type(index).dtype is not DType.F32:
            raise call.fail(f"operand {index} is {call.type(index).dtype.value}, not f32", fix="cast it first")
    return call.type(0)


def _along(x: np.ndarray, axis: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """x as rows along one axis, and the shape of the moved array, for `_back`."""
    moved = np.moveaxis(x, axis, -1)
    return to_rows(x, (axis,)), moved.shape


def _back(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape), -1, axis))


@register
class Softmax(Op):
    """Along `axis`: m = max x; e = exp(x − m); y = e / Σe.  x f32[...] -> f32[...]."""

    name = "softmax"
    attributes = {"axis": Attr("int")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = _float32(call, 0)
        check_axis(call, call.int("axis"), x.rank)
        return [x]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        rows, shape = _along(x, call.int("axis"))
        e = fm.exp(rows - row_max(rows)[:, None])
        return [_back(e / ordered_sum(e)[:, None], shape, call.int("axis"))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [Interval.of(0.0, 1.0)]


@register
class LogSoftmax(Op):
    """Along `axis`: m = max x; y = (x − m) − log Σexp(x − m).  x f32[...] -> f32[...]."""

    name = "log_softmax"
    attributes = {"axis": Attr("int")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = _float32(call, 0)
        check_axis(call, call.int("axis"), x.rank)
        return [x]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        rows, shape = _along(x, call.int("axis"))
        shifted = rows - row_max(rows)[:, None]
        return [_back(shifted - fm.log(ordered_sum(fm.exp(shifted)))[:, None], shape, call.int("axis"))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [Interval.of(-np.inf, 1e-6)]


def _normalized(rows: np.ndarray, epsilon: float) -> np.ndarray:
    """d = x − mean; v = mean(d · d); d · (1 / sqrt(v + float32(epsilon))), row by row."""
    d = rows - mean(rows)[:, None]
    inverse = np.float32(1) / np.sqrt(mean(d * d) + np.float32(epsilon))
    return np.asarray(d * inverse[:, None])


def _affine(count: int, scale: Interval, bias: Interval | None) -> Interval:
    """Bounds of n · scale + bias for a normalized n: |n| <= sqrt(count), since Σn² <= count."""
    size = np.sqrt(count) * 1.0001 * np.maximum(np.abs(scale.lo), np.abs(scale.hi))
    if bias is None:
        return outward(-size, size)
    return outward(-size + bias.lo, size + bias.hi)


@register
class LayerNorm(Op):
    """Normalizes over axes `axis`..last; scale and bias broadcast to those dimensions.

    d = x − mean; v = mean(d · d); y = (d · (1 / sqrt(v + epsilon))) · scale + bias.
    """

    name = "layer_norm"
    operands = ("x", "scale", "bias?")
    attributes = {"axis": Attr("int"), "epsilon": Attr("float", 1e-5)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = _float32(call, 0, 1, 2)
        axis = check_axis(call, call.int("axis"), x.rank)
        for index in (1, 2):
            if not call.has(index):
                continue
            shape = call.type(index).shape
            try:
                fits = np.broadcast_shapes(shape, x.shape[axis:]) == x.shape[axis:]
            except ValueError:
                fits = False
            if not fits:
                raise call.fail(f"operand {index} {list(shape)} does not broadcast to {list(x.shape[axis:])}")
        return [x]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, scale = operands[:2]
        bias = operands[2] if len(operands) > 2 else None
        assert x is not None and scale is not None
        rows = to_rows(x, tuple(range(call.int("axis"), x.ndim)))
        y = _normalized(rows, call.float("epsilon")).reshape(x.shape) * scale
        return [y if bias is None else y + bias]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        count = int(np.prod(call.type(0).shape[call.int("axis") :], dtype=np.int64))
        bias = operand_interval(call, operands, 2) if call.has(2) else None
        return [_affine(count, operand_interval(call, operands, 1), bias)]


def _check_channels(call: Call, indices: Sequence[int]) -> TensorType:
    x = _float32(call, 0, *indices)
    if x.rank < 2:
        raise call.fail(f"x has shape {list(x.shape)}, and no channel axis 1")
    for index in indices:
        if call.type(index).shape != (x.shape[1],):
            raise call.fail(f"operand {index} has shape {list(call.type(index).shape)}, not [{x.shape[1]}]")
    return x


@register
class BatchNorm(Op):
    """y = (x − mean[c]) · (scale[c] / sqrt(var[c] + epsilon)) + bias[c] along axis 1; x f32[N,C,...]."""

    name = "batch_norm"
    operands = ("x", "scale", "bias", "mean", "var")
    attributes = {"epsilon": Attr("float", 1e-5)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        return [_check_channels(call, (1, 2, 3, 4))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x = operands[0]
        assert x is not None
        shape = (-1,) + (1,) * (x.ndim - 2)
        scale, bias, average, var = (np.asarray(o).reshape(shape) for o in operands[1:])
        return [(x - average) * (scale / np.sqrt(var + np.float32(call.float("epsilon")))) + bias]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        scale, bias, average, var = (call.constant(i) for i in range(1, 5))
        if scale is None or bias is None or average is None or var is None:
            return [REALS]
        x = operand_interval(call, operands, 0)
        shape = (-1,) + (1,) * (call.type(0).rank - 2)
        with np.errstate(all="ignore"):
            factor = (scale / np.sqrt(var + np.float32(call.float("epsilon")))).astype(np.float64).reshape(shape)
            centre = outward(x.lo - average.reshape(shape), x.hi - average.reshape(shape))
            ends = [np.where(factor == 0, 0.0, e * factor) for e in (centre.lo, centre.hi)]
            scaled = outward(np.minimum(*ends), np.maximum(*ends))
            return [outward(scaled.lo + bias.reshape(shape), scaled.hi + bias.reshape(shape))]


@register
class InstanceNorm(Op):
    """Normalizes each channel of each image over its pixels, as layer_norm; x f32[N,C,...], scale and bias [C]."""

    name = "instance_norm"
    operands = ("x", "scale", "bias")
    attributes = {"epsilon": Attr("float", 1e-5)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        return [_check_channels(call, (1, 2))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, scale, bias = operands
        assert x is not None and scale is not None and bias is not None
        shape = (-1,) + (1,) * (x.ndim - 2)
        rows = to_rows(x, tuple(range(2, x.ndim)))
        y = _normalized(rows, call.float("epsilon")).reshape(x.shape)
        return [y * scale.reshape(shape) + bias.reshape(shape)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        count = int(np.prod(call.type(0).shape[2:], dtype=np.int64))
        shape = (-1,) + (1,) * (call.type(0).rank - 2)
        sides = [operand_interval(call, operands, i) for i in (1, 2)]
        scale, bias = (
            Interval(s.lo.reshape(shape), s.hi.reshape(shape)) if s.lo.ndim and s.hi.ndim else s for s in sides
        )
        return [_affine(count, scale, bias)]


@register
class Lrn(Op):
    """Local response normalization across channels (axis 1), as ONNX LRN.

    s = Σ x² over channels c − (size−1)/2 .. c + size/2, in order from 0; y = x / pow(s · (alpha/size) + bias, beta).
    """

    name = "lrn"
    attributes = {
        "size": Attr("int"),
        "alpha": Attr("float", 1e-4),
        "beta": Attr("float", 0.75),
        "bias": Attr("float", 1.0),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = _float32(call, 0)
        if x.rank < 2 or call.int("size") < 1:
            raise call.fail(f"x has shape {list(x.shape)} and the window {call.int('size')} channels")
        return [x]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        size, channels = call.int("size"), x.shape[1]
        before = (size - 1) // 2
        square = np.zeros((x.shape[0], channels + size - 1, *x.shape[2:]), x.dtype)
        square[:, before : before + channels] = x * x
        total = np.zeros_like(x)
        for tap in range(size):
            total = total + square[:, tap : tap + channels]
        base = total * np.float32(call.float("alpha") / size) + np.float32(call.float("bias"))
        return [x / fm.pow(base, np.full_like(base, np.float32(call.float("beta"))))]
