"""Integer mean over windows: qavg_pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.requantize import FIXED, REQUANTIZE, check_clamp, check_int8, rescaled, result_interval, stored_interval
from qcomp.ir.types import DType, TensorType
from qcomp.ir.windows import pad_nhwc, window_counts, windows_nhwc


@register
class QAvgPool(Op):
    """Mean over windows of x i8[N,H,W,C]: requantize(Σ(x−x_zp), float32(ratio/count), zp, lo, hi).

    `count` is the number of taps inside the image, or the kernel's area with count_include_pad; `ratio` is s_x/s_y in
    float64, and the quotient is rounded to float32 once.
    """

    name = "qavg_pool"
    attributes = {
        "kernel": Attr("ints"),
        "strides": Attr("ints", (1, 1)),
        "pads": Attr("ints", (0, 0, 0, 0)),
        "count_include_pad": Attr("bool", False),
        "x_zp": Attr("int", 0),
        "ratio": Attr("float"),
        **FIXED,
        **REQUANTIZE,
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = check_int8(call, 0)
        if x.rank != 4:
            raise call.fail(f"x has rank {x.rank}, not 4")
        check_clamp(call)
        rows, cols = window_counts(call, x.shape[1:3], call.ints("kernel"))
        return [TensorType(DType.I8, (x.shape[0], rows, cols, x.shape[3]))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        kernel, strides, pads = call.ints("kernel"), call.ints("strides"), call.ints("pads")
        centred = pad_nhwc(x.astype(np.int32) - call.int("x_zp"), pads)
        acc = windows_nhwc(centred, kernel, strides, (1, 1)).sum(axis=(3, 4), dtype=np.int64)
        return [rescaled(call, acc, self.multipliers(call)[None, :, :, None])]

    @staticmethod
    def multipliers(call: Call) -> np.ndarray:
        """What the sum of each output position is multiplied by, float32 [OH, OW]."""
        return np.asarray((call.float("ratio") / QAvgPool.counts(call)).astype(np.float32))

    @staticmethod
    def counts(call: Call) -> np.ndarray:
        """Divisor of each output position, float64 [OH, OW]; at least 1."""
        kernel, strides, pads = call.ints("kernel"), call.ints("strides"), call.ints("pads")
        _, h, w, _ = call.type(0).shape
        inside = pad_nhwc(np.ones((1, h, w, 1), np.int64), pads)
        if call.bool("count_include_pad"):
            inside[:] = 1
        counted = windows_nhwc(inside, kernel, strides, (1, 1)).sum(axis=(3, 4))[0, :, :, 0]
        return np.asarray(np.maximum(counted, 1), np.float64)

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        low, high = (e - call.int("x_zp") for e in stored_interval(operands[0]).span)
        if any(call.ints("pads")):
            low, high = min(low, 0.0), max(high, 0.0)
        # with n taps inside the image, the sum lies between n·low and n·high
        inside = self.counts(replace(call, attrs={**call.attrs, "count_include_pad": False}))
        mult = self.multipliers(call)
        ends = [(inside * end).astype(np.float32) * mult for end in (low, high)]
        return [result_interval(call, np.minimum(*ends).min(), np.maximum(*ends).max(), 1)]
