"""Integer matrix product with constant weights: qgemm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.registry import Call, Interval, Op, register
from qcomp.ir.requantize import (
    PRODUCT,
    check_activation,
    check_clamp,
    check_int8,
    check_table,
    check_vector,
    finish,
    integer_matmul,
    product_interval,
    product_result,
)
from qcomp.ir.types import DType, TensorType


@register
class QGemm(Op):
    """x i8 (or i16) [...,K], w i8[N,K], bias i32[N], mult f32[N] -> i8 (i16, f32) [...,N]."""

    name = "qgemm"
    operands = ("x", "w", "bias", "mult", "table?")
    attributes = PRODUCT

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w = check_activation(call, 0), check_int8(call, 1)
        if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
            raise call.fail(f"x {x.shape} and w {w.shape} do not fit")
        check_vector(call, 2, DType.I32, w.shape[0], "bias")
        check_vector(call, 3, DType.F32, w.shape[0], "mult")
        check_table(call, 4)
        check_clamp(call)
        return product_result(call, (*x.shape[:-1], w.shape[0]))

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w, bias, mult = operands[:4]
        table = operands[4] if len(operands) > 4 else None
        assert x is not None and w is not None and bias is not None and mult is not None
        acc = integer_matmul(x.astype(np.int32) - call.int("x_zp"), w.T)
        return [finish(call, acc + bias, mult, table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [product_interval(call, operands[0])]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * call.type(1).shape[1]
