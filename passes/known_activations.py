"""The activation functions that elementwise pieces are compared with, and the comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from qcomp.ir.registry import Attribute

Attrs = dict[str, Attribute]


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(v) for v in x])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0.0, x))


# op, attributes, meaning in float64.  The first row that agrees is taken.
_FUNCTIONS: tuple[tuple[str, Attrs, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("relu", {}, lambda x: np.maximum(x, 0)),
    ("hard_swish", {}, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    ("silu", {}, lambda x: x * _sigmoid(x)),
    ("gelu", {"approximate": "none"}, lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))),
    (
        "gelu",
        {"approximate": "tanh"},
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    ("mish", {}, lambda x: x * np.tanh(_softplus(x))),
    ("sigmoid", {}, _sigmoid),
    ("softplus", {}, _softplus),
    ("tanh", {}, np.tanh),
    ("softsign", {}, lambda x: x / (1 + np.abs(x))),
    ("abs", {}, np.abs),
)
# Dense where activations bend, sparse far out, where a bend would show that the pieces are something else.
_FAR = np.geomspace(80, 1e4, 24)
POINTS = np.unique(
    np.concatenate([-_FAR, np.linspace(-80, 80, 641), np.linspace(-12, 12, 2401), _FAR])
).astype(np.float32)


def identify(values: np.ndarray) -> tuple[str, Attrs, float] | None:
    """Op, attributes and factor of the activation whose values at POINTS are given; None if it is none.

    Points where float32 pieces overflowed (far from zero only) are left out.
    """
    x, values = POINTS.astype(np.float64), values.astype(np.float64)
    usable = np.isfinite(values) & (np.abs(values) < 1e12)
    if not usable[np.abs(x) <= 10].all():
        return None
    x, values = x[usable], values[usable]
    for (op, attrs, _), expected in zip(_FUNCTIONS, _expected(), strict=True):
        factor = _factor(values, expected[usable], x)
        if factor is not None:
            return op, attrs, factor
    return _clip(x, values) or _hard_sigmoid(x, values)


@cache
def _expected() -> tuple[np.ndarray, ...]:
    """Every known function at every point."""
    return tuple(meaning(POINTS.astype(np.float64)) for _, _, meaning in _FUNCTIONS)


def _agree(values: np.ndarray, expected: np.ndarray, x: np.ndarray) -> bool:
    slack = 2e-6 * np.maximum(np.abs(expected), np.minimum(np.abs(x), 12.0)) + 2e-6
    return bool((np.abs(values - expected) <= slack).all())


def _factor(values: np.ndarray, expected: np.ndarray, x: np.ndarray) -> float | None:
    """k with values = k · expected, if there is one; a k within rounding of 1 is 1."""
    reference = int(np.argmin(np.abs(x - 2.0)))
    factor = values[reference] / expected[reference]
    if not math.isfinite(factor) or not 1e-4 < abs(factor) < 1e4:
        return None
    if abs(factor - 1.0) < 1e-6:
        factor = 1.0
    return factor if _agree(values / factor, expected, x) else None


def _clip(x: np.ndarray, values: np.ndarray) -> tuple[str, Attrs, float] | None:
    """clip(x, lo, hi): bounds are the extremes, where these lie inside the points."""
    lo, hi = float(values.min()), float(values.max())
    if lo >= hi:
        return None
    low, high = (-math.inf if lo <= x[0] else lo), (math.inf if hi >= x[-1] else hi)
    return ("clip", {"lo": low, "hi": high}, 1.0) if _agree(values, np.clip(x, low, high), x) else None


def _hard_sigmoid(x: np.ndarray, values: np.ndarray) -> tuple[str, Attrs, float] | None:
    """factor · clip(alpha·x + beta, 0, 1): alpha and beta from the slope between."""
    if values.min() != 0.0 or values.max() <= 0.0:
        return None
    factor = float(values.max())
    unit = values / factor
    inside = np.flatnonzero((unit > 0.02) & (unit < 0.98))
    if inside.size < 16:
        return None
    first, last = inside[0], inside[-1]
    alpha = (unit[last] - unit[first]) / (x[last] - x[first])
    beta = unit[first] - alpha * x[first]
    # Float32 pieces blur the slope; 1/6, 1/5 and 1/2 are what is meant when it is that close.
    alpha = next((k for k in (1 / 6, 0.2, 0.25, 0.5, 1.0) if abs(alpha / k - 1) < 2e-6), alpha)
    beta = next((k for k in (0.5,) if abs(beta - k) < 2e-6), beta)
    if alpha <= 0 or not _agree(unit, np.clip(alpha * x + beta, 0, 1), x):
        return None
    return "hard_sigmoid", {"alpha": float(alpha), "beta": float(beta)}, 1.0 if abs(factor - 1) < 1e-6 else factor
