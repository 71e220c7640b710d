"""Range rules of elementwise functions of one operand: from bounds on x to bounds on f(x), rounding included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcomp.ir.intervals import outward, rounded
from qcomp.ir.registry import Call, Interval

Function = Callable[[Call, np.ndarray], np.ndarray]
Rule = Callable[[Call, Interval], Interval]

# Evaluated functions may miss monotonicity by a few float32 units; this relative slack covers it, of the argument
# too, because functions like x·sigmoid(x) round at the size of x.
SLACK = 2e-6
_HUGE = 1e30  # from here on a value counts as unbounded


def ends_of(function: Function, call: Call, x: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Smaller and larger value of the function at the two ends of x."""
    with np.errstate(all="ignore"):
        values = [np.asarray(function(call, np.clip(e, -3e38, 3e38).astype(np.float32)), float) for e in (x.lo, x.hi)]
    least, most = np.minimum(*values), np.maximum(*values)
    least = np.where(least < -_HUGE, -np.inf, np.minimum(least, _HUGE))
    return least, np.where(most > _HUGE, np.inf, np.maximum(most, -_HUGE))


def rising(function: Function, lo: float = -np.inf, hi: float = np.inf) -> Rule:
    """Rule of a function that never falls, with values in [lo, hi] whatever the rounding."""

    def rule(call: Call, x: Interval) -> Interval:
        wide = outward(*ends_of(function, call, x), SLACK)
        return Interval(np.maximum(wide.lo, lo), np.minimum(wide.hi, hi))

    return rule


def valley(function: Function, bottom: float, least: float) -> Rule:
    """Rule of a function that falls up to x = bottom, where it has its minimum `least`, and rises after it."""

    def rule(call: Call, x: Interval) -> Interval:
        low, high = ends_of(function, call, x)
        low = np.where((x.lo <= bottom) & (bottom <= x.hi), least, low)
        slack = SLACK * np.minimum(np.maximum(np.abs(x.lo), np.abs(x.hi)), 1e2)
        wide = outward(low - slack, high + slack, SLACK)
        return Interval(np.maximum(wide.lo, least - 1e-5), wide.hi)

    return rule


def within(lo: float, hi: float) -> Rule:
    def rule(call: Call, x: Interval) -> Interval:
        return Interval.of(lo, hi)

    return rule


def abs_rule(call: Call, x: Interval) -> Interval:
    ends = np.abs(x.lo), np.abs(x.hi)
    lo = np.where((x.lo <= 0) & (x.hi >= 0), 0.0, np.minimum(*ends))
    return rounded(lo, np.maximum(*ends), call.type(0))


def neg_rule(call: Call, x: Interval) -> Interval:
    return rounded(-x.hi, -x.lo, call.type(0))


def reciprocal_rule(call: Call, x: Interval) -> Interval:
    with np.errstate(all="ignore"):
        lo, hi = 1.0 / x.hi, 1.0 / x.lo
    apart = (x.lo > 0) | (x.hi < 0)
    return outward(np.where(apart, lo, -np.inf), np.where(apart, hi, np.inf))


def exact_rising(function: Callable[[np.ndarray], np.ndarray]) -> Rule:
    def rule(call: Call, x: Interval) -> Interval:
        return rounded(function(x.lo), function(x.hi), call.type(0))

    return rule


def clip_rule(call: Call, x: Interval) -> Interval:
    # lo and hi are rounded to the element type before they clamp; with lo > hi every element is hi
    lo, hi = (float(np.float32(call.float(n))) if call.type(0).dtype.is_float else call.float(n) for n in ("lo", "hi"))
    if call.type(0).dtype.is_integer:
        least, most = call.type(0).dtype.limits
        lo, hi = np.clip(np.ceil(lo), least, most), np.clip(np.floor(hi), least, most)
    return Interval(np.minimum(np.maximum(x.lo, lo), hi), np.minimum(np.maximum(x.hi, lo), hi))


def relu_rule(call: Call, x: Interval) -> Interval:
    return Interval(np.maximum(x.lo, 0.0), np.maximum(x.hi, 0.0))


def kinked(function: Function) -> Rule:
    """Rule of a function with a kink at 0 and of any slope below it: the ends and the kink bound it."""

    def rule(call: Call, x: Interval) -> Interval:
        low, high = ends_of(function, call, x)
        crosses = (x.lo <= 0) & (x.hi >= 0)
        return outward(
            np.where(crosses, np.minimum(low, 0.0), low), np.where(crosses, np.maximum(high, 0.0), high), SLACK
        )

    return rule
