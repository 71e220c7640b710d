"""Float convolutions.  The sum of each output runs over kernel rows, kernel columns, then channels, in order; the bias
comes last.  That order does not depend on the layout, so a change of layout keeps the bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.intervals import REALS, collapse, operand_interval, outward, unless_overflow, with_zero
from qcomp.ir.ordered import ordered_product
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.shapes import float_only, same_dtype
from qcomp.ir.types import TensorType
from qcomp.ir.windows import window_counts

_BAND = 1 << 23  # elements of one band of unfolded input

WINDOW = {
    "strides": Attr("ints", (1, 1)),
    "dilations": Attr("ints", (1, 1)),
    "pads": Attr("ints", (0, 0, 0, 0)),
}


def is_channels_last(call: Call) -> bool:
    layout = call.str("layout")
    if layout not in ("NCHW", "NHWC"):
        raise call.fail(f"layout {layout!r} is neither NCHW nor NHWC")
    return layout == "NHWC"


def image_shape(call: Call, x: TensorType) -> tuple[int, int, int, int]:
    """(N, C, H, W) of an image tensor of either layout."""
    if x.rank != 4:
        raise call.fail(f"x has shape {list(x.shape)}, not four dimensions")
    n, a, b, c = x.shape
    return (n, c, a, b) if is_channels_last(call) else (n, a, b, c)


def image_type(call: Call, like: TensorType, n: int, c: int, h: int, w: int) -> TensorType:
    return like.with_shape((n, h, w, c) if is_channels_last(call) else (n, c, h, w))


def to_nchw(call: Call, x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2) if is_channels_last(call) else x


def from_nchw(call: Call, x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if is_channels_last(call) else x


def channel_bounds(call: Call, x: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of an image tensor per channel: two arrays of size C or 1."""
    axis = 3 if is_channels_last(call) else 1
    flat = collapse(x, 4, tuple(a for a in range(4) if a != axis))
    return flat.lo.reshape(-1), flat.hi.reshape(-1)


def per_channel(call: Call, lo: np.ndarray, hi: np.ndarray) -> Interval:
    """Bounds per channel, shaped to broadcast against an image tensor of the node's layout."""
    shape = (-1,) if is_channels_last(call) else (-1, 1, 1)
    return Interval(lo.reshape(shape), hi.reshape(shape))


def product_bounds(
    weights: np.ndarray, low: np.ndarray, high: np.ndarray, bias: Interval | None
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of bias + Σ_k w[o, k]·x[k] per output o, float32 rounding included; low and high are per k or scalars."""
    w = weights.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and np.isfinite(w).all()):
        return np.full(len(w), -np.inf), np.full(len(w), np.inf)
    ends = w * low, w * high
    least, most = np.minimum(*ends).sum(1), np.maximum(*ends).sum(1)
    # each of K products and sums errs by half a unit of a partial sum, which Σ|w·x| bounds
    partial = np.maximum(np.abs(ends[0]), np.abs(ends[1])).sum(1)
    error = partial * (w.shape[1] + 3) * 2.0**-24 * 1.01
    bound = unless_overflow(Interval(least - error, most + error), partial)
    least, most = bound.lo, bound.hi
    if bias is not None:
        least, most = least + bias.lo.reshape(-1), most + bias.hi.reshape(-1)
    wide = outward(least, most)
    return wide.lo, wide.hi


def _check_bias(call: Call, size: int) -> None:
    if call.has(2) and call.type(2).shape != (size,):
        raise call.fail(f"bias has shape {list(call.type(2).shape)}, not [{size}]")


def _check_operands(call: Call) -> tuple[TensorType, TensorType]:
    x, w = float_only(call, call.type(0)), float_only(call, call.type(1))
    same_dtype(call, x, w, *([call.type(2)] if call.has(2) else []))
    if w.rank != 4:
        raise call.fail(f"w has shape {list(w.shape)}, not four dimensions")
    return x, w


@register
class Conv2d(Op):
    """x f32[N,C,H,W] or [N,H,W,C], w [O,C/groups,KH,KW], b [O] -> [N,O,OH,OW] or [N,OH,OW,O]; pads are t, l, b, r."""

    name = "conv2d"
    operands = ("x", "w", "b?")
    attributes = {**WINDOW, "groups": Attr("int", 1), "layout": Attr("str", "NCHW")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w = _check_operands(call)
        n, c, h, wide = image_shape(call, x)
        out, inner, kh, kw = w.shape
        groups = call.int("groups")
        if groups < 1 or c != inner * groups or out % groups:
            raise call.fail(f"{c} channels, weights {list(w.shape)} and {groups} groups do not fit")
        _check_bias(call, out)
        rows, cols = window_counts(call, (h, wide), (kh, kw))
        return [image_type(call, x, n, out, rows, cols)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w = operands[:2]
        bias = operands[2] if len(operands) > 2 else None
        assert x is not None and w is not None
        top, left, bottom, right = call.ints("pads")
        image = np.pad(to_nchw(call, x), ((0, 0), (0, 0), (top, bottom), (left, right)))
        y = convolve(image, w, call.ints("strides"), call.ints("dilations"), call.int("groups"))
        if bias is not None:
            y = y + bias[:, None, None]
        return [from_nchw(call, y)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        weights = call.constant(1)
        if weights is None:
            return [REALS]
        x = operand_interval(call, operands, 0)
        low, high = channel_bounds(call, with_zero(x) if any(call.ints("pads")) else x)
        bias = operand_interval(call, operands, 2) if call.has(2) else None
        out, inner, kh, kw = weights.shape
        groups, c = call.int("groups"), inner * call.int("groups")
        # per output channel its group's input channels, once for each tap
        group = np.arange(out) // (out // groups)
        channel = (group[:, None] * inner + np.arange(inner)).repeat(kh * kw, axis=1)
        least, most = (np.broadcast_to(b, (c,))[channel] for b in (low, high))
        return [per_channel(call, *product_bounds(weights.reshape(out, -1), least, most, bias))]

    def macs(self, call: Call) -> int:
        _, inner, kh, kw = call.type(1).shape
        return call.results[0].elements * inner * kh * kw


def convolve(
    x: np.ndarray, w: np.ndarray, strides: tuple[int, ...], dilations: tuple[int, ...], groups: int
) -> np.ndarray:
    """x [N,C,H,W] (padded), w [O,C/groups,KH,KW] -> [N,O,OH,OW], without bias, in the stated order."""
    (sh, sw), (dh, dw) = strides, dilations
    n, c, h, wide = x.shape
    out, inner, kh, kw = w.shape
    rows, cols = (h - dh * (kh - 1) - 1) // sh + 1, (wide - dw * (kw - 1) - 1) // sw + 1
    if inner == 1:  # depthwise: few terms, vectors over everything
        y = np.zeros((n, groups, out // groups, rows, cols), x.dtype)
        for i in range(kh):
            for j in range(kw):
                tap = x[:, :, i * dh : i * dh + sh * (rows - 1) + 1 : sh, j * dw : j * dw + sw * (cols - 1) + 1 : sw]
                y += tap[:, :, None] * w[:, 0, i, j].reshape(groups, -1, 1, 1)
        return y.reshape(n, out, rows, cols)
    y = np.empty((n, out, rows, cols), x.dtype)
    s = x.strides
    windows = np.lib.stride_tricks.as_strided(
        x, (kh, kw, c, n, rows, cols), (s[2] * dh, s[3] * dw, s[1], s[0], s[2] * sh, s[3] * sw), writeable=False
    )
    per_group = out // groups
    band = max(1, _BAND // max(1, inner * kh * kw * n * cols))
    for group in range(groups):
        channels = slice(group * inner, (group + 1) * inner)
        outs = slice(group * per_group, (group + 1) * per_group)
        factors = w[outs].transpose(0, 2, 3, 1).reshape(per_group, -1)
        for row in range(0, rows, band):
            part = windows[:, :, channels, :, row : row + band]
            unfolded = part.reshape(kh * kw * inner, -1)
            product = ordered_product(factors, unfolded).reshape(per_group, n, part.shape[4], cols)
            y[:, outs, row : row + band] = product.transpose(1, 0, 2, 3)
    return y


@register
class ConvTranspose2d(Op):
    """x f32[N,C,H,W] or [N,H,W,C], w [C,O/groups,KH,KW], b [O] -> [N,O,OH,OW] or [N,OH,OW,O].

    Input pixel (i, j) adds x·w to outputs (i·stride + tap·dilation − pad).
    OH = (H−1)·stride + (KH−1)·dilation + 1 − top − bottom + output_pad.
    """

    name = "conv_transpose2d"
    operands = ("x", "w", "b?")
    attributes = {
        **WINDOW,
        "output_pads": Attr("ints", (0, 0)),
        "groups": Attr("int", 1),
        "layout": Attr("str", "NCHW"),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w = _check_operands(call)
        n, c, h, wide = image_shape(call, x)
        inner, per_group, kh, kw = w.shape
        groups = call.int("groups")
        if groups < 1 or c != inner or c % groups:
            raise call.fail(f"{c} channels, weights {list(w.shape)} and {groups} groups do not fit")
        _check_bias(call, per_group * groups)
        strides, dilations, pads = call.ints("strides"), call.ints("dilations"), call.ints("pads")
        extra = call.ints("output_pads")
        if [len(strides), len(dilations), len(pads), len(extra)] != [2, 2, 4, 2]:
            raise call.fail("strides, dilations, pads or output_pads are not those of two dimensions")
        if min(*strides, *dilations) < 1 or min(*pads, *extra) < 0:
            raise call.fail(f"strides {strides}, dilations {dilations}, pads {pads}, output_pads {extra} out of range")
        sizes = [
            (size - 1) * strides[a] + (k - 1) * dilations[a] + 1 - pads[a] - pads[a + 2] + extra[a]
            for a, (size, k) in enumerate(((h, kh), (wide, kw)))
        ]
        if min(sizes) < 1:
            raise call.fail(f"the output would have size {sizes}")
        return [image_type(call, x, n, per_group * groups, sizes[0], sizes[1])]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w = operands[:2]
        bias = operands[2] if len(operands) > 2 else None
        assert x is not None and w is not None
        x = to_nchw(call, x)
        (sh, sw), (dh, dw), pads = call.ints("strides"), call.ints("dilations"), call.ints("pads")
        (eh, ew), groups = call.ints("output_pads"), call.int("groups")
        n, c, h, wide = x.shape
        _, per_group, kh, kw = w.shape
        inner = c // groups
        tall = (h - 1) * sh + (kh - 1) * dh + 1 + eh
        full = np.zeros((n, per_group * groups, tall, (wide - 1) * sw + (kw - 1) * dw + 1 + ew), x.dtype)
        for group in range(groups):
            outs = full[:, group * per_group : (group + 1) * per_group]
            for i in range(kh):
                for j in range(kw):
                    rows = slice(i * dh, i * dh + sh * (h - 1) + 1, sh)
                    acc = outs[:, :, rows, j * dw : j * dw + sw * (wide - 1) + 1 : sw]
                    for k in range(group * inner, (group + 1) * inner):
                        acc += x[:, None, k] * w[k, :, i, j, None, None]
        y = full[:, :, pads[0] : tall - pads[2], pads[1] : full.shape[3] - pads[3]]
        if bias is not None:
            y = y + bias[:, None, None]
        return [from_nchw(call, np.ascontiguousarray(y))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        weights = call.constant(1)
        if weights is None:
            return [REALS]
        low, high = channel_bounds(call, with_zero(operand_interval(call, operands, 0)))
        bias = operand_interval(call, operands, 2) if call.has(2) else None
        c, per_group, kh, kw = weights.shape
        groups = call.int("groups")
        inner = c // groups
        # any subset of the taps can meet at one output, and zero is in the operand's interval
        grouped = weights.reshape(groups, inner, per_group, kh * kw).transpose(0, 2, 1, 3)
        channel = (np.arange(groups)[:, None] * inner + np.arange(inner)).repeat(kh * kw, axis=1)
        least, most = (np.broadcast_to(b, (c,))[channel].repeat(per_group, axis=0) for b in (low, high))
        return [per_channel(call, *product_bounds(grouped.reshape(per_group * groups, -1), least, most, bias))]

    def macs(self, call: Call) -> int:
        _, per_group, kh, kw = call.type(1).shape
        return call.type(0).elements * per_group * kh * kw
