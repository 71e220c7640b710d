"""Extremes of a stream of values: the state behind the min-max method and behind the checks of the inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qcomp.quantize.histogram import Density, FloatArray


@dataclass(frozen=True)
class Extremes:
    """How many values were seen, the smallest and the largest, and how many values equal each of the two.

    Merging is exact, commutative and associative: it compares and adds integers, and rounds nothing.
    """

    count: int = 0
    lo: float = float("inf")
    hi: float = float("-inf")
    at_lo: int = 0
    at_hi: int = 0

    @staticmethod
    def of(values: FloatArray) -> Extremes:
        """Extremes of a float32 array of any shape; NaN and infinities show up in `lo` and `hi`."""
        if values.size == 0:
            return Extremes()
        with np.errstate(invalid="ignore"):
            lo, hi = values.min(), values.max()
        # + 0.0 turns -0.0 into 0.0: which of the two zeros arrives first must not matter.
        return Extremes(
            values.size,
            float(lo) + 0.0,
            float(hi) + 0.0,
            int(np.count_nonzero(values == lo)),
            int(np.count_nonzero(values == hi)),
        )

    def merge(self, other: Extremes) -> Extremes:
        lo, hi = min(self.lo, other.lo), max(self.hi, other.hi)
        return Extremes(
            self.count + other.count,
            lo,
            hi,
            sum(e.at_lo for e in (self, other) if e.lo == lo),
            sum(e.at_hi for e in (self, other) if e.hi == hi),
        )

    @staticmethod
    def all(parts: Iterable[Extremes]) -> Extremes:
        total = Extremes()
        for part in parts:
            total = total.merge(part)
        return total


@dataclass(frozen=True)
class MinMax:
    """The whole range seen."""

    name = "minmax"

    def range(self, density: Density) -> tuple[float, float]:
        return density.lo, density.hi

    def __str__(self) -> str:
        return self.name
