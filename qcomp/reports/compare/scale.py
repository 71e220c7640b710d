"""Axes of charts: numbers to coordinates, and round numbers to mark on them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps [lo, hi] to coordinates [start, end] linearly; what lies outside is kept at the nearer end."""

    lo: float
    hi: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.hi - self.lo
        share = (value - self.lo) / span if span > 0 else 0.5
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 2)


def ticks(lo: float, hi: float, most: int = 5) -> list[float]:
    """Up to `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) within [lo, hi]."""
    if not hi > lo:
        return [lo]
    raw = (hi - lo) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999999)
    first = math.ceil(lo / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, math.floor(hi / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A short text of a number: 1234567 -> "1.23M", 0.00123 -> "0.00123"."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"
