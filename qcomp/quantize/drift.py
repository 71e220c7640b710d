"""Does the data that a model is judged on look like the data it was calibrated on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.quantize.calibration import Calibration
from qcomp.quantize.histogram import Histogram
from qcomp.quantize.observers import Observer

# Growth of the extremes, and distance of the distributions, from which on a tensor has drifted.
BEYOND_SHARE = 0.05
DISTANCE = 0.1


@dataclass(frozen=True)
class Drift:
    """One tensor: extremes in both sets, how much further the test data reaches as a share of the calibrated range, and
    the largest difference of the cumulative distributions (Kolmogorov and Smirnov's), None without histograms."""

    tensor: str
    calibrated: tuple[float, float]
    tested: tuple[float, float]
    beyond: float
    distance: float | None

    @property
    def message(self) -> str:
        parts = []
        if self.beyond >= BEYOND_SHARE:
            parts.append(
                f"test data reaches [{self.tested[0]:.6g}, {self.tested[1]:.6g}], {self.beyond:.0%} of the range "
                f"beyond calibration's [{self.calibrated[0]:.6g}, {self.calibrated[1]:.6g}]"
            )
        if (self.distance or 0.0) >= DISTANCE:
            parts.append(f"the cumulative distribution of the test data is {self.distance:.2f} from calibration's")
        return f"{self.tensor}: {', and '.join(parts)}; calibrate with samples like the test data"


def drift(calibrated: Calibration, tested: Calibration) -> tuple[Drift, ...]:
    """Tensors that both have and that have drifted, the furthest first.

    `tested` is a calibration of the same tensors over the test data.
    """
    found = []
    for name in calibrated.observers:
        if name in tested.observers:
            one = _drift(name, calibrated.observers[name], tested.observers[name])
            if one is not None and (one.beyond >= BEYOND_SHARE or (one.distance or 0.0) >= DISTANCE):
                found.append(one)
    return tuple(sorted(found, key=lambda d: (-max(d.beyond, d.distance or 0.0), d.tensor)))


def _drift(name: str, before: Observer, after: Observer) -> Drift | None:
    seen, now = before.extremes, after.extremes
    if not seen.count or not now.count or before.mask_margin is not None:
        return None
    width = seen.hi - seen.lo
    growth = max(seen.lo - now.lo, 0.0) + max(now.hi - seen.hi, 0.0)
    beyond = growth / width if width > 0 else float(growth > 0)
    distance = None
    if before.histogram is not None and after.histogram is not None:
        distance = cumulative_distance(before.histogram, after.histogram)
    return Drift(name, (seen.lo, seen.hi), (now.lo, now.hi), beyond, distance)


def cumulative_distance(a: Histogram, b: Histogram) -> float:
    """Largest difference of the two cumulative distributions, 0 to 1; 0 where one is empty."""
    if not a.total or not b.total:
        return 0.0
    width = max(a.counts.shape[1], b.counts.shape[1])
    shares = []
    for histogram in (a, b):
        counts = np.zeros((2, width), np.int64)
        counts[:, : histogram.counts.shape[1]] = histogram.counts
        ascending = np.concatenate([counts[1, ::-1], counts[0]])
        shares.append(np.cumsum(ascending) / histogram.total)
    return float(np.abs(shares[0] - shares[1]).max())
