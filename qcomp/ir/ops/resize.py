"""Resampling along axes, as ONNX Resize: every axis is a small table of taps, computed at compile time.

Source positions are computed in float32, one rounded operation after the other, as onnxruntime does: where a position
falls on an element or half way between two, the last bit decides which element is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qcomp.ir.intervals import collapse, operand_interval, outward
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.shapes import check_length, float_only, moved_quant
from qcomp.ir.types import TensorType

_Position = Callable[[np.ndarray, np.float32, int, int], np.ndarray]
_HALF, _ONE = np.float32(0.5), np.float32(1)
_TIE = 1e-6  # positions this near to half way count as half way


def _symmetric(i: np.ndarray, scale: np.float32, size: int, out: int) -> np.ndarray:
    adjustment = np.float32(out) / (scale * np.float32(size))
    return np.float32(size / 2) * (_ONE - adjustment) + (i + _HALF) / scale - _HALF


# Source position of output index i: functions of (i float32, scale, input size, output size), all in float32.
COORDINATES: dict[str, _Position] = {
    "half_pixel": lambda i, scale, size, out: (i + _HALF) / scale - _HALF,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda i, scale, size, out: (i + _HALF) / scale - _HALF if out > 1 else np.zeros_like(i),
    "align_corners": lambda i, scale, size, out: (
        i * np.float32(size - 1) / np.float32(out - 1) if out > 1 else np.zeros_like(i)
    ),
    "asymmetric": lambda i, scale, size, out: i / scale,
}

# Functions of float64 positions.
ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda p: np.ceil(p - 0.5 - _TIE),
    "round_prefer_ceil": lambda p: np.floor(p + 0.5 + _TIE),
    "floor": np.floor,
    "ceil": np.ceil,
}

MODES = ("nearest", "linear", "cubic")


def axis_taps(call: Call, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices int64 [out, taps], weights float32 [out, taps]) of one axis; nearest has one tap of weight 1."""
    size, out = call.type(0).shape[axis], call.ints("sizes")[axis]
    scale = np.float32(call.attrs["scales"][axis])  # type: ignore[index]
    position = COORDINATES[call.str("coordinates")](np.arange(out, dtype=np.float32), scale, size, out)
    position = position.astype(np.float64)
    mode = call.str("mode")
    if mode == "nearest":
        index = ROUNDING[call.str("rounding")](position)[:, None]
        weights = np.ones_like(index)
    elif mode == "linear":
        position = np.clip(position, 0, size - 1)
        base = np.floor(position)
        part = position - base
        index = np.stack([base, base + 1], axis=1)
        weights = np.stack([1 - part, part], axis=1)
    else:
        base = np.floor(position)
        index = base[:, None] + np.arange(-1, 3)
        weights = _cubic(np.abs(position[:, None] - index), call.float("cubic_a"))
    return np.clip(index, 0, size - 1).astype(np.int64), weights.astype(np.float32)


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (R. Keys, 1981) at distances 0 <= d <= 2."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, near, far))


def resized_axes(call: Call) -> tuple[int, ...]:
    """Axes that the op works on, in the order it does: those whose size or scale changes, first to last."""
    sizes, scales = call.ints("sizes"), call.attrs["scales"]
    shape = call.type(0).shape
    return tuple(a for a in range(len(shape)) if sizes[a] != shape[a] or scales[a] != 1.0)  # type: ignore[index]


@register
class Resize(Op):
    """Resamples x to shape `sizes`, axis by axis; any rank.

    Each axis in turn: y = 0, then y = y + weight · x[index] over its taps in order, in the dtype of x, tap tables from
    `axis_taps`.  mode "nearest" only moves elements: any dtype, and quantization passes through; the others are float.
    """

    name = "resize"
    attributes = {
        "sizes": Attr("ints"),
        "scales": Attr("floats"),
        "mode": Attr("str", "nearest"),
        "coordinates": Attr("str", "half_pixel"),
        "rounding": Attr("str", "round_prefer_floor"),
        "cubic_a": Attr("float", -0.75),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        sizes = check_length(call, "sizes", x.rank)
        scales = call.attrs["scales"]
        if len(scales) != x.rank or not all(s > 0 for s in scales):  # type: ignore[arg-type,union-attr,operator]
            raise call.fail(f"scales {scales} are not {x.rank} positive numbers")
        if min((*sizes, *x.shape), default=1) < 1:
            raise call.fail(f"cannot resize {list(x.shape)} to {list(sizes)}")
        for name, known in (("mode", MODES), ("coordinates", COORDINATES), ("rounding", ROUNDING)):
            if call.str(name) not in known:
                raise call.fail(f"{name} {call.str(name)!r} is not one of {', '.join(known)}")
        if call.str("mode") != "nearest":
            float_only(call, x)
        kept = {a: a for a in range(x.rank) if a not in resized_axes(call)}
        return [x.with_shape(sizes).with_quant(moved_quant(call, x, kept))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        y = operands[0]
        assert y is not None
        for axis in resized_axes(call):
            index, weights = axis_taps(call, axis)
            if call.str("mode") == "nearest":
                y = np.take(y, index[:, 0], axis=axis)
                continue
            shape = (-1,) + (1,) * (y.ndim - 1 - axis)
            total: np.ndarray | None = None
            for tap in range(index.shape[1]):
                term = np.take(y, index[:, tap], axis=axis) * weights[:, tap].astype(y.dtype).reshape(shape)
                total = np.zeros_like(term) + term if total is None else total + term
            assert total is not None
            y = total
        return [np.asarray(y, order="C")]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        axes = resized_axes(call)
        x = collapse(operand_interval(call, operands, 0), call.type(0).rank, axes)
        if call.str("mode") == "nearest":
            return [x]
        for axis in axes:
            _, weights = axis_taps(call, axis)
            wide = weights.astype(np.float64)
            plus, minus = np.maximum(wide, 0).sum(1), np.minimum(wide, 0).sum(1)
            with np.errstate(all="ignore"):
                corner = [np.nan_to_num(np.multiply.outer(e, w), nan=0.0) for e in (x.lo, x.hi) for w in (plus, minus)]
                lows = corner[0] + corner[3]
                highs = corner[2] + corner[1]
            slack = np.maximum(np.abs(x.lo), np.abs(x.hi)) * 12 * 2.0**-24
            x = outward(lows.min(-1) - slack, highs.max(-1) + slack)
        return [x]
