"""The search for a mix of precisions: the layers that int8 harms most for what they cost stay float32, as few as do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcomp.errors import QcompError
from qcomp.quantize.fidelity import Fidelity
from qcomp.quantize.goals import Goal, drop_text
from qcomp.reports.costs import Costs

# A layer that costs nothing in float32 comes first, whatever it is worth.
_LEAST_COST = 1e-9
# Layers that are tried in int8 again after the bisection, those that cost most first.
RETURNS = 32
# A layer with this share of what all float layers cost may give way to this many others.
DEAR = 0.1
EXCHANGED = 8
# Mixes with so many float layers more are looked at, in case the artifact of the best one disappoints.
SPARES = (4, 12)


@dataclass(frozen=True)
class Mix:
    """One mix that was looked at: the layers that stay float32, and what was measured of it.

    `whole` is over all samples that judge, `held` over those that had no part in ranking the layers.  `milliseconds`
    and `bytes` are by the cost model.
    """

    floats: tuple[str, ...]
    whole: Fidelity
    held: Fidelity
    milliseconds: float
    bytes: int
    reached: bool


@dataclass(frozen=True)
class Search:
    """`best` reaches the goal; `looked_at` are all mixes in the order in which they were measured."""

    goal: Goal
    best: Mix
    looked_at: tuple[Mix, ...]
    float32: Fidelity
    order: tuple[str, ...]

    def precision(self) -> dict[str, str]:
        """Every layer with its precision, in the order of the graph."""
        return {name: "float32" if name in self.best.floats else "int8" for name in self.order}

    def candidates(self) -> list[Mix]:
        """The best mix, then those that reach the goal too and are more accurate, the fastest first."""
        others = [mix for mix in self.looked_at if mix.reached and mix.whole.sqnr_db > self.best.whole.sqnr_db]
        return [self.best, *sorted(others, key=lambda mix: mix.milliseconds)]

    def front(self) -> tuple[Mix, ...]:
        """The mixes that no other one beats in both noise and time, the fastest first."""
        ordered = sorted(self.looked_at, key=lambda m: (m.milliseconds, -m.whole.sqnr_db))
        front: list[Mix] = []
        for mix in ordered:
            if not front or mix.whole.sqnr_db > front[-1].whole.sqnr_db:
                front.append(mix)
        return tuple(front)


Measure = Callable[[tuple[str, ...]], tuple[Fidelity, Fidelity]]


@dataclass
class _Looked:
    """Mixes by their float layers, each measured once."""

    names: Sequence[str]
    goal: Goal
    costs: Costs
    measure: Measure
    float32: tuple[Fidelity, Fidelity]
    progress: Callable[[int], None]

    def __post_init__(self) -> None:
        self.found: dict[frozenset[str], Mix] = {}

    def at(self, floats: frozenset[str]) -> Mix:
        if floats not in self.found:
            ordered = tuple(name for name in self.names if name in floats)
            whole, held = self.measure(ordered)
            near = self.goal.accurate(whole, self.float32[0]) and self.goal.accurate(held, self.float32[1])
            reached = near and self.goal.affordable(self.costs, floats)
            costs = self.costs.milliseconds(floats), self.costs.bytes(floats)
            self.found[floats] = Mix(ordered, whole, held, *costs, reached)
            self.progress(len(self.found))
        return self.found[floats]

    def near(self, floats: frozenset[str]) -> bool:
        """Whether the mix is accurate enough, whatever it costs."""
        mix = self.at(floats)
        return self.goal.accurate(mix.whole, self.float32[0]) and self.goal.accurate(mix.held, self.float32[1])


def search(
    names: Sequence[str],
    harm: Mapping[str, float],
    goal: Goal,
    costs: Costs,
    measure: Measure,
    float32: tuple[Fidelity, Fidelity],
    progress: Callable[[int], None] = lambda looked_at: None,
) -> Search:
    """The mix that reaches the goal: the cheapest one that is accurate enough, or the most accurate one that is cheap
    enough.

    `names`: the layers in the order of the graph.  `harm`: the noise that each of them brings alone.  `measure` gives
    the fidelity of a mix, given by its float layers, over all samples and over the held ones; `float32` that of the
    float model.  QcompError if no mix that was found reaches the goal.
    """
    looked = _Looked(names, goal, costs, measure, float32, progress)
    cost = {name: max(costs.milliseconds({name}) - costs.milliseconds(()), _LEAST_COST) for name in names}
    order = sorted(names, key=lambda name: -harm[name] / cost[name])
    if goal.bounds_accuracy:
        best = _cheapest(looked, order, cost)
    else:
        best = _most_accurate(looked, order)
    if not best.reached:
        raise _out_of_reach(looked, best)
    return Search(goal, best, tuple(looked.found.values()), float32[0], tuple(names))


def _cheapest(looked: _Looked, order: Sequence[str], cost: Mapping[str, float]) -> Mix:
    """The shortest beginning of the order that is accurate enough, less what turns out not to be needed."""
    few, many = -1, 0
    while many < len(order) and not looked.near(frozenset(order[:many])):  # 0, 1, 3, 7, ...: most models need few
        few, many = many, min(2 * many + 1, len(order))
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if looked.near(frozenset(order[:middle])) else (middle, many)
    floats = frozenset(order[:many])
    looked.at(floats)
    tried: set[str] = set()
    while len(tried) < RETURNS and not floats <= tried:
        name = max(sorted(floats - tried), key=cost.__getitem__)
        tried.add(name)
        for others in _in_place_of(name, floats, order, cost):
            if looked.near(others):
                floats = others
                break
    for more in SPARES:
        rest = [name for name in order if name not in floats]
        looked.at(floats | frozenset(rest[:more]))
    return looked.at(floats)


def _in_place_of(
    name: str, floats: frozenset[str], order: Sequence[str], cost: Mapping[str, float]
) -> list[frozenset[str]]:
    """The mix without this layer; if the layer costs much, also with the next few in its place that cost less."""
    alone = floats - {name}
    found = [alone]
    if cost[name] >= DEAR * sum(cost[other] for other in floats):
        cheap = [other for other in order if other not in floats and cost[other] * EXCHANGED < cost[name]]
        found.append(alone | frozenset(cheap[:EXCHANGED]))
    return found


def _most_accurate(looked: _Looked, order: Sequence[str]) -> Mix:
    """Float layers in order, as many as the costs allow; the best of the mixes on the way."""
    floats: frozenset[str] = frozenset()
    ways = [floats]
    for name in order:
        if looked.goal.affordable(looked.costs, floats | {name}):
            floats |= {name}
            ways.append(floats)
    picked = {0, len(ways) - 1} | {2**i - 1 for i in range(len(ways).bit_length()) if 2**i <= len(ways)}
    mixes = [looked.at(ways[index]) for index in sorted(picked)]
    return max(mixes, key=lambda mix: (mix.reached, mix.whole.sqnr_db))


def _out_of_reach(looked: _Looked, best: Mix) -> QcompError:
    goal, floats = looked.goal, frozenset(best.floats)
    if goal.bounds_accuracy and not looked.near(floats):
        what = f"float32 itself does not reach {goal} on these samples"
    else:
        size = f"{best.bytes} bytes of constants"
        time = f"{best.milliseconds:.3g} ms and " if looked.costs.timed else ""
        near = f", {drop_text(best.whole, looked.float32[0])}" if goal.bounds_accuracy else ""
        kept = f"with {len(floats)} of {len(looked.names)} layers in float32" if floats else "with everything in int8"
        what = f"no mix reaches {goal}: the cheapest found takes {time}{size}{near}, {kept}"
    return QcompError(what, where="precision auto", fix="loosen a bound")
