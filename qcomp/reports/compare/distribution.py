"""Histograms of one tensor against its int8 grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_INSIDE = 31
_OUTSIDE = 8.5  # bins on either side: the grid ends within bins; what lies further out is counted in the outermost
_BINS = int(_INSIDE + 2 * _OUTSIDE)


@dataclass(frozen=True)
class Distribution:
    """Counts of equal bins from `lo` to `hi`; the grid reaches from `grid_lo` to `grid_hi`, values from `seen_lo` to
    `seen_hi`.  `clipped` is the share of values beyond the grid by more than half a step."""

    counts: tuple[int, ...]
    lo: float
    hi: float
    grid_lo: float
    grid_hi: float
    seen_lo: float
    seen_hi: float
    clipped: float
    unit: str = ""

    @property
    def used(self) -> float:
        """Share of the grid that values reach, 0 to 1."""
        width = self.grid_hi - self.grid_lo
        reached = min(self.seen_hi, self.grid_hi) - max(self.seen_lo, self.grid_lo)
        return min(1.0, max(0.0, reached / width)) if width > 0 else 1.0


class Counter:
    """Collects a distribution over arrays; the grid is known beforehand."""

    def __init__(self, grid_lo: float, grid_hi: float, step: float, unit: str = "") -> None:
        self._grid, self._step, self._unit = (grid_lo, grid_hi), step, unit
        margin = _OUTSIDE * (grid_hi - grid_lo) / _INSIDE
        self._range = (grid_lo - margin, grid_hi + margin)
        self._counts = np.zeros(_BINS, np.int64)
        self._seen = (np.inf, -np.inf)
        self._clipped = self._total = 0

    def add(self, values: NDArray[np.generic]) -> None:
        flat = np.asarray(values, np.float64).ravel()
        flat = flat[np.isfinite(flat)]  # masks of attention may be infinite
        if not flat.size:
            return
        self._counts += np.histogram(np.clip(flat, *self._range), _BINS, self._range)[0]
        self._seen = (min(self._seen[0], float(flat.min())), max(self._seen[1], float(flat.max())))
        beyond = (flat < self._grid[0] - self._step / 2) | (flat > self._grid[1] + self._step / 2)
        self._clipped += int(np.count_nonzero(beyond))
        self._total += flat.size

    @property
    def distribution(self) -> Distribution | None:
        """None where no value was seen."""
        if not self._total:
            return None
        return Distribution(
            tuple(int(c) for c in self._counts), *self._range, *self._grid, *self._seen,
            self._clipped / self._total, self._unit,
        )  # fmt: skip
