"""The arithmetic that integer ops share, as the numeric contract defines it.

    requantize(acc, m, zp, lo, hi) = clamp(rne(float32(acc) · m) + zp, lo, hi)

`rne` rounds half to even; int32 to float32 conversion, then one float32 multiply.  Activations are int8, or int16
where an op says so, spatial ones NHWC; weights are int8 and symmetric; `mult` is (s_x·s_w[c])/s_y in float32.  An
optional last operand `table` i8[256] is applied to an int8 result: y = table[y + 128].
"""

from __future__ import annotations

import numpy as np

from qcomp.ir.fixed_point import FixedFactors, fixed_factors
from qcomp.ir.intervals import outward
from qcomp.ir.registry import Attr, Call, Interval
from qcomp.ir.types import DType, TensorType

#: Terms up to which no sum of products of 9-bit differences leaves int32.
MOST_TAPS = (2**31 - 1) // (255 * 255)
ACTIVATIONS = (DType.I8, DType.I16)
#: Of ops that can round in integers alone (see qcomp.ir.fixed_point): what the graph's attribute `requantize` says.
FIXED = {"fixed": Attr("bool", False)}
REQUANTIZE = {"zp": Attr("int", 0), "lo": Attr("int", -128), "hi": Attr("int", 127)}


def largest_factor(dtype: DType) -> float:
    """Bound of a term's factor, of stored integers in a sum: such sums stay small enough to be rounded in float32."""
    return 2.0 ** (22 - dtype.bits)


def rounded_dtype(call: Call) -> DType:
    """The integers that a result is rounded to: int16 where the node's `dtype` says so."""
    return DType.I16 if "dtype" in call.attrs and call.dtype("dtype") is DType.I16 else DType.I8


def round_clamped(real: np.ndarray, zp: int, lo: int, hi: int, dtype: DType = DType.I8) -> np.ndarray:
    """float32 steps to integers: rounded half to even, shifted by the zero point, clamped."""
    # Clamping the real first is exact (the bounds are integers) and keeps huge products inside int64.
    real = np.clip(real, np.float32(lo - zp), np.float32(hi - zp))
    return np.asarray(np.rint(real).astype(np.int64) + zp).astype(dtype.numpy)


def fixed_result(call: Call, factors: FixedFactors, *terms: np.ndarray) -> np.ndarray:
    """Integer terms times their factors, added and rounded once, shifted by the zero point and clamped."""
    steps = factors.rounded(*terms) + call.int("zp")
    return np.asarray(np.clip(steps, call.int("lo"), call.int("hi")).astype(rounded_dtype(call).numpy))


def is_fixed(call: Call) -> bool:
    """Whether a node that can do either rounds in fixed point."""
    return "fixed" in call.attrs and call.bool("fixed")


def rescaled(call: Call, acc: np.ndarray, mult: np.ndarray | np.float32) -> np.ndarray:
    """int32 accumulators to the node's integers, in the arithmetic that it has; `mult` broadcasts and is float32."""
    if is_fixed(call):
        return fixed_result(call, fixed_factors(mult), acc.astype(np.int32))
    zp, lo, hi = call.int("zp"), call.int("lo"), call.int("hi")
    return round_clamped(acc.astype(np.int32).astype(np.float32) * mult, zp, lo, hi, rounded_dtype(call))


def apply_table(y: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    return y if table is None else np.asarray(table[y.astype(np.int64) + 128])


def integer_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact product of integer matrices through float64 BLAS (exact below 2^53), as int64."""
    return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64))).astype(np.int64)


def check_clamp(call: Call) -> None:
    (least, most), kind = rounded_dtype(call).limits, rounded_dtype(call).numpy
    lo, zp, hi = call.int("lo"), call.int("zp"), call.int("hi")
    if not (least <= lo <= hi <= most and least <= zp <= most):
        raise call.fail(f"clamp [{lo}, {hi}] or zero point {zp} is outside {kind}")


def check_zero_points(call: Call, *names: str, dtype: DType = DType.I8) -> None:
    least, most = dtype.limits
    for name in names:
        if not least <= call.int(name) <= most:
            raise call.fail(f"{name} {call.int(name)} is outside {dtype.numpy}")


def check_float32(call: Call, *names: str) -> None:
    for name in names:
        value = call.float(name)
        if not np.isfinite(value) or float(np.float32(value)) != value:
            raise call.fail(f"{name} {value} is not a finite float32")


def check_taps(call: Call, count: int) -> None:
    if count > MOST_TAPS:
        raise call.fail(f"sums of {count} products may leave int32; {MOST_TAPS} cannot")


def check_int8(call: Call, index: int) -> TensorType:
    type = call.type(index)
    if type.dtype is not DType.I8:
        raise call.fail(f"operand {index} is {type.dtype.value}, not i8")
    return type


def check_activation(call: Call, index: int) -> TensorType:
    type = call.type(index)
    if type.dtype not in ACTIVATIONS:
        raise call.fail(f"operand {index} is {type.dtype.value}, neither i8 nor i16")
    return type


def check_factor(call: Call, name: str, dtype: DType) -> None:
    """Of a term of stored integers of that type in a sum."""
    mult = call.float(name)
    if not abs(mult) < largest_factor(dtype) or float(np.float32(mult)) != mult:
        raise call.fail(f"{name} {mult} is not a float32 of moderate size")


def check_vector(call: Call, index: int, dtype: DType, size: int, what: str) -> None:
    type = call.type(index)
    if type.dtype is not dtype or type.shape != (size,):
        raise call.fail(f"{what} is {type.dtype.value}{list(type.shape)}, not {dtype.value}[{size}]")


def check_table(call: Call, index: int) -> None:
    if call.has(index):
        check_vector(call, index, DType.I8, 256, "table")
        if rounded_dtype(call) is not DType.I8:
            raise call.fail("a table is for int8 results")


def check_residual(call: Call, index: int, result: TensorType) -> None:
    type = check_int8(call, index)
    if type.shape != result.shape or result.dtype is not DType.I8:
        raise call.fail(f"residual {type.shape} and result {result.dtype.value}{list(result.shape)} do not fit")
    check_factor(call, "r_mult", DType.I8)
    check_zero_points(call, "r_zp")


def product_result(call: Call, shape: tuple[int, ...]) -> list[TensorType]:
    """Result type of a product: i8 or i16 (its quantization is written by whoever builds the node), or f32."""
    dtype = call.dtype("dtype")
    if dtype not in (*ACTIVATIONS, DType.F32):
        raise call.fail(f"result type {dtype.value} is neither i8 nor i16 nor f32")
    if dtype is DType.F32 and is_fixed(call):
        raise call.fail("a float32 result is not rounded in fixed point", fix="leave fixed out")
    return [TensorType(dtype, shape)]


def finish(
    call: Call, acc: np.ndarray, mult: np.ndarray, table: np.ndarray | None, residual: np.ndarray | None = None
) -> np.ndarray:
    """Accumulators (channels last, any integer dtype that holds int32 values) to the node's result.

    residual i8, of the result's shape: float32(residual − r_zp)·r_mult is added before rounding, the product and the
    sum each rounded to float32; in fixed point both terms are added exactly.
    """
    if is_fixed(call) and call.dtype("dtype") is not DType.F32:
        factors, terms = product_factors(call, mult), [acc.astype(np.int32)]
        if residual is not None:
            terms.append(residual.astype(np.int32) - call.int("r_zp"))
        return apply_table(fixed_result(call, factors, *terms), table)
    real = np.asarray(acc.astype(np.int32).astype(np.float32) * mult)
    if call.dtype("dtype") is DType.F32:
        return real
    if residual is not None:
        real = real + residual_term(call, residual)
    return apply_table(rounded_result(call, real), table)


def product_factors(call: Call, mult: np.ndarray) -> FixedFactors:
    """Of a product in fixed point: of its accumulators and, if it has one, of the residual."""
    return fixed_factors(mult, np.float32(call.float("r_mult"))) if call.has(5) else fixed_factors(mult)


def rounded_result(call: Call, real: np.ndarray) -> np.ndarray:
    """A float32 result as the node's `dtype` has it: as it is, or rounded to integers and clamped."""
    if "dtype" in call.attrs and call.dtype("dtype") is DType.F32:
        return np.asarray(real, np.float32)
    return round_clamped(real, call.int("zp"), call.int("lo"), call.int("hi"), rounded_dtype(call))


def residual_term(call: Call, residual: np.ndarray) -> np.ndarray:
    """float32(residual − r_zp)·r_mult in float32; the stored integers may come as any number type."""
    centred = (residual.astype(np.float64) - call.int("r_zp")).astype(np.float32)
    return np.asarray(centred * np.float32(call.float("r_mult")))


def stored_interval(x: Interval | None, dtype: DType = DType.I8) -> Interval:
    return Interval.of(*dtype.limits) if x is None else x


def result_interval(call: Call, low: np.ndarray, high: np.ndarray, table_index: int | None = None) -> Interval:
    """Bounds of the integer result of requantizing float32 values between low and high (either may be the larger);
    `table_index`: of the operand of an op that may have a table."""
    zp, lo, hi = call.int("zp"), call.int("lo"), call.int("hi")
    steps = [np.rint(np.asarray(e, np.float64)) for e in (low, high)]
    slack = int(is_fixed(call))  # in fixed point a value next to a tie may round to the other side
    ends = np.minimum(*steps) - slack, np.maximum(*steps) + slack
    bounds = Interval(*(np.clip(e + zp, lo, hi) for e in ends))
    if table_index is None or not call.has(table_index):
        return bounds
    table = call.constant(table_index)
    return Interval.of(-128, 127) if table is None else table_interval(table, bounds)


def rounded_interval(call: Call, low: float, high: float) -> Interval:
    """Bounds of `rounded_result` for float32 values between low and high."""
    ends = np.asarray(low), np.asarray(high)
    return outward(*ends) if call.dtype("dtype") is DType.F32 else result_interval(call, *ends)


def table_interval(table: np.ndarray, x: Interval) -> Interval:
    """Bounds of table[x + 128], one for each bound of x."""
    lows, highs = np.broadcast_arrays(x.lo, x.hi)
    windows = [table[int(a) + 128 : int(b) + 129] for a, b in zip(lows.flat, highs.flat, strict=True)]
    least, most = ([float(f(w)) for w in windows] for f in (np.min, np.max))
    return Interval(np.reshape(least, lows.shape), np.reshape(most, lows.shape))


def product_interval(call: Call, x: Interval | None, residual: Interval | None = None) -> Interval:
    """Bounds of requantize(bias + Σ(x − x_zp)·w) per output channel, from constant weights; with bounds of a residual
    (see `finish`), of the sum."""
    weights, bias, mult = call.constant(1), call.constant(2), call.constant(3)
    low, high = np.asarray(-np.inf), np.asarray(np.inf)
    if weights is not None and bias is not None and mult is not None:
        least, most = accumulator_bounds(call, x)
        if least.min(initial=0) >= -(2**31) and most.max(initial=0) < 2**31:  # else accumulators may wrap
            ends = [b.astype(np.float32) * mult for b in (least, most)]
            low, high = np.minimum(*ends), np.maximum(*ends)
    if call.dtype("dtype") is DType.F32:
        return Interval(low.astype(np.float64), high.astype(np.float64))
    if residual is not None:
        terms = [residual_term(call, e) for e in (residual.lo, residual.hi)]
        low, high = low + np.minimum(*terms), high + np.maximum(*terms)
    return result_interval(call, low, high, 4)


def accumulator_bounds(call: Call, x: Interval | None) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest accumulator of each output channel (int64[O]) of a product with constant operands.

    x bounds the stored integers (default: all of its type), per tensor or per channel.  Where a tap may fall into
    padding, or (in a transposed convolution) be missing, zero is a possible term.
    """
    weights, bias = call.constants[1], call.constants[2]
    assert weights is not None and bias is not None
    ends = _channel_ends(stored_interval(x, call.type(0).dtype))
    low, high = (_of_weights(call, e, weights.shape) - call.int("x_zp") for e in ends)
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


PRODUCT = {**FIXED, "x_zp": Attr("int", 0), **REQUANTIZE, "dtype": Attr("dtype", DType.I8)}
