"""Pooling over windows of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qcomp.ir.intervals import collapse, magnitude, operand_interval, outward, unless_overflow, with_zero
from qcomp.ir.ops.conv import WINDOW, from_nchw, image_shape, image_type, is_channels_last, to_nchw
from qcomp.ir.ordered import select_max
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.shapes import check_length, float_only, unquantized
from qcomp.ir.types import DType, TensorType
from qcomp.ir.windows import window_counts


def _result_type(call: Call, x: TensorType) -> TensorType:
    n, c, h, w = image_shape(call, x)
    rows, cols = window_counts(call, (h, w), check_length(call, "kernel", 2))
    return image_type(call, x, n, c, rows, cols)


def _taps(call: Call, x: np.ndarray, fill: object) -> Iterator[np.ndarray]:
    """For each kernel tap in row-major order, its input [N, C, OH, OW] of x [N, C, H, W]; padding reads `fill`."""
    top, left, bottom, right = call.ints("pads")
    kh, kw = call.ints("kernel")
    (sh, sw), (dh, dw) = call.ints("strides"), call.ints("dilations") if "dilations" in call.attrs else (1, 1)
    n, c, h, w = x.shape
    padded = np.full((n, c, h + top + bottom, w + left + right), fill, x.dtype)
    padded[:, :, top : top + h, left : left + w] = x
    rows = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    cols = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    for i in range(kh):
        for j in range(kw):
            part = padded[:, :, i * dh : i * dh + sh * (rows - 1) + 1 : sh]
            yield part[:, :, :, j * dw : j * dw + sw * (cols - 1) + 1 : sw]


def _channel_interval(call: Call, x: Interval) -> Interval:
    return collapse(x, 4, (1, 2) if is_channels_last(call) else (2, 3))


@register
class MaxPool(Op):
    """Maximum of each window: best = −∞, then v > best ? v : best over the taps in order; padding never wins.

    x of any real type, [N,C,H,W] or [N,H,W,C]; quantization passes through.
    """

    name = "max_pool"
    attributes = {"kernel": Attr("ints"), **WINDOW, "layout": Attr("str", "NCHW")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        if x.dtype is DType.BOOL:
            raise call.fail("operand is bool, not a number")
        if x.quant is not None and x.quant.axis is not None:
            raise call.fail("operand has one scale a channel, activations have one a tensor")
        return [_result_type(call, x)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        lowest: float = -np.inf if x.dtype.kind == "f" else call.type(0).dtype.limits[0]
        image = to_nchw(call, x)
        best: np.ndarray | None = None
        for tap in _taps(call, image, lowest):
            best = select_max(np.full_like(tap, lowest) if best is None else best, tap)
        assert best is not None
        return [from_nchw(call, best)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        x = _channel_interval(call, operand_interval(call, operands, 0))
        if _window_can_miss(call):
            dtype = call.type(0).dtype
            lowest = -np.inf if dtype.is_float else float(dtype.limits[0])
            return [Interval(np.minimum(x.lo, lowest), x.hi)]
        return [x]


def _window_can_miss(call: Call) -> bool:
    """True if some window may lie in the padding alone, or skip over the image between dilated taps."""
    pads, kernel = call.ints("pads"), call.ints("kernel")
    return any(p >= k for p, k in zip(pads, kernel * 2, strict=True)) or (
        any(pads) and any(d > 1 for d in call.ints("dilations"))
    )


@register
class AvgPool(Op):
    """Mean of each window: taps added in row-major order from 0, divided by float32(count).

    `count` is the number of taps inside the image (at least 1), or the kernel's area with count_include_pad.
    x float [N,C,H,W] or [N,H,W,C].
    """

    name = "avg_pool"
    attributes = {
        "kernel": Attr("ints"),
        "strides": Attr("ints", (1, 1)),
        "pads": Attr("ints", (0, 0, 0, 0)),
        "count_include_pad": Attr("bool", False),
        "layout": Attr("str", "NCHW"),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        return [_result_type(call, float_only(call, unquantized(call, call.type(0))))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        total: np.ndarray | None = None
        for tap in _taps(call, to_nchw(call, x), 0):
            total = (np.zeros_like(tap) if total is None else total) + tap
        assert total is not None
        return [from_nchw(call, total / self.counts(call).astype(x.dtype))]

    @staticmethod
    def counts(call: Call) -> np.ndarray:
        """Divisor of each output position, int64 [OH, OW]."""
        _, _, h, w = image_shape(call, call.type(0))
        fill = 1 if call.bool("count_include_pad") else 0
        counted = sum(_taps(call, np.ones((1, 1, h, w), np.int64), fill))
        return np.asarray(np.maximum(np.asarray(counted)[0, 0], 1))

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        x = _channel_interval(call, operand_interval(call, operands, 0))
        if any(call.ints("pads")):
            x = with_zero(x)
        area = int(np.prod(call.ints("kernel")))
        # area sums and a division; partial sums may cancel, so the slack is that of the larger end
        size = magnitude(x)
        slack = size * (area + 2) * 2.0**-24 * 1.01
        with np.errstate(all="ignore"):
            return [unless_overflow(outward(x.lo - slack, x.hi + slack), size * area)]
