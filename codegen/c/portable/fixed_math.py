"""exp, log, erf, tanh, sin, cos, pow rounding in C: the operation sequences of qcomp.ir.fixed_math."""

from __future__ import annotations

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.render import float_literal as lit
from qcomp.ir import fixed_math as fm


def _horner(variable: str, coefficients: tuple[float, ...]) -> str:
    text = lit(coefficients[0])
    for c in coefficients[1:]:
        text = f"({text} * {variable} + {lit(c)})"
    return text


BITS = CFunction(
    "q_bits",
    """\
static inline int32_t q_bits(float x)
{
    union { float f; int32_t i; } u;
    u.f = x;
    return u.i;
}

static inline float q_from_bits(int32_t i)
{
    union { float f; int32_t i; } u;
    u.i = i;
    return u.f;
}

static inline float q_abs(float x)
{
    return q_from_bits(q_bits(x) & 0x7fffffff);
}

/* magnitude (whose sign is clear) with the sign of `sign` */
static inline float q_copysign(float magnitude, float sign)
{
    return q_from_bits(q_bits(magnitude) | (int32_t)((uint32_t)q_bits(sign) & 0x80000000u));
}""",
)

SQRT = CFunction(
    "q_sqrt",
    """\
/* IEEE square root: one instruction where the machine has it */
#if defined(__GNUC__)
#define q_sqrt(x) __builtin_sqrtf(x)
#else
extern float sqrtf(float);
#define q_sqrt(x) sqrtf(x)
#endif""",
)

ROUNDING = CFunction(
    "q_rounding",
    """\
/* To an integer: truncated, down, up, to the nearest (ties to even); beyond 2^23 floats are integers already. */
static inline float q_trunc(float x)
{
    const float a = q_abs(x);
    const float t = (float)(int32_t)(a < 8388608.0f ? a : 0.0f);
    return a < 8388608.0f ? q_copysign(t, x) : x;
}

static inline float q_floor(float x)
{
    const float t = q_trunc(x);
    return t > x ? t - 1.0f : t;
}

static inline float q_ceil(float x)
{
    const float t = q_trunc(x);
    const float up = q_abs(t + 1.0f);
    return t < x ? q_copysign(up, x) : t;
}

static inline float q_rint(float x)
{
    const float a = q_abs(x);
    const float r = (a + 8388608.0f) - 8388608.0f;
    return a < 8388608.0f ? q_copysign(r, x) : x;
}""",
)

EXP = CFunction(
    "q_exp",
    f"""\
static inline float q_exp(float x)
{{
    float c = x > {lit(fm.EXP_LO)} ? x : {lit(fm.EXP_LO)};
    float n, r, y;
    int32_t power, half;
    c = c < {lit(fm.EXP_HI)} ? c : {lit(fm.EXP_HI)};
    n = (c * {lit(fm.LOG2_E)} + {lit(fm.ROUND_MAGIC)}) - {lit(fm.ROUND_MAGIC)};
    r = (c - n * {lit(fm.LN2_HI)}) - n * {lit(fm.LN2_LO)};
    y = ({_horner("r", fm.EXP_POLY)} * (r * r) + r) + 1.0f;
    power = (int32_t)n;
    half = (power + 256) / 2 - 128; /* rounds down, as power >= -256 */
    y = y * q_from_bits((half + 127) * 8388608);
    y = y * q_from_bits((power - half + 127) * 8388608);
    return x == x ? y : x;
}}""",
)

LOG = CFunction(
    "q_log",
    f"""\
static inline float q_log(float x)
{{
    const int32_t tiny = x < {lit(2.0**-126)};
    const int32_t b = q_bits(tiny ? x * 8388608.0f : x);
    int32_t e = (int32_t)((uint32_t)b >> 23) - 126 - (tiny ? 23 : 0);
    const float m = q_from_bits((b & 0x7fffff) | 0x3f000000);
    const int32_t low = m < {lit(fm.SQRT_HALF)};
    const float f = (float)(e - low);
    const float t = (low ? m + m : m) - 1.0f;
    const float z = t * t;
    float y = ({_horner("t", fm.LOG_POLY)} * t) * z;
    y = y + f * {lit(fm.LN2_LO)};
    y = y - 0.5f * z;
    y = (t + y) + f * {lit(fm.LN2_HI)};
    y = x < q_from_bits(0x7f800000) ? y : q_from_bits(0x7f800000);
    return x > 0.0f ? y : (x == 0.0f ? -q_from_bits(0x7f800000) : q_from_bits(0x7fc00000));
}}""",
)

LOG1P = CFunction(
    "q_log1p_exp_term",
    """\
static inline float q_log1p_exp_term(float e)
{
    const float u = 1.0f + e;
    return u == 1.0f ? e : (q_log(u) * e) / (u - 1.0f);
}""",
)

TANH = CFunction(
    "q_tanh",
    f"""\
static inline float q_tanh(float x)
{{
    const float a = q_abs(x), s = x * x;
    const float near = (x * s) * {_horner("s", fm.TANH_POLY)} + x;
    const float far = 1.0f - 2.0f / (q_exp(a + a) + 1.0f);
    return a < {lit(fm.TANH_SPLIT)} ? near : (x == x ? q_copysign(far, x) : x);
}}""",
)

ERF = CFunction(
    "q_erf",
    f"""\
static inline float q_erf(float x)
{{
    const float a = q_abs(x), s = x * x;
    const float near = x * {_horner("s", fm.ERF_POLY)} + x;
    const float c = a < {lit(fm.ERF_END)} ? a : {lit(fm.ERF_END)};
    const float far = 1.0f - q_exp({_horner("c", fm.ERFC_LOG_POLY)});
    return a < {lit(fm.ERF_SPLIT)} ? near : (x == x ? q_copysign(far, x) : x);
}}""",
)

TRIG = CFunction(
    "q_trig",
    f"""\
/* turn 0: sine, 1: cosine */
static inline float q_trig(float x, int32_t turn)
{{
    const float a = q_abs(x);
    const double wide = (double)(a < {lit(fm.TRIG_END)} ? x : 0.0f);
    const double n = (wide * {fm.TWO_OVER_PI.hex()} + {fm.ROUND_MAGIC_F64.hex()}) - {fm.ROUND_MAGIC_F64.hex()};
    const float r = (float)((wide - n * {fm.PI_HALF_HI.hex()}) - n * {fm.PI_HALF_LO.hex()});
    const int32_t quadrant = (int32_t)n + turn;
    const float s = r * r;
    const float sine = (r * s) * {_horner("s", fm.SIN_POLY)} + r;
    const float cosine = ((s * s) * {_horner("s", fm.COS_POLY)} - 0.5f * s) + 1.0f;
    float y = (quadrant & 1) ? cosine : sine;
    y = (quadrant & 2) ? -y : y;
    return a < q_from_bits(0x7f800000) ? y : q_from_bits(0x7fc00000);
}}""",
)

POW = CFunction(
    "q_pow",
    f"""\
static inline float q_pow(float x, float y)
{{
    const float a = q_abs(y);
    if (a <= {lit(float(fm.POW_INTEGER_END))} && q_rint(y) == y) {{
        int32_t n = (int32_t)a;
        float result = 1.0f, square = x;
        while (n) {{
            if (n & 1)
                result = result * square;
            n >>= 1;
            if (n)
                square = square * square;
        }}
        return y >= 0.0f ? result : 1.0f / result;
    }}
    if (a == 0.5f)
        return y > 0.0f ? q_sqrt(x) : 1.0f / q_sqrt(x);
    return q_exp(y * q_log(x));
}}""",
)

#: Helpers by the name that calls them, each with what it needs before it.
NEEDS: dict[str, tuple[CFunction, ...]] = {
    "q_abs": (BITS,),
    "q_copysign": (BITS,),
    "q_from_bits": (BITS,),
    "q_sqrt": (SQRT,),
    "q_trunc": (BITS, ROUNDING),
    "q_floor": (BITS, ROUNDING),
    "q_ceil": (BITS, ROUNDING),
    "q_rint": (BITS, ROUNDING),
    "q_exp": (BITS, EXP),
    "q_log": (BITS, LOG),
    "q_log1p_exp_term": (BITS, LOG, LOG1P),
    "q_tanh": (BITS, EXP, TANH),
    "q_erf": (BITS, EXP, ERF),
    "q_trig": (BITS, TRIG),
    "q_pow": (BITS, ROUNDING, SQRT, EXP, LOG, POW),
}


def helpers_for(text: str) -> tuple[CFunction, ...]:
    """The helpers that C text calls, in an order in which they compile."""
    found: dict[str, CFunction] = {}
    for name, needed in NEEDS.items():
        if f"{name}(" in text:
            found |= {helper.name: helper for helper in needed}
    return tuple(found.values())
