"""Ranges by mean squared error: the clipping that costs least where rounding and clipping are added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qcomp.quantize.histogram import Density
from qcomp.quantize.parameters import affine_parameters, integer_limits

# A tighter range must lower the error by this share: unseen data reaches a little further than the samples.
_WORTH = 0.995


def quantization_error(density: Density, scale: float, zero_point: int, qmin: int, qmax: int) -> float:
    """Mean of (x − dequantize(quantize(x)))² over the density, exact for counts spread evenly over intervals.

    The antiderivative of the error is step³·n/12 + r³/3, where n is the nearest representable multiple of the
    scale and r = x − n·scale; beyond the clipping range n stays at the end and r grows.
    """
    ends = np.concatenate([density.left, density.right])
    nearest = np.clip(np.rint(ends / scale), qmin - zero_point, qmax - zero_point)
    rest = ends - nearest * scale
    integral = nearest * (scale**3 / 12.0) + rest * rest * rest / 3.0
    size = density.left.size
    width = density.right - density.left
    atom = width == 0
    mean = np.where(atom, rest[:size] ** 2, (integral[size:] - integral[:size]) / np.where(atom, 1.0, width))
    return float(mean @ density.count) / density.total


@dataclass(frozen=True)
class Mse:
    """The range within the one seen, zero included, whose int8 quantization has the least mean squared error.

    The two ends are searched in turn on a geometric grid, first 4 points an octave over 12 octaves, then 32 an
    octave around the best; never worse on the histogram than the whole range.
    """

    symmetric: bool = False
    name = "mse"

    def range(self, density: Density) -> tuple[float, float]:
        coarse = density.coarse()
        lo, hi = min(density.lo, 0.0), max(density.hi, 0.0)
        if self.symmetric:
            hi = _least(lambda end: self._error(coarse, -end, end), max(-lo, hi))
            return max(lo, -hi), min(max(density.hi, 0.0), hi)
        for _ in range(3):
            before = lo, hi
            hi = _least(lambda end, lo=lo: self._error(coarse, lo, end), max(density.hi, 0.0), hi)  # type: ignore[misc]
            lo = _least(lambda end, hi=hi: self._error(coarse, end, hi), min(density.lo, 0.0), lo)  # type: ignore[misc]
            if (lo, hi) == before:
                break
        return lo, hi

    def _error(self, density: Density, lo: float, hi: float) -> float:
        scale, zero_point = affine_parameters(lo, hi, "i8", symmetric=self.symmetric)
        return quantization_error(density, scale, zero_point, *integer_limits("i8", symmetric=self.symmetric))

    def __str__(self) -> str:
        return self.name


def _least(error: Callable[[float], float], end: float, current: float | None = None) -> float:
    """The end, `end` scaled down, of least error; `current` (`end` if None) stays unless beaten clearly."""
    best = end if current is None else current
    if end == 0.0:
        return best
    least = error(best)
    for candidates in (end * 2.0 ** (-np.arange(0, 49) / 4.0), None):
        around = best * 2.0 ** (np.arange(-7, 8) / 32.0) if candidates is None else candidates
        for candidate in around[np.abs(around) <= abs(end)].tolist():
            found = error(candidate)
            if found < least * _WORTH:
                best, least = candidate, found
    return best
