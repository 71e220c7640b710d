"""The one definition of exp, log, erf, tanh, sin, cos and pow on float32, for the interpreter and every back end.

Each function is a fixed sequence of IEEE operations (add, multiply, divide, compare-and-select, bit moves) on
float32, rounded after every operation and never contracted, so a back end that emits the same sequence gives the
same bits without a libm.  Polynomials are evaluated by Horner's rule, highest power first:
p = c[0]; p = p * x + c[1]; ...  Select means `condition ? a : b`, false for NaN operands.

exp, log, tanh, sin and cos use the single-precision polynomials of S. L. Moshier's Cephes library; erf is a
least-maximum fit to erf and erfc in double precision.  Errors against float64 stay below the `*_ULP` constants,
which the tests hold.
"""

from __future__ import annotations

from typing import Final

import numpy as np

F32 = np.float32


def _table(*values: float) -> tuple[float, ...]:
    return tuple(float(F32(v)) for v in values)


# ---- exp: x = n ln2 + r, e^r = 1 + r + r² P(r) -------------------------------------------------------------------

# Adding and subtracting 1.5 · 2^23 rounds to the nearest integer, ties to even, for |t| < 2^22.
ROUND_MAGIC: Final = float(F32(12582912.0))
LOG2_E: Final = float(F32(1.44269504088896341))
LN2_HI: Final = float(F32(0.693359375))  # 10 bits: n · LN2_HI is exact
LN2_LO: Final = float(F32(-2.12194440e-4))
EXP_LO: Final = -104.0  # e^EXP_LO rounds to 0
EXP_HI: Final = 89.0  # e^EXP_HI overflows to infinity
EXP_POLY: Final = _table(
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
)

# ---- log: x = m 2^e with m in [√½, √2), t = m − 1 ----------------------------------------------------------------

SQRT_HALF: Final = float(F32(0.707106781186547524))
LOG_POLY: Final = _table(
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip

# ---- tanh: |x| < TANH_SPLIT: x + x x² P(x²); else 1 − 2 / (e^2|x| + 1) with the sign of x ------------------------

TANH_SPLIT: Final = 0.625
TANH_POLY: Final = _table(
    -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1
)

# ---- erf: |x| < ERF_SPLIT: x + x P(x²); else 1 − e^Q(min(|x|, 4)) with the sign of x -----------------------------

ERF_SPLIT: Final = float(F32(0.92))
ERF_END: Final = 4.0
ERF_POLY: Final = _table(
    8.316793537233025e-05, -0.0008130018250085413, 0.005199907347559929, -0.026858942583203316,
    0.11283687502145767, -0.37612631916999817, 0.12837916612625122,
)  # fmt: skip
ERFC_LOG_POLY: Final = _table(
    0.00019593736215028912, -0.0030432187486439943, 0.022226925939321518, -0.10393160581588745,
    -0.6371822357177734, -1.1276756525039673, -0.00019567387062124908,
)  # fmt: skip

# ---- sin, cos: x = n π/2 + r, reduced in float64 -----------------------------------------------------------------

TWO_OVER_PI: Final = 0.6366197723675814  # float64
PI_HALF_HI: Final = 1.5707963267341256  # float64 with 33 bits: n · PI_HALF_HI is exact for |n| < 2^20
PI_HALF_LO: Final = 6.077100506506192e-11  # float64
ROUND_MAGIC_F64: Final = 6755399441055744.0  # 1.5 · 2^52
TRIG_END: Final = float(2**30)  # beyond it the argument is taken as 0: no reduction in float64 is meaningful
SIN_POLY: Final = _table(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS_POLY: Final = _table(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)

EXP_ULP: Final = 1.25
LOG_ULP: Final = 1.25
TANH_ULP: Final = 1.5
ERF_ULP: Final = 1.5
SIN_COS_ULP: Final = 1.75  # of values above 2^-10; below, an absolute error of 2^-33

POW_INTEGER_END: Final = 64  # integer exponents up to this are products, see `pow`


def _f32(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, F32)


def horner(x: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """p = c[0]; then p = p * x + c[i] for the rest; each product and sum rounded to float32."""
    p = np.full_like(x, F32(coefficients[0]))
    for c in coefficients[1:]:
        p = p * x + F32(c)
    return p


def _bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.int32).reshape(x.shape)


def _from_bits(bits: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bits.astype(np.int32)).view(F32).reshape(bits.shape)


def copysign(magnitude: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """The bits of `magnitude` (whose sign is clear) with the sign bit of `sign`."""
    return _from_bits(_bits(magnitude) | (_bits(sign) & np.int32(-(2**31))))


def exp(x: np.ndarray) -> np.ndarray:
    """e^x.

        c = x > LO ? x : LO;  c = c < HI ? c : HI
        n = (c * LOG2_E + MAGIC) - MAGIC
        r = (c - n * LN2_HI) - n * LN2_LO
        y = (P(r) * (r * r) + r) + 1
        y = (y * 2^(n >> 1)) * 2^(n - (n >> 1))          n as an integer, >> arithmetic
        result = x == x ? y : x
    """
    x = _f32(x)
    with np.errstate(all="ignore"):
        c = np.where(x > F32(EXP_LO), x, F32(EXP_LO))
        c = np.where(c < F32(EXP_HI), c, F32(EXP_HI))
        n = (c * F32(LOG2_E) + F32(ROUND_MAGIC)) - F32(ROUND_MAGIC)
        r = (c - n * F32(LN2_HI)) - n * F32(LN2_LO)
        y = (horner(r, EXP_POLY) * (r * r) + r) + F32(1)
        power = n.astype(np.int32)
        half = power >> 1
        y = y * _from_bits((half + 127) << 23)
        y = y * _from_bits((power - half + 127) << 23)
        return np.where(x == x, y, x)


def log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm; −inf at ±0, NaN below.

        tiny = x < 2^-126;  v = tiny ? x * 2^23 : x;  b = bits(v)
        e = (b >> 23) - 126 - (tiny ? 23 : 0);  m = float((b & 0x7fffff) | 0x3f000000)      in [½, 1)
        low = m < SQRT_HALF;  e = low ? e - 1 : e;  t = (low ? m + m : m) - 1;  z = t * t
        y = (P(t) * t) * z;  y = y + f * LN2_LO;  y = y - 0.5 * z;  y = (t + y) + f * LN2_HI    f = float32(e)
        result = x > 0 ? (x < inf ? y : inf) : (x == 0 ? -inf : NaN)
    """
    x = _f32(x)
    with np.errstate(all="ignore"):
        tiny = x < F32(2.0**-126)
        bits = _bits(np.where(tiny, x * F32(2.0**23), x))
        e = (bits >> 23) - 126 - np.where(tiny, 23, 0)
        m = _from_bits((bits & 0x7FFFFF) | 0x3F000000)
        low = m < F32(SQRT_HALF)
        f = (e - low).astype(F32)
        t = np.where(low, m + m, m) - F32(1)
        z = t * t
        y = (horner(t, LOG_POLY) * t) * z
        y = y + f * F32(LN2_LO)
        y = y - F32(0.5) * z
        y = (t + y) + f * F32(LN2_HI)
        y = np.where(x < F32(np.inf), y, F32(np.inf))
        return np.where(x > 0, y, np.where(x == 0, F32(-np.inf), F32(np.nan)))


def log1p_exp_term(e: np.ndarray) -> np.ndarray:
    """log(1 + e) for e >= 0: u = 1 + e; u == 1 ? e : (log(u) * e) / (u - 1)  (W. Kahan's correction)."""
    e = _f32(e)
    with np.errstate(all="ignore"):
        u = F32(1) + e
        return np.where(u == F32(1), e, (log(u) * e) / (u - F32(1)))


def tanh(x: np.ndarray) -> np.ndarray:
    """a = |x|;  s = x * x;  a < SPLIT ? (x * s) * P(s) + x : copysign(1 - 2 / (exp(a + a) + 1), x); NaN stays NaN."""
    x = _f32(x)
    with np.errstate(all="ignore"):
        a = np.abs(x)
        s = x * x
        near = (x * s) * horner(s, TANH_POLY) + x
        far = F32(1) - F32(2) / (exp(a + a) + F32(1))
        return np.where(a < F32(TANH_SPLIT), near, np.where(x == x, copysign(far, x), x))


def erf(x: np.ndarray) -> np.ndarray:
    """a = |x|;  s = x * x;  c = a < END ? a : END;  a < SPLIT ? x * P(s) + x : copysign(1 - exp(Q(c)), x)."""
    x = _f32(x)
    with np.errstate(all="ignore"):
        a = np.abs(x)
        s = x * x
        near = x * horner(s, ERF_POLY) + x
        c = np.where(a < F32(ERF_END), a, F32(ERF_END))
        far = F32(1) - exp(horner(c, ERFC_LOG_POLY))
        return np.where(a < F32(ERF_SPLIT), near, np.where(x == x, copysign(far, x), x))


def _trig(x: np.ndarray, turn: int) -> np.ndarray:
    x = _f32(x)
    with np.errstate(all="ignore"):
        wide = np.where(np.abs(x) < F32(TRIG_END), x, F32(0)).astype(np.float64)
        n = (wide * TWO_OVER_PI + ROUND_MAGIC_F64) - ROUND_MAGIC_F64
        r = ((wide - n * PI_HALF_HI) - n * PI_HALF_LO).astype(F32)
        quadrant = (n.astype(np.int64) + turn) & 3
        s = r * r
        sine = (r * s) * horner(s, SIN_POLY) + r
        cosine = ((s * s) * horner(s, COS_POLY) - F32(0.5) * s) + F32(1)
        y = np.where(quadrant & 1, cosine, sine)
        y = np.where(quadrant & 2, -y, y)
        return np.where(np.abs(x) < F32(np.inf), y, F32(np.nan))


def sin(x: np.ndarray) -> np.ndarray:
    """Sine: float64 reduction to |r| <= π/4, rounded to float32, then the polynomial of quadrant n & 3.

        w = |x| < TRIG_END ? x : 0 as float64;  n = (w * TWO_OVER_PI + MAGIC64) - MAGIC64
        r = float32((w - n * PI_HALF_HI) - n * PI_HALF_LO);  s = r * r;  q = int(n) & 3   (cos: (int(n) + 1) & 3)
        sine = (r * s) * P(s) + r;  cosine = ((s * s) * C(s) - 0.5 * s) + 1
        y = q & 1 ? cosine : sine;  y = q & 2 ? -y : y;  result = |x| < inf ? y : NaN
    """
    return _trig(x, 0)


def cos(x: np.ndarray) -> np.ndarray:
    """Cosine: sin a quadrant further on."""
    return _trig(x, 1)


def integer_power(x: np.ndarray, exponent: int) -> np.ndarray:
    """x^exponent for exponent >= 0: result = 1, times x^(2^i) for each set bit i from the lowest."""
    x = _f32(x)
    result, square = np.ones_like(x), x
    with np.errstate(all="ignore"):
        while exponent:
            if exponent & 1:
                result = result * square
            exponent >>= 1
            if exponent:
                square = square * square
    return result


def pow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x^y, elementwise on arrays of one shape.

    Exponents that are integers of magnitude up to POW_INTEGER_END: `integer_power`, and 1 / it when negative;
    ½ and −½: sqrt(x) and 1 / sqrt(x); others: exp(y * log(x)), which is NaN for x < 0.
    """
    x, y = _f32(x), _f32(y)
    with np.errstate(all="ignore"):
        result = exp(y * log(x))
        root = np.sqrt(x)
        result = np.where(y == F32(0.5), root, result)
        result = np.where(y == F32(-0.5), F32(1) / root, result)
        for exponent in np.unique(y[np.abs(y) <= F32(POW_INTEGER_END)]):
            if exponent == np.rint(exponent):
                product = integer_power(x, abs(int(exponent)))
                result = np.where(y == exponent, product if exponent >= 0 else F32(1) / product, result)
        return _f32(result)
