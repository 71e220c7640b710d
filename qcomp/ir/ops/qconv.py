"""Integer convolutions: qconv2d and qconv_transpose2d."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.requantize import (
    PRODUCT,
    check_activation,
    check_clamp,
    check_int8,
    check_residual,
    check_table,
    check_vector,
    finish,
    integer_matmul,
    product_interval,
    product_result,
    stored_interval,
)
from qcomp.ir.types import DType, TensorType
from qcomp.ir.windows import convolve_nhwc, pad_nhwc, window_counts


@register
class QConv2d(Op):
    """x i8 (or i16) [N,H,W,C], w i8[O,KH,KW,C/groups], bias i32[O], mult f32[O] -> i8 (i16, f32) [N,OH,OW,O].

    residual i8[N,OH,OW,O]: clamp(rne(float32(acc)·mult + float32(residual − r_zp)·r_mult) + zp, lo, hi), two float32
    products and their float32 sum, never fused.

    bounded: the model clamps here, so that lo and hi are more than the ends of a grid, even where they are those of
    int8.  It changes no result; passes that would let values beyond the grid through ask for it.
    """

    name = "qconv2d"
    operands = ("x", "w", "bias", "mult", "table?", "residual?")
    attributes = {
        "strides": Attr("ints", (1, 1)),
        "dilations": Attr("ints", (1, 1)),
        "pads": Attr("ints", (0, 0, 0, 0)),
        "groups": Attr("int", 1),
        "r_zp": Attr("int", 0),
        "r_mult": Attr("float", 0.0),
        "bounded": Attr("bool", False, note=True),
        **PRODUCT,
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w, groups = check_activation(call, 0), check_int8(call, 1), call.int("groups")
        if x.rank != 4 or w.rank != 4:
            raise call.fail(f"x has rank {x.rank} and w rank {w.rank}, both must be 4")
        out, _, _, inner = w.shape
        if groups < 1 or x.shape[3] != inner * groups or out % groups:
            raise call.fail(f"{x.shape[3]} channels, weights {w.shape} and {groups} groups do not fit")
        check_vector(call, 2, DType.I32, out, "bias")
        check_vector(call, 3, DType.F32, out, "mult")
        check_table(call, 4)
        check_clamp(call)
        rows, cols = window_counts(call, x.shape[1:3], w.shape[1:3])
        results = product_result(call, (x.shape[0], rows, cols, out))
        if call.has(5):
            check_residual(call, 5, results[0])
        return results

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w, bias, mult = operands[:4]
        table = operands[4] if len(operands) > 4 else None
        residual = operands[5] if len(operands) > 5 else None
        assert x is not None and w is not None and bias is not None and mult is not None
        centred = pad_nhwc(x.astype(np.int32) - call.int("x_zp"), call.ints("pads"))
        acc = convolve_nhwc(centred, w, call.ints("strides"), call.ints("dilations"), call.int("groups"))
        return [finish(call, acc + bias, mult, table, residual)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [product_interval(call, operands[0], stored_interval(operands[5]) if call.has(5) else None)]

    def macs(self, call: Call) -> int:
        w = call.type(1).shape
        return call.results[0].elements * w[1] * w[2] * w[3]


@register
class QConvTranspose2d(Op):
    """x i8 (or i16) [N,H,W,C], w i8[O,KH,KW,C], bias i32[O], mult f32[O] -> i8 (i16, f32) [N,OH,OW,O].

    The transpose of a convolution: input pixel (i, j) adds x·w to the outputs (i·stride + tap·dilation − pad).
    OH = (H−1)·stride + (KH−1)·dilation + 1 − top − bottom + output_pad.  One group.
    """

    name = "qconv_transpose2d"
    operands = ("x", "w", "bias", "mult", "table?")
    attributes = {
        "strides": Attr("ints", (1, 1)),
        "dilations": Attr("ints", (1, 1)),
        "pads": Attr("ints", (0, 0, 0, 0)),
        "output_pads": Attr("ints", (0, 0)),
        **PRODUCT,
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w = check_activation(call, 0), check_int8(call, 1)
        if x.rank != 4 or w.rank != 4 or x.shape[3] != w.shape[3]:
            raise call.fail(f"x {x.shape} and w {w.shape} do not fit")
        out = w.shape[0]
        check_vector(call, 2, DType.I32, out, "bias")
        check_vector(call, 3, DType.F32, out, "mult")
        check_table(call, 4)
        check_clamp(call)
        strides, dilations, pads = call.ints("strides"), call.ints("dilations"), call.ints("pads")
        extra = call.ints("output_pads")
        sizes = tuple(
            (x.shape[1 + a] - 1) * strides[a]
            + (w.shape[1 + a] - 1) * dilations[a]
            + 1
            - pads[a]
            - pads[a + 2]
            + extra[a]
            for a in range(2)
        )
        if min(sizes) < 1:
            raise call.fail(f"the output would have size {sizes}")
        return product_result(call, (x.shape[0], *sizes, out))

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w, bias, mult = operands[:4]
        table = operands[4] if len(operands) > 4 else None
        assert x is not None and w is not None and bias is not None and mult is not None
        (sh, sw), (dh, dw), pads = call.ints("strides"), call.ints("dilations"), call.ints("pads")
        n, h, wide, _ = x.shape
        out, kh, kw, _ = w.shape
        _, rows, cols, _ = call.results[0].shape
        full = np.zeros((n, (h - 1) * sh + (kh - 1) * dh + 1, (wide - 1) * sw + (kw - 1) * dw + 1, out), np.int64)
        centred = x.astype(np.int32) - call.int("x_zp")
        for i in range(kh):
            for j in range(kw):
                term = integer_matmul(centred, w[:, i, j, :].T)
                full[:, i * dh : i * dh + sh * (h - 1) + 1 : sh, j * dw : j * dw + sw * (wide - 1) + 1 : sw] += term
        acc = np.zeros((n, rows, cols, out), np.int64)
        part = full[:, pads[0] : pads[0] + rows, pads[1] : pads[1] + cols]
        acc[:, : part.shape[1], : part.shape[2]] = part
        return [finish(call, acc + bias, mult, table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [product_interval(call, operands[0])]

    def macs(self, call: Call) -> int:
        return call.type(0).elements * call.type(1).elements // call.type(0).shape[3]
