"""Ranges by percentile: drop a fixed share of the values at either end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.errors import QcompError
from qcomp.quantize.histogram import Density


@dataclass(frozen=True)
class Percentile:
    """At most (100 − `percentile`) % of all values, zeros counted, lie beyond either end of the range.

    An end is the outer edge of the histogram bin that holds the quantile, so it is never tighter than the true
    quantile and at most 1/512 wider.
    """

    percentile: float = 99.99
    name = "percentile"

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise QcompError(
                f"percentile {self.percentile} is not in (50, 100]", fix="use for example percentile:99.99"
            )

    def range(self, density: Density) -> tuple[float, float]:
        count = density.count.astype(np.int64)
        beyond = math.floor(int(count.sum()) * (100.0 - self.percentile) / 100.0)
        low = int(np.searchsorted(np.cumsum(count), beyond, side="right"))
        high = int(np.searchsorted(np.cumsum(count[::-1]), beyond, side="right"))
        return float(density.left[low]), float(density.right[count.size - 1 - high])

    def __str__(self) -> str:
        return f"{self.name}:{self.percentile:g}"
