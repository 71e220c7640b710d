"""The search for a mix of precisions: the layers that int8 harms most for what they cost get wider, as few as do.

A layer gets wider by a step: to int16, which rids it of the noise of its activations, or to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcomp.errors import QcompError
from qcomp.quantize.fidelity import Fidelity
from qcomp.quantize.goals import Goal, drop_text
from qcomp.reports.costs import FLOAT32, INT8, INT16, Costs

Step = tuple[str, str]  # a layer, and the precision that it gets
Choice = Mapping[str, str]  # layers that are not int8, and their precision

# A layer that costs nothing in float32 comes first, whatever it is worth.
_LEAST_COST = 1e-9
# Steps that are taken back after the bisection where the goal still holds, those that cost most first.
RETURNS = 32
# A step with this share of what all of them cost may give way to this many others.
DEAR = 0.1
EXCHANGED = 8
# Mixes with so many steps more are looked at, in case the artifact of the best one disappoints.
SPARES = (4, 12)


@dataclass(frozen=True)
class Mix:
    """One mix that was looked at: the layers that are wider than int8, and what was measured of it.

    `whole` is over all samples that judge, `held` over those that had no part in ranking the layers.  `milliseconds`
    and `bytes` are by the cost model.  `reached` says whether all these reach the goal, `compiled` whether its artifact
    did (None: there was none to run).
    """

    floats: tuple[str, ...]
    words: tuple[str, ...]
    whole: Fidelity
    held: Fidelity
    milliseconds: float
    bytes: int
    reached: bool
    compiled: bool | None = None

    @property
    def choice(self) -> dict[str, str]:
        """Its layers that are not int8, with their precision."""
        return dict.fromkeys(self.words, INT16) | dict.fromkeys(self.floats, FLOAT32)

    @property
    def width(self) -> tuple[int, int]:
        """How many layers are float32, and how many int16: it grows with every step."""
        return len(self.floats), len(self.words)


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
        return {name: self.best.choice.get(name, INT8) for name in self.order}

    def candidates(self, most: int) -> list[Mix]:
        """The best mix, then others that reach the goal too, in case its artifact does not; so many at most.

        With a bound of accuracy those are more accurate, the fastest first.  With bounds of costs alone they are less
        so, with fewer and fewer layers that are wide, at last none.
        """
        others = [mix for mix in self.looked_at if mix.reached and mix is not self.best]
        if self.goal.bounds_accuracy:
            better = [mix for mix in others if mix.whole.sqnr_db > self.best.whole.sqnr_db]
            return [self.best, *sorted(better, key=lambda mix: mix.milliseconds)][:most]
        cheaper = sorted((m for m in others if m.width < self.best.width), key=lambda mix: mix.width, reverse=True)
        return [self.best, *(cheaper if len(cheaper) < most else [*cheaper[: most - 2], cheaper[-1]])]

    def front(self) -> tuple[Mix, ...]:
        """The mixes that no other one beats in both noise and time, the fastest first."""
        ordered = sorted(self.looked_at, key=lambda m: (m.milliseconds, -m.whole.sqnr_db))
        front: list[Mix] = []
        for mix in ordered:
            if not front or mix.whole.sqnr_db > front[-1].whole.sqnr_db:
                front.append(mix)
        return tuple(front)


Measure = Callable[[Choice], tuple[Fidelity, Fidelity]]


@dataclass(frozen=True)
class Harm:
    """The noise that a layer brings alone: in int8, and by its weights if its activations are int16 (None: it has no
    such form)."""

    int8: float
    int16: float | None = None


@dataclass
class _Looked:
    """Mixes by their steps, each measured once."""

    names: Sequence[str]
    goal: Goal
    costs: Costs
    measure: Measure
    float32: tuple[Fidelity, Fidelity]
    progress: Callable[[int], None]

    def __post_init__(self) -> None:
        self.found: dict[tuple[Step, ...], Mix] = {}

    def choice(self, steps: frozenset[Step]) -> dict[str, str]:
        """What the steps make of the layers, in the order of the graph; float32 is wider than int16."""
        widest = {name: FLOAT32 if (name, FLOAT32) in steps else INT16 for name, _ in steps}
        return {name: widest[name] for name in self.names if name in widest}

    def at(self, steps: frozenset[Step]) -> Mix:
        choice = self.choice(steps)
        key = tuple(choice.items())
        if key not in self.found:
            whole, held = self.measure(choice)
            near = all(map(self.goal.accurate, (whole, held), self.float32))
            reached = near and self.goal.affordable(self.costs, choice)
            floats, words = (tuple(n for n, p in choice.items() if p == kind) for kind in (FLOAT32, INT16))
            costs = self.costs.milliseconds(choice), self.costs.bytes(choice)
            self.found[key] = Mix(floats, words, whole, held, *costs, reached)
            self.progress(len(self.found))
        return self.found[key]

    def near(self, steps: frozenset[Step]) -> bool:
        """Whether the mix is accurate enough, whatever it costs."""
        return _near(self, self.at(steps))


@dataclass(frozen=True)
class _Worth:
    """What a step costs in milliseconds, and the noise that goes with it."""

    cost: float
    noise: float

    @property
    def rate(self) -> float:
        return self.noise / max(self.cost, _LEAST_COST)


def _steps(name: str, harm: Harm, costs: Costs) -> dict[Step, _Worth]:
    """The steps of a layer: to int16 and from there to float32 where the first is worth more, else all at once."""
    base = costs.milliseconds({})
    to_float = costs.milliseconds({name: FLOAT32}) - base
    at_once = {(name, FLOAT32): _Worth(to_float, harm.int8)}
    if harm.int16 is None:
        return at_once
    to_words = costs.milliseconds({name: INT16}) - base
    first = _Worth(to_words, harm.int8 - harm.int16)
    second = _Worth(to_float - to_words, harm.int16)
    if to_words >= to_float or first.rate <= second.rate:
        return at_once
    return {(name, INT16): first, (name, FLOAT32): second}


def search(
    names: Sequence[str],
    harm: Mapping[str, Harm],
    goal: Goal,
    costs: Costs,
    measure: Measure,
    float32: tuple[Fidelity, Fidelity],
    progress: Callable[[int], None] = lambda looked_at: None,
) -> Search:
    """The mix that reaches the goal: the cheapest one that is accurate enough, or the most accurate one that is cheap
    enough.

    `names`: the layers in the order of the graph.  `measure` gives the fidelity of a mix, given by its layers that are
    not int8, over all samples and over the held ones; `float32` that of the float model.  QcompError if no mix that
    was found reaches the goal.
    """
    looked = _Looked(names, goal, costs, measure, float32, progress)
    worth = {step: value for name in names for step, value in _steps(name, harm[name], costs).items()}
    order = sorted(worth, key=lambda step: -worth[step].rate)
    if goal.bounds_accuracy:
        best = _cheapest(looked, order, {step: max(value.cost, _LEAST_COST) for step, value in worth.items()})
    else:
        best = _most_accurate(looked, order)
    if not best.reached:
        raise _out_of_reach(looked, best)
    return Search(goal, best, tuple(looked.found.values()), float32[0], tuple(names))


def _cheapest(looked: _Looked, order: Sequence[Step], cost: Mapping[Step, float]) -> Mix:
    """The shortest beginning of the order that is accurate enough, less what turns out not to be needed."""
    few, many = -1, 0
    while many < len(order) and not looked.near(frozenset(order[:many])):  # 0, 1, 3, 7, ...: most models need few
        few, many = many, min(2 * many + 1, len(order))
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if looked.near(frozenset(order[:middle])) else (middle, many)
    steps = frozenset(order[:many])
    looked.at(steps)
    tried: set[Step] = set()
    while len(tried) < RETURNS and not steps <= tried:
        step = max(sorted(steps - tried), key=cost.__getitem__)
        tried.add(step)
        for others in _in_place_of(step, steps, order, cost):
            if looked.near(others):
                steps = others
                break
    for more in SPARES:
        rest = [step for step in order if step not in steps]
        looked.at(steps | frozenset(rest[:more]))
    return looked.at(steps)


def _in_place_of(
    step: Step, steps: frozenset[Step], order: Sequence[Step], cost: Mapping[Step, float]
) -> list[frozenset[Step]]:
    """The mix without this step; if it costs much, also with the next few in its place that cost less."""
    alone = steps - {step}
    found = [alone]
    if cost[step] >= DEAR * sum(cost[other] for other in steps):
        cheap = [other for other in order if other not in steps and cost[other] * EXCHANGED < cost[step]]
        found.append(alone | frozenset(cheap[:EXCHANGED]))
    return found


def _most_accurate(looked: _Looked, order: Sequence[Step]) -> Mix:
    """Steps in order, as many as the costs allow; the best of the mixes on the way."""
    steps: frozenset[Step] = frozenset()
    ways = [steps]
    for step in order:
        if looked.goal.affordable(looked.costs, looked.choice(steps | {step})):
            steps |= {step}
            ways.append(steps)
    picked = {0, len(ways) - 1} | {2**i - 1 for i in range(len(ways).bit_length()) if 2**i <= len(ways)}
    mixes = [looked.at(ways[index]) for index in sorted(picked)]
    return max(mixes, key=lambda mix: (mix.reached, mix.whole.sqnr_db))


class OutOfReach(QcompError):
    """No mix that was looked at reaches the goal."""


def _out_of_reach(looked: _Looked, best: Mix) -> OutOfReach:
    goal = looked.goal
    if not all(goal.accurate(fidelity, fidelity) for fidelity in looked.float32):
        what = f"float32 itself does not reach {goal} on these samples"
    elif goal.bounds_accuracy and not _near(looked, best):
        what = f"no mix reaches {goal} on these samples: the best found has {drop_text(best.whole, looked.float32[0])}"
    else:
        size = f"{best.bytes} bytes of constants"
        time = f"{best.milliseconds:.3g} ms and " if looked.costs.timed else ""
        near = f", {drop_text(best.whole, looked.float32[0])}" if goal.bounds_accuracy else ""
        wide = " and ".join(f"{len(n)} in {p}" for n, p in ((best.floats, FLOAT32), (best.words, INT16)) if n)
        kept = f"with {wide} of {len(looked.names)} layers" if wide else "with everything in int8"
        what = f"no mix reaches {goal}: the cheapest found takes {time}{size}{near}, {kept}"
    return OutOfReach(what, where="precision auto", fix="loosen a bound")


def _near(looked: _Looked, mix: Mix) -> bool:
    return all(map(looked.goal.accurate, (mix.whole, mix.held), looked.float32))
