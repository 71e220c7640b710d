"""The integer ops of the product form: convolution, gemm and elementwise arithmetic on int8, as the numeric contract
defines them.

    requantize(acc, m, zp, lo, hi) = clamp(rne(float32(acc) · m) + zp, lo, hi)

`rne` rounds half to even; int32 to float32 conversion, then one float32 multiply.  Activations are int8, spatial ones
NHWC; weights are int8 and symmetric; `mult` is (s_x·s_w[c])/s_y in float32.  An optional last operand
`table` i8[256] is applied to the result: y = table[y + 128].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.types import DType, TensorType

REQUANTIZE = {"zp": Attr("int", 0), "lo": Attr("int", -128), "hi": Attr("int", 127)}


def requantize(acc: np.ndarray, mult: np.ndarray | np.float32, zp: int, lo: int, hi: int) -> np.ndarray:
    """int32 accumulators to int8, per the numeric contract; `mult` broadcasts and is float32."""
    real = acc.astype(np.int32).astype(np.float32) * mult
    # Clamping the real first is exact (the bounds are integers) and keeps huge products inside int64.
    real = np.clip(real, np.float32(lo - zp), np.float32(hi - zp))
    return np.asarray(np.rint(real).astype(np.int64) + zp).astype(np.int8)


def apply_table(y: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    return y if table is None else np.asarray(table[y.astype(np.int64) + 128])


def integer_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact product of integer matrices through float64 BLAS (exact below 2^53), as int64."""
    return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64))).astype(np.int64)


def _check_clamp(call: Call) -> None:
    lo, zp, hi = call.int("lo"), call.int("zp"), call.int("hi")
    if not (-128 <= lo <= hi <= 127 and -128 <= zp <= 127):
        raise call.fail(f"clamp [{lo}, {hi}] or zero point {zp} is outside int8")


def _check_int8(call: Call, index: int) -> TensorType:
    type = call.type(index)
    if type.dtype is not DType.I8:
        raise call.fail(f"operand {index} is {type.dtype.value}, not i8")
    return type


def _check_vector(call: Call, index: int, dtype: DType, size: int, what: str) -> None:
    type = call.type(index)
    if type.dtype is not dtype or type.shape != (size,):
        raise call.fail(f"{what} is {type.dtype.value}{list(type.shape)}, not {dtype.value}[{size}]")


def _check_table(call: Call, index: int) -> None:
    if call.has(index):
        _check_vector(call, index, DType.I8, 256, "table")


def _result(call: Call, shape: tuple[int, ...]) -> list[TensorType]:
    """Result type of a product: i8 (its quantization is written by whoever builds the node) or f32."""
    dtype = call.dtype("dtype")
    if dtype not in (DType.I8, DType.F32):
        raise call.fail(f"result type {dtype.value} is neither i8 nor f32")
    return [TensorType(dtype, shape)]


def _finish(call: Call, acc: np.ndarray, mult: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    """Accumulators (channels last, any integer dtype that holds int32 values) to the node's result."""
    if call.dtype("dtype") is DType.F32:
        return np.asarray(acc.astype(np.int32).astype(np.float32) * mult)
    return apply_table(requantize(acc, mult, call.int("zp"), call.int("lo"), call.int("hi")), table)


def _stored(x: Interval | None) -> Interval:
    return Interval.of(-128, 127) if x is None else x


def _result_interval(call: Call, low: np.ndarray, high: np.ndarray, table_index: int) -> Interval:
    """Bounds of the int8 result of requantizing float32 values between low and high (either may be the larger)."""
    zp, lo, hi = call.int("zp"), call.int("lo"), call.int("hi")
    ends = [np.clip(np.rint(np.asarray(e, np.float64)) + zp, lo, hi) for e in (low, high)]
    bounds = Interval(np.minimum(*ends), np.maximum(*ends))
    if not call.has(table_index):
        return bounds
    table = call.constant(table_index)
    return Interval.of(-128, 127) if table is None else table_interval(table, bounds)


def table_interval(table: np.ndarray, x: Interval) -> Interval:
    """Bounds of table[x + 128], one for each bound of x."""
    lows, highs = np.broadcast_arrays(x.lo, x.hi)
    windows = [table[int(a) + 128 : int(b) + 129] for a, b in zip(lows.flat, highs.flat, strict=True)]
    least, most = ([float(f(w)) for w in windows] for f in (np.min, np.max))
    return Interval(np.reshape(least, lows.shape), np.reshape(most, lows.shape))


def _product_interval(call: Call, x: Interval | None) -> Interval:
    """Bounds of requantize(bias + Σ(x − x_zp)·w) per output channel, from constant weights."""
    weights, bias, mult = call.constant(1), call.constant(2), call.constant(3)
    low, high = np.asarray(-np.inf), np.asarray(np.inf)
    if weights is not None and bias is not None and mult is not None:
        least, most = accumulator_bounds(call, x)
        if least.min(initial=0) >= -(2**31) and most.max(initial=0) < 2**31:  # else accumulators may wrap
            ends = [b.astype(np.float32) * mult for b in (least, most)]
            low, high = np.minimum(*ends), np.maximum(*ends)
    if call.dtype("dtype") is DType.F32:
        return Interval(low.astype(np.float64), high.astype(np.float64))
    return _result_interval(call, low, high, 4)


def accumulator_bounds(call: Call, x: Interval | None) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest accumulator of each output channel (int64[O]) of a product with constant operands.

    x bounds the stored integers (default int8), per tensor or per channel.  Where a tap may fall into padding, or (in a
    transposed convolution) be missing, zero is a possible term.
    """
    weights, bias = call.constants[1], call.constants[2]
    assert weights is not None and bias is not None
    low, high = (_of_weights(call, e, weights.shape) - call.int("x_zp") for e in _channel_ends(_stored(x)))
    if "output_pads" in call.attrs or any(call.ints("pads") if "pads" in call.attrs else ()):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    wide = weights.astype(np.int64)
    ends = wide * low, wide * high
    axes = tuple(range(1, weights.ndim))
    return bias + np.minimum(*ends).sum(axes), bias + np.maximum(*ends).sum(axes)


def _channel_ends(x: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Integer bounds along the last axis: vectors of one element or one a channel."""
    lo, hi = (e.reshape(-1, e.shape[-1]) if e.ndim else e.reshape(1, 1) for e in (x.lo, x.hi))
    return lo.min(axis=0).astype(np.int64), hi.max(axis=0).astype(np.int64)


def _of_weights(call: Call, bound: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A bound of the input channels, arranged to broadcast against weights [O, ..., C/groups]."""
    groups = call.int("groups") if "groups" in call.attrs else 1
    if bound.size == 1 or groups == 1:
        return bound
    grouped = bound.reshape(groups, shape[-1]).repeat(shape[0] // groups, axis=0)
    return grouped.reshape(shape[0], *(1,) * (len(shape) - 2), shape[-1])


PRODUCT = {"x_zp": Attr("int", 0), **REQUANTIZE, "dtype": Attr("dtype", DType.I8)}


@register
class QConv2d(Op):
    """x i8[N,H,W,C], w i8[O,KH,KW,C/groups], bias i32[O], mult f32[O] -> i8 (or f32) [N,OH,OW,O]."""

    name = "qconv2d"
    operands = ("x", "w", "bias", "mult", "table?")
    attributes = {
        "strides": Attr("ints", (1, 1)),
        "dilations": Attr("ints", (1, 1)),
        "pads": Attr("ints", (0, 0, 0, 0)),
        "groups": Attr("int", 1),
        **PRODUCT,
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w, groups = _check_int8(call, 0), _check_int8(call, 1), call.int("groups")
        if x.rank != 4 or w.rank != 4:
            raise call.fail(f"x has rank {x.rank} and w rank {w.rank}, both must be 4")
        out, _, _, inner = w.shape
        if groups < 1 or x.shape[3] != inner * groups or out % groups:
            raise call.fail(f"{x.shape[3]} channels, weights {w.shape} and {groups} groups do not fit")
        _check_vector(call, 2, DType.I32, out, "bias")
        _check_vector(call, 3, DType.F32, out, "mult")
        _check_table(call, 4)
        _check_clamp(call)
        rows, cols = window_counts(call, x.shape[1:3], w.shape[1:3])
        return _result(call, (x.shape[0], rows, cols, out))

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w, bias, mult = operands[:4]
        table = operands[4] if len(operands) > 4 else None
        assert x is not None and w is not None and bias is not None and mult is not None
        centred = pad_nhwc(x.astype(np.int32) - call.int("x_zp"), call.ints("pads"))
        acc = convolve_nhwc(centred, w, call.ints("strides"), call.ints("dilations"), call.int("groups"))
        return [_finish(call, acc + bias, mult, table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [_product_interval(call, operands[0])]

    def macs(self, call: Call) -> int:
        w = call.type(1).shape
        return call.results[0].elements * w[1] * w[2] * w[3]


def window_counts(call: Call, size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, int]:
    """Output rows and columns of a window op with attributes strides, pads and (optionally) dilations."""
    strides, pads = call.ints("strides"), call.ints("pads")
    dilations = call.ints("dilations") if "dilations" in call.attrs else (1, 1)
    if len(strides) != 2 or len(dilations) != 2 or len(pads) != 4:
        raise call.fail(f"strides {strides}, dilations {dilations}, pads {pads} are not those of two dimensions")
    if min(strides) < 1 or min(dilations) < 1 or min(pads) < 0 or min(kernel) < 1:
        raise call.fail(f"strides {strides}, dilations {dilations}, pads {pads} or kernel {kernel} are out of range")
    counts = []
    for axis in range(2):
        span = size[axis] + pads[axis] + pads[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1
        if span < 0:
            raise call.fail(f"the window {kernel} is larger than the padded input {size}")
        counts.append(span // strides[axis] + 1)
    return counts[0], counts[1]


def pad_nhwc(x: np.ndarray, pads: tuple[int, ...]) -> np.ndarray:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def windows_nhwc(
    x: np.ndarray, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> np.ndarray:
    """View [N, OH, OW, KH, KW, C] of the windows of x [N, H, W, C]."""
    n, h, w, c = x.shape
    (kh, kw), (sh, sw), (dh, dw) = kernel, strides, dilations
    rows, cols = (h - dh * (kh - 1) - 1) // sh + 1, (w - dw * (kw - 1) - 1) // sw + 1
    s = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (n, rows, cols, kh, kw, c), (s[0], s[1] * sh, s[2] * sw, s[1] * dh, s[2] * dw, s[3]), writeable=False
    )


def convolve_nhwc(
    x: np.ndarray, w: np.ndarray, strides: tuple[int, ...], dilations: tuple[int, ...], groups: int
) -> np.ndarray:
    """Exact integer convolution: x [N,H,W,C] (padded, centred), w [O,KH,KW,C/groups] -> int64 [N,OH,OW,O]."""
    out, kh, kw, inner = w.shape
    if groups == x.shape[3] and inner == 1 and out == groups:  # depthwise: sum tap by tap
        rows = (x.shape[1] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
        cols = (x.shape[2] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
        acc = np.zeros((x.shape[0], rows, cols, out), np.int64)
        for i in range(kh):
            for j in range(kw):
                top, left = i * dilations[0], j * dilations[1]
                tap = x[:, top : top + strides[0] * (rows - 1) + 1 : strides[0]]
                tap = tap[:, :, left : left + strides[1] * (cols - 1) + 1 : strides[1]]
                acc += tap * w[:, i, j, 0].astype(np.int64)
        return acc
    parts = []
    per_group = out // groups
    for group in range(groups):
        part = np.ascontiguousarray(x[..., group * inner : (group + 1) * inner], np.float64)
        view = windows_nhwc(part, (kh, kw), strides, dilations)
        n, rows, cols = view.shape[:3]
        matrix = w[group * per_group : (group + 1) * per_group].reshape(per_group, -1).astype(np.float64).T
        # One image row band at a time keeps the unfolded copy small.
        band = max(1, (1 << 22) // max(1, cols * matrix.shape[0]))
        acc = np.empty((n, rows, cols, per_group), np.int64)
        for image in range(n):
            for row in range(0, rows, band):
                unfolded = view[image, row : row + band].reshape(-1, matrix.shape[0])
                acc[image, row : row + band] = (unfolded @ matrix).reshape(-1, cols, per_group)
        parts.append(acc)
    return parts[0] if groups == 1 else np.concatenate(parts, axis=3)


@register
class QConvTranspose2d(Op):
    """x i8[N,H,W,C], w i8[O,KH,KW,C], bias i32[O], mult f32[O] -> i8 (or f32) [N,OH,OW,O].

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
        x, w = _check_int8(call, 0), _check_int8(call, 1)
        if x.rank != 4 or w.rank != 4 or x.shape[3] != w.shape[3]:
            raise call.fail(f"x {x.shape} and w {w.shape} do not fit")
        out = w.shape[0]
        _check_vector(call, 2, DType.I32, out, "bias")
        _check_vector(call, 3, DType.F32, out, "mult")
        _check_table(call, 4)
        _check_clamp(call)
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
        return _result(call, (x.shape[0], *sizes, out))

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
        return [_finish(call, acc + bias, mult, table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [_product_interval(call, operands[0])]

    def macs(self, call: Call) -> int:
        return call.type(0).elements * call.type(1).elements // call.type(0).shape[3]


@register
class QGemm(Op):
    """x i8[...,K], w i8[N,K], bias i32[N], mult f32[N] -> i8 (or f32) [...,N]."""

    name = "qgemm"
    operands = ("x", "w", "bias", "mult", "table?")
    attributes = PRODUCT

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, w = _check_int8(call, 0), _check_int8(call, 1)
        if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
            raise call.fail(f"x {x.shape} and w {w.shape} do not fit")
        _check_vector(call, 2, DType.I32, w.shape[0], "bias")
        _check_vector(call, 3, DType.F32, w.shape[0], "mult")
        _check_table(call, 4)
        _check_clamp(call)
        return _result(call, (*x.shape[:-1], w.shape[0]))

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, w, bias, mult = operands[:4]
        table = operands[4] if len(operands) > 4 else None
        assert x is not None and w is not None and bias is not None and mult is not None
        acc = integer_matmul(x.astype(np.int32) - call.int("x_zp"), w.T)
        return [_finish(call, acc + bias, mult, table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [_product_interval(call, operands[0])]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * call.type(1).shape[1]


@register
class QAdd(Op):
    """clamp(rne(float32(a−a_zp)·a_mult + float32(b−b_zp)·b_mult + zp), lo, hi), numpy broadcasting, i8 -> i8.

    Two float32 products, their float32 sum, then the zero point, never fused.  The zero point joins before rounding,
    so that ties go the way they go in onnxruntime's QLinearAdd.
    """

    name = "qadd"
    operands = ("a", "b", "table?")
    attributes = {
        "a_zp": Attr("int", 0),
        "b_zp": Attr("int", 0),
        "a_mult": Attr("float"),
        "b_mult": Attr("float"),
        **REQUANTIZE,
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        _check_table(call, 2)
        _check_clamp(call)
        for name in ("a_mult", "b_mult"):
            if not abs(call.float(name)) < 2.0**22 / 256 or float(np.float32(call.float(name))) != call.float(name):
                raise call.fail(f"{name} {call.float(name)} is not a float32 of moderate size")
        return [TensorType(DType.I8, broadcast_shape(call))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands[:2]
        table = operands[2] if len(operands) > 2 else None
        assert a is not None and b is not None
        zp, lo, hi = call.int("zp"), call.int("lo"), call.int("hi")
        left = (a.astype(np.int32) - call.int("a_zp")).astype(np.float32) * np.float32(call.float("a_mult"))
        right = (b.astype(np.int32) - call.int("b_zp")).astype(np.float32) * np.float32(call.float("b_mult"))
        real = np.clip(left + right + np.float32(zp), np.float32(lo), np.float32(hi))
        return [apply_table(np.rint(real).astype(np.int8), table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        # every step is monotone in each operand, rounding included, so the ends bound the result exactly
        terms = []
        for x, name in zip(operands[:2], "ab", strict=True):
            bound, mult = _stored(x), np.float32(call.float(f"{name}_mult"))
            ends = [(e - call.int(f"{name}_zp")).astype(np.float32) * mult for e in (bound.lo, bound.hi)]
            terms.append((np.minimum(*ends), np.maximum(*ends)))
        return [_result_interval(call, terms[0][0] + terms[1][0], terms[0][1] + terms[1][1], 2)]


@register
class QMul(Op):
    """requantize((a−a_zp)·(b−b_zp), mult, zp, lo, hi), numpy broadcasting, i8 -> i8."""

    name = "qmul"
    operands = ("a", "b", "table?")
    attributes = {"a_zp": Attr("int", 0), "b_zp": Attr("int", 0), "mult": Attr("float"), **REQUANTIZE}

    def infer(self, call: Call) -> Sequence[TensorType]:
        _check_table(call, 2)
        _check_clamp(call)
        if float(np.float32(call.float("mult"))) != call.float("mult"):
            raise call.fail(f"mult {call.float('mult')} is not a float32")
        return [TensorType(DType.I8, broadcast_shape(call))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands[:2]
        table = operands[2] if len(operands) > 2 else None
        assert a is not None and b is not None
        acc = (a.astype(np.int32) - call.int("a_zp")) * (b.astype(np.int32) - call.int("b_zp"))
        y = requantize(acc, np.float32(call.float("mult")), call.int("zp"), call.int("lo"), call.int("hi"))
        return [apply_table(y, table)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        a, b = _stored(operands[0]), _stored(operands[1])
        lefts = [e - call.int("a_zp") for e in (a.lo, a.hi)]
        rights = [e - call.int("b_zp") for e in (b.lo, b.hi)]
        products = np.broadcast_arrays(*(x * y for x in lefts for y in rights))
        mult = np.float32(call.float("mult"))
        low, high = (f(products).astype(np.float32) * mult for f in (np.minimum.reduce, np.maximum.reduce))
        return [_result_interval(call, low, high, 2)]


def broadcast_shape(call: Call) -> tuple[int, ...]:
    """Shape of two int8 operands broadcast together."""
    a, b = _check_int8(call, 0), _check_int8(call, 1)
    try:
        return tuple(np.broadcast_shapes(a.shape, b.shape))
    except ValueError:
        raise call.fail(f"shapes {a.shape} and {b.shape} do not broadcast") from None


@register
class Table(Op):
    """y = t[x + 128]: any elementwise function of an int8 tensor as 256 entries; x i8[...], t i8[256] -> i8[...]."""

    name = "table"
    operands = ("x", "t")

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = _check_int8(call, 0)
        _check_vector(call, 1, DType.I8, 256, "table")
        return [TensorType(DType.I8, x.shape)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, t = operands
        assert x is not None and t is not None
        return [apply_table(x, t)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        table, x = call.constant(1), operands[0]
        if table is None:
            return [Interval.of(-128, 127)]
        return [table_interval(table, _stored(x))]


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
        **REQUANTIZE,
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = _check_int8(call, 0)
        if x.rank != 4:
            raise call.fail(f"x has rank {x.rank}, not 4")
        _check_clamp(call)
        rows, cols = window_counts(call, x.shape[1:3], call.ints("kernel"))
        return [TensorType(DType.I8, (x.shape[0], rows, cols, x.shape[3]))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        kernel, strides, pads = call.ints("kernel"), call.ints("strides"), call.ints("pads")
        centred = pad_nhwc(x.astype(np.int32) - call.int("x_zp"), pads)
        acc = windows_nhwc(centred, kernel, strides, (1, 1)).sum(axis=(3, 4), dtype=np.int64)
        mult = (call.float("ratio") / self.counts(call)).astype(np.float32)[None, :, :, None]
        return [requantize(acc, mult, call.int("zp"), call.int("lo"), call.int("hi"))]

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
        low, high = (e - call.int("x_zp") for e in _stored(operands[0]).span)
        if any(call.ints("pads")):
            low, high = min(low, 0.0), max(high, 0.0)
        # with n taps inside the image, the sum lies between n·low and n·high
        inside = self.counts(replace(call, attrs={**call.attrs, "count_include_pad": False}))
        mult = (call.float("ratio") / self.counts(call)).astype(np.float32)
        ends = [(inside * end).astype(np.float32) * mult for end in (low, high)]
        return [_result_interval(call, np.minimum(*ends).min(), np.maximum(*ends).max(), 1)]


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
