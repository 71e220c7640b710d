"""Ranges by relative entropy: keep the most of the distribution's information (TensorRT's calibration)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.quantize.histogram import Density, Float64Array

# As fine as the histogram's own bins are next to the threshold.
_BINS = 1024
_STEPS = 255
# Rare outliers (this share of the values) beyond this multiple of the median are not worth a level: with them in
# range, half of the values would round to zero, and all of the distribution would hide in the first bins.
_FAR = 512.0
_RARE = 1e-4


@dataclass(frozen=True)
class Entropy:
    """The clip threshold T on |x| with the least KL divergence between the clipped distribution and its int8 form.

    After Migacz, "8-bit inference with TensorRT" (GTC 2017), with two changes.  The reference histogram has
    1024 bins on [0, T] for every T, so that T competes on equal terms at any distance from the largest value, and
    the share of the divergence that comes from sampling noise is taken off (Miller and Madow's correction).
    The number of int8 levels on [0, T] is what the asymmetric range [max(lo, −T), min(hi, T)] leaves to it: 255
    after a ReLU, 127 for a two-sided tensor.  Zeros are left out: they are exact in int8 whatever T is, and
    after a ReLU their spike would hide the rest.
    """

    name = "entropy"

    def range(self, density: Density) -> tuple[float, float]:
        largest = max(-density.lo, density.hi)
        cumulative = _Cumulative(density)
        if largest <= 0 or cumulative.total == 0:
            return min(density.lo, 0.0), max(density.hi, 0.0)
        largest = cumulative.without_far_outliers(largest)
        best, least = largest, cumulative.divergence(largest)
        for thresholds in (largest * 2.0 ** (-np.arange(1, 520) / 2.0), None):
            around = best * 2.0 ** (np.arange(12, -13, -1) / 16.0) if thresholds is None else thresholds
            for threshold in around[around <= largest].tolist():
                # Clipping half of the values is never the answer; all smaller thresholds clip more.
                if cumulative(threshold) < 0.5 * cumulative.total:
                    break
                found = cumulative.divergence(threshold)
                if found < least:
                    best, least = threshold, found
        return max(min(density.lo, 0.0), -best), min(max(density.hi, 0.0), best)

    def __str__(self) -> str:
        return self.name


class _Cumulative:
    """How many values have 0 < |x| <= t, as a piecewise linear function of t."""

    def __init__(self, density: Density) -> None:
        self._lo, self._hi = min(density.lo, 0.0), max(density.hi, 0.0)
        negative, positive = density.right < 0, density.left > 0
        self._sides = [
            _knots(-density.right[negative][::-1], -density.left[negative][::-1], density.count[negative][::-1]),
            _knots(density.left[positive], density.right[positive], density.count[positive]),
        ]
        self.total = float(density.count[negative | positive].sum())

    def __call__(self, threshold: float) -> float:
        return float(self._at(np.asarray([threshold]))[0])

    def without_far_outliers(self, largest: float) -> float:
        """`largest`, or 512 medians where that is less and leaves out no more than rare values."""
        octaves = largest * 2.0 ** -np.arange(0.0, 300.0)
        above_half = octaves[self._at(octaves) >= 0.5 * self.total]
        far = _FAR * float(above_half[-1])
        return far if far < largest and self.total - self(far) <= _RARE * self.total else largest

    def divergence(self, threshold: float) -> float:
        """KL divergence, in nats, of the values clipped to [-threshold, threshold] from their int8 form.

        Less the expectation, (filled bins − filled levels) / 2 values, of what sampling noise adds to it.
        """
        histogram = np.diff(self._at(np.linspace(0.0, threshold, _BINS + 1)))
        # Differences of cumulated counts: rounding leaves crumbs in empty bins.
        histogram[histogram < 1e-9 * self.total / _BINS] = 0.0
        filled = histogram > 0
        span = min(self._hi, threshold) - max(self._lo, -threshold)
        levels = max(1, round(_STEPS * threshold / span))
        level = (np.arange(_BINS) * levels) // _BINS
        filled_in = np.bincount(level, filled)
        share = np.bincount(level, histogram) / np.maximum(filled_in, 1.0)
        noise = (np.count_nonzero(filled) - np.count_nonzero(filled_in)) / (2.0 * self.total)
        quantized = np.where(filled, share[level], 0.0)
        clipped = max(self.total - float(histogram.sum()), 0.0)
        reference = histogram
        reference[-1] += clipped
        p, q = reference / reference.sum(), quantized / max(float(quantized.sum()), 1.0)
        used = p > 0
        # Half a value stands in for an empty last bin that the clipped values fall into.
        divergence = float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 0.5 / self.total))))
        return divergence - noise

    def _at(self, points: Float64Array) -> Float64Array:
        total = np.zeros(points.shape)
        for position, count in self._sides:
            if position.size:
                total += np.interp(points, position, count, left=0.0)
        return total


def _knots(
    left: NDArray[np.float64], right: NDArray[np.float64], count: NDArray[np.float64]
) -> tuple[Float64Array, Float64Array]:
    after = np.cumsum(count)
    return np.stack([left, right], axis=1).reshape(-1), np.stack([after - count, after], axis=1).reshape(-1)
