"""Which of several candidates is fastest, from single times that are noisy: rounds that take turns, and ratios of a
round, so that a slow spell of the machine hits all candidates alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Nanoseconds of one run of a candidate.
Sample = Callable[[int], float]


@dataclass(frozen=True)
class Rounds:
    """How much is measured. All candidates are sifted, the best `finalists` of them refined, and the best of these
    is confirmed against the default in rounds of their own: those alone decide, so that luck is not taken for speed.

    A candidate wins if the median of its ratios to the default is `least_gain` below 1, and `share` of the rounds
    are below 1."""

    sift: int = 4
    refine: int = 8
    confirm: int = 16
    runs: int = 3
    finalists: int = 5
    least_gain: float = 0.02
    share: float = 0.75
    patience: float = 3e9
    """Nanoseconds a layer may take; rounds are then fewer, but three at least."""


ROUNDS = Rounds()


@dataclass(frozen=True)
class Verdict:
    """The best candidate (0: the default), and the times in nanoseconds: medians of the last rounds."""

    best: int
    default_ns: float
    best_ns: float

    @property
    def speedup(self) -> float:
        return self.default_ns / self.best_ns


def choose(count: int, sample: Sample, rounds: Rounds = ROUNDS) -> Verdict:
    """The fastest of candidates 0 .. count-1, or 0 where no other is faster by more than noise."""
    first = max(sample(0), 1.0)
    spent = first * rounds.runs

    def played(wanted: int, players: int) -> int:
        return int(max(3, min(wanted, rounds.patience / 3 / (spent * players))))

    everyone = range(count)
    finalists = _ranked(_times(everyone, sample, played(rounds.sift, count), rounds.runs))[: rounds.finalists]
    if 0 not in finalists:
        finalists.append(0)
    refined = _times(finalists, sample, played(rounds.refine, len(finalists)), rounds.runs)
    best = _ranked(refined)[0]
    if best == 0:
        default = statistics.median(refined[0])
        return Verdict(0, default, default)
    times = _times((0, best), sample, played(rounds.confirm, 2), rounds.runs)
    ratios = [own / default for own, default in zip(times[best], times[0], strict=True)]
    ratio, default = statistics.median(ratios), statistics.median(times[0])
    wins = sum(r < 1 for r in ratios)
    if ratio <= 1 - rounds.least_gain and wins >= rounds.share * len(ratios):
        return Verdict(best, default, default * ratio)
    return Verdict(0, default, default)


def _times(players: Sequence[int], sample: Sample, rounds: int, runs: int) -> dict[int, list[float]]:
    """For every player the median of `runs` runs in each round; every second round goes the other way round."""
    times: dict[int, list[float]] = {player: [] for player in players}
    for turn in range(rounds):
        for player in players if turn % 2 == 0 else reversed(players):
            times[player].append(statistics.median(sample(player) for _ in range(runs)))
    return times


def _ranked(times: dict[int, list[float]]) -> list[int]:
    """Players by the median of their ratios to the fastest of each round; the default wins ties."""
    fastest = [min(turn) for turn in zip(*times.values(), strict=True)]
    ratios = {p: statistics.median(t / f for t, f in zip(own, fastest, strict=True)) for p, own in times.items()}
    return sorted(ratios, key=lambda player: (ratios[player], player))
