"""Timing functions against each other: sides take turns in short rounds, so that what slows the machine down for a
while hits all of them, and every turn begins on a quiet machine with warm caches."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Side = Callable[[], object]

_ROUNDS = 10
_SECONDS_A_SIDE = 2.0
_MOST_RUNS = 2000
_TURN_SECONDS = 0.06
_LEAST_ROUNDS = 3
# Workers of some engines compute on for tens of milliseconds after a run, waiting for the next one (onnxruntime: 35 ms
# on two cores).  A thread's time is counted when the kernel's clock ticks, every 10 ms at most.
_POLL_SECONDS = 0.012
_IDLE_SHARE = 0.1
_SETTLE_SECONDS = 0.5
# Caches fill in one run; workers that slept take up to a few milliseconds to be spread over the cores.
_WARM_SECONDS = 0.005


@dataclass(frozen=True)
class Timings:
    """Milliseconds of every run of each side: one list a round."""

    rounds: Mapping[str, Sequence[Sequence[float]]]

    def runs(self, side: str) -> int:
        return sum(map(len, self.rounds[side]))

    def median(self, side: str) -> float:
        return statistics.median(itertools.chain.from_iterable(self.rounds[side]))

    def least(self, side: str) -> float:
        return min(itertools.chain.from_iterable(self.rounds[side]))

    def ratio(self, side: str, base: str) -> float:
        """How many times longer `side` takes than `base`: the median over the rounds of the ratio of medians."""
        pairs = zip(self.rounds[side], self.rounds[base], strict=True)
        return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs if a and b)


def interleave(sides: Mapping[str, Side], runs: int = 0) -> Timings:
    """`runs` runs of every side (0: what two seconds allow), in up to ten rounds."""
    counts = {name: runs or _fitting(side, _SECONDS_A_SIDE) for name, side in sides.items()}
    shares = {
        name: [count * (turn + 1) // _ROUNDS - count * turn // _ROUNDS for turn in range(_ROUNDS)]
        for name, count in counts.items()
    }
    return take_turns(sides, shares)


def interleave_for(sides: Mapping[str, Side], seconds: float) -> Timings:
    """Rounds of short turns, all sides together for about `seconds`; at least three rounds."""
    seen = {name: _second_run(side) for name, side in sides.items()}
    counts = {name: max(1, round(_TURN_SECONDS / once)) for name, once in seen.items()}
    turns = sum(counts[name] * once + max(once, _WARM_SECONDS) + _POLL_SECONDS for name, once in seen.items())
    rounds = max(_LEAST_ROUNDS, round(seconds / turns))
    return take_turns(sides, {name: [count] * rounds for name, count in counts.items()})


def take_turns(sides: Mapping[str, Side], counts: Mapping[str, Sequence[int]]) -> Timings:
    """Times of `counts[name][round]` runs of each side in each round; every other round goes in reverse order.

    Before a turn the process comes to rest; then runs of at least 5 ms, and at least one, are not counted.
    """
    order = list(sides)
    rounds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for turn in range(max(map(len, counts.values()))):
        for name in order if turn % 2 == 0 else reversed(order):
            count = counts[name][turn]
            if count:
                settle()
                _warm_up(sides[name])
            rounds[name].append([_seconds(sides[name]) * 1e3 for _ in range(count)])
    return Timings(rounds)


def settle() -> None:
    """Sleeps until no thread of this process computes any more, for half a second at most."""
    end = time.perf_counter() + _SETTLE_SECONDS
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(_POLL_SECONDS)
        if time.process_time() - before < _IDLE_SHARE * _POLL_SECONDS:
            return


def _warm_up(side: Side) -> None:
    end = time.perf_counter() + _WARM_SECONDS
    side()
    while time.perf_counter() < end:
        side()


def _fitting(side: Side, seconds: float) -> int:
    return max(_ROUNDS, min(_MOST_RUNS, round(seconds / max(_second_run(side), 1e-9))))


def _second_run(side: Side) -> float:
    side()
    return max(_seconds(side), 1e-9)


def _seconds(side: Side) -> float:
    start = time.perf_counter()
    side()
    return time.perf_counter() - start
