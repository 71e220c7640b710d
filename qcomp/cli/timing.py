"""Timing functions against each other, so that what slows the machine down for a while hits all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_ROUNDS = 10
_SECONDS_A_SIDE = 2.0
_MOST_RUNS = 2000
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True)
class Timing:
    """Times of one function's runs, in milliseconds."""

    median_ms: float
    min_ms: float
    runs: int

    def facts(self) -> dict[str, Any]:
        return {"median_ms": self.median_ms, "min_ms": self.min_ms, "runs": self.runs}


def interleave(sides: Mapping[str, Callable[[], object]], runs: int = 0) -> dict[str, Timing]:
    """Times of every side over `runs` runs (0: what two seconds allow), in rounds that take turns.

    Each round begins with a pause, in which worker threads of the side before go to sleep, and a run that is not
    counted, in which the caches fill.
    """
    counts = {name: runs or _runs_that_fit(function) for name, function in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(_ROUNDS):
        for name, function in sides.items():
            share = counts[name] * (turn + 1) // _ROUNDS - counts[name] * turn // _ROUNDS
            if share:
                time.sleep(_PAUSE_SECONDS)
                function()
            for _ in range(share):
                start = time.perf_counter()
                function()
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: Timing(statistics.median(t), min(t), len(t)) for name, t in times.items()}


def _runs_that_fit(function: Callable[[], object]) -> int:
    function()
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    return max(_ROUNDS, min(_MOST_RUNS, math.ceil(_SECONDS_A_SIDE / max(once, 1e-9))))
