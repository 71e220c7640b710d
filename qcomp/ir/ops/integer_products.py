"""Products of integer tensors in int32, as ONNX has them: matmul_integer and conv_integer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.registry import Attr, Call, Op, register
from qcomp.ir.requantize import integer_matmul
from qcomp.ir.types import DType, TensorType
from qcomp.ir.windows import convolve_nhwc, pad_nhwc, window_counts


@register
class MatMulInteger(Op):
    """(a − a_zp) · (b − b_zp) in int32, batches broadcast; a and b are i8 or u8.

    Zero points are scalars, or one for each row of a or column of b.
    """

    name = "matmul_integer"
    operands = ("a", "b", "a_zp?", "b_zp?")

    def infer(self, call: Call) -> Sequence[TensorType]:
        a, b = call.type(0), call.type(1)
        for type in (a, b):
            if type.dtype not in (DType.I8, DType.U8):
                raise call.fail(f"operand is {type.dtype.value}, not i8 or u8")
        try:
            shape = np.matmul(np.empty(a.shape, np.bool_), np.empty(b.shape, np.bool_)).shape
        except ValueError:
            raise call.fail(f"shapes {a.shape} and {b.shape} do not multiply") from None
        return [TensorType(DType.I32, tuple(shape))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = (np.asarray(o).astype(np.int64) for o in operands[:2])
        a_zp = operands[2] if len(operands) > 2 else None
        b_zp = operands[3] if len(operands) > 3 else None
        if a_zp is not None:
            rows = a_zp.astype(np.int64)
            a = a - (rows[..., None] if rows.ndim == 1 and rows.size > 1 else rows)
        if b_zp is not None:
            b = b - b_zp.astype(np.int64)
        return [integer_matmul(a, b).astype(np.int32)]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * call.type(0).shape[-1]


@register
class ConvInteger(Op):
    """Integer convolution in int32: x [N,C,H,W], w [O,C/groups,KH,KW], i8 or u8.

    Zero points are scalars; that of w may also be one for each output channel.
    """

    name = "conv_integer"
    operands = ("x", "w", "x_zp?", "w_zp?")
    attributes = {
        "strides": Attr("ints", (1, 1)),
        "dilations": Attr("ints", (1, 1)),
        "pads": Attr("ints", (0, 0, 0, 0)),
        "groups": Attr("int", 1),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w, groups = call.type(0), call.type(1), call.int("groups")
        for type in (x, w):
            if type.dtype not in (DType.I8, DType.U8) or type.rank != 4:
                raise call.fail(f"operand is {type.dtype.value} of rank {type.rank}, not i8 or u8 of rank 4")
        if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
            raise call.fail(f"{x.shape[1]} channels, weights {w.shape} and {groups} groups do not fit")
        rows, cols = window_counts(call, x.shape[2:], w.shape[2:])
        return [TensorType(DType.I32, (x.shape[0], w.shape[0], rows, cols))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w = (np.asarray(o).astype(np.int64) for o in operands[:2])
        x_zp = operands[2] if len(operands) > 2 else None
        w_zp = operands[3] if len(operands) > 3 else None
        if x_zp is not None:
            x = x - x_zp.astype(np.int64)
        if w_zp is not None:
            w = w - w_zp.astype(np.int64).reshape(-1, 1, 1, 1)
        padded = pad_nhwc(x.transpose(0, 2, 3, 1), call.ints("pads"))
        acc = convolve_nhwc(
            padded, w.transpose(0, 2, 3, 1), call.ints("strides"), call.ints("dilations"), call.int("groups")
        )
        return [np.ascontiguousarray(acc.transpose(0, 3, 1, 2)).astype(np.int32)]

    def macs(self, call: Call) -> int:
        w = call.type(1).shape
        return call.results[0].elements * w[1] * w[2] * w[3]
