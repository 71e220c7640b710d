"""Integer product of two computed tensors: qmatmul."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    result_interval,
    rounded_result,
    stored_interval,
)
from qcomp.ir.types import DType, TensorType


@register
class QMatMul(Op):
    """a i8[...,M,K], b i8[...,K,N], batches broadcast -> i8 (i16, f32) [...,M,N].

    requantize(Σ (a−a_zp)·(b−b_zp), mult, zp, lo, hi); dtype f32: float32(Σ ...) · mult.
    """

    name = "qmatmul"
    operands = ("a", "b")
    attributes = {
        "a_zp": Attr("int", 0),
        "b_zp": Attr("int", 0),
        "mult": Attr("float"),
        **REQUANTIZE,
        "dtype": Attr("dtype", DType.I8),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        a, b = check_int8(call, 0), check_int8(call, 1)
        if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
            raise call.fail(f"a {a.shape} and b {b.shape} do not multiply")
        try:
            batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            raise call.fail(f"batches {a.shape[:-2]} and {b.shape[:-2]} do not broadcast") from None
        check_clamp(call)
        check_zero_points(call, "a_zp", "b_zp")
        check_float32(call, "mult")
        check_taps(call, a.shape[-1])
        return product_result(call, (*batch, a.shape[-2], b.shape[-1]))

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands
        assert a is not None and b is not None
        acc = integer_matmul(a.astype(np.int32) - call.int("a_zp"), b.astype(np.int32) - call.int("b_zp"))
        return [rounded_result(call, acc.astype(np.float32) * np.float32(call.float("mult")))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        a, b = (stored_interval(x).span for x in operands[:2])
        products = [(x - call.int("a_zp")) * (y - call.int("b_zp")) for x in a for y in b]
        depth = call.type(0).shape[-1]
        ends = np.array([min(products), max(products)]) * depth
        low, high = np.sort(ends.astype(np.float32) * np.float32(call.float("mult")))
        if call.dtype("dtype") is DType.F32:
            return [Interval.of(low, high)]
        return [result_interval(call, low, high)]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * call.type(0).shape[-1]
