"""The search on made-up models, whose best mix is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import layered_networks
import pytest

from qcomp.compiler import canonical
from qcomp.errors import QcompError
from qcomp.quantize.fidelity import Fidelity
from qcomp.quantize.goals import Goal, drop
from qcomp.quantize.mixes import Harm, Search, search
from qcomp.reports.costs import Costs, modelled_costs
from qcomp.targets import target

NAMES = tuple("abcdefgh")
PRICE = {"float32": 1.0, "int16": 0.1}


class Prices(Costs):
    """A millisecond and 100 bytes a float layer, ten for layer a, on top of 5 ms and 1000 bytes; of int16 a tenth."""

    def __init__(self) -> None:
        super().__init__(canonical(layered_networks.with_outlier()), True, {})

    def milliseconds(self, choice: Mapping[str, str]) -> float:
        return 5.0 + sum((10.0 if n == "a" else 1.0) * PRICE[precision] for n, precision in choice.items())

    def bytes(self, choice: Mapping[str, str]) -> int:
        return 1000 + round(sum(100 * PRICE[precision] for precision in choice.values()))


def fidelity(noise: float, lost: float = 0.0, samples: int = 1000) -> Fidelity:
    sqnr = math.inf if noise == 0 else -10 * math.log10(noise)
    return Fidelity(sqnr, 1.0, 1.0 - lost, 0.9 - lost, math.sqrt(lost / samples))


FLOAT = (fidelity(0.0), fidelity(0.0))
HARM = {"a": 0.5, "b": 0.2, "c": 0.1, "d": 0.01, "e": 1e-3, "f": 1e-4, "g": 1e-5, "h": 1e-6}


def find(goal: Goal, harm: dict[str, float] = HARM, weights: dict[str, float] | None = None) -> Search:
    """`weights`: what int16 leaves of the harm, for layers that have it."""

    def left(name: str, precision: str) -> float:
        return {"int8": harm[name], "int16": (weights or {}).get(name, harm[name]), "float32": 0.0}[precision]

    def measure(choice: Mapping[str, str]) -> tuple[Fidelity, Fidelity]:
        noise = math.fsum(left(name, choice.get(name, "int8")) for name in NAMES)
        return fidelity(noise, noise / 10), fidelity(noise, noise / 10)

    harms = {name: Harm(harm[name], None if weights is None else weights.get(name)) for name in NAMES}
    return search(NAMES, harms, goal, Prices(), measure, FLOAT)


def test_everything_stays_int8_where_that_is_enough() -> None:
    found = find(Goal(min_sqnr=0.5))
    assert found.best.floats == ()
    assert [len(mix.floats) for mix in found.looked_at] == [0, 4, 8]
    assert set(found.precision().values()) == {"int8"}


def test_the_layers_that_harm_most_stay_float() -> None:
    assert find(Goal(min_sqnr=19.0)).best.floats == ("a", "b", "c")
    assert find(Goal(min_sqnr=29.0)).best.floats == ("a", "b", "c", "d")


def test_what_is_not_needed_goes_back_to_int8() -> None:
    # b is first by harm for its cost, but a alone would do
    found = find(Goal(min_sqnr=3.0), HARM | {"a": 0.6, "b": 0.3, "c": 0.1})
    assert found.best.floats == ("a",)


def test_a_dear_layer_gives_way_to_cheap_ones() -> None:
    # with b and c either a (10 ms) or d (1 ms) will do; by harm for its cost a comes first
    harm = dict.fromkeys(NAMES, 0.0) | {"a": 0.06, "b": 0.05, "c": 0.04, "d": 0.005}
    found = find(Goal(min_sqnr=-10 * math.log10(0.062)), harm)
    assert found.best.floats == ("b", "c", "d")


def test_a_layer_that_suffers_from_its_activations_gets_int16() -> None:
    found = find(Goal(min_sqnr=19.0), weights={"a": 1e-4, "b": 1e-4, "c": 1e-4})
    assert (found.best.words, found.best.floats) == (("a", "b", "c"), ())
    assert found.precision() == dict.fromkeys(NAMES, "int8") | dict.fromkeys("abc", "int16")
    assert found.best.milliseconds == pytest.approx(6.2)


def test_a_layer_goes_on_to_float32_where_its_weights_harm_too() -> None:
    found = find(Goal(min_sqnr=29.0), weights={"a": 1e-2, "b": 1e-5, "c": 1e-5, "d": 1e-5})
    assert "a" in found.best.floats + found.best.words
    assert set(found.best.words) >= {"b", "c", "d"} and found.best.whole.sqnr_db >= 29.0


def test_int16_that_takes_nothing_away_is_left_out() -> None:
    found = find(Goal(min_sqnr=19.0), weights=dict.fromkeys(NAMES, 0.6))
    assert found.best.words == () and found.best.floats == ("a", "b", "c")


def test_a_drop_needs_a_standard_error_to_spare() -> None:
    assert drop(fidelity(0.1, 0.004), FLOAT[0]) == pytest.approx(0.004)
    goal = Goal(max_drop=0.005)
    assert goal.accurate(fidelity(0.1, 0.004, samples=100_000), FLOAT[0])
    assert not goal.accurate(fidelity(0.1, 0.004, samples=250), FLOAT[0])
    assert goal.accurate(fidelity(0.1, 0.0, samples=8), FLOAT[0])


def test_costs_alone_bound_the_most_accurate_mix() -> None:
    found = find(Goal(max_latency=8.0))
    assert found.best.floats == ("b", "c", "d")
    assert find(Goal(max_size=1100)).best.floats == ("b",)


def test_the_front_gets_slower_and_better() -> None:
    front = find(Goal(min_sqnr=29.0)).front()
    assert len(front) > 1
    for before, after in zip(front, front[1:], strict=False):
        assert before.milliseconds < after.milliseconds and before.whole.sqnr_db < after.whole.sqnr_db


def test_candidates_are_the_best_and_then_better_ones() -> None:
    found = find(Goal(min_sqnr=19.0))
    first, *others = found.candidates(9)
    assert first is found.best
    assert all(mix.reached and mix.whole.sqnr_db > first.whole.sqnr_db for mix in others)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (Goal(min_sqnr=29.0, max_latency=9.0), "no mix reaches .*29 dB, at most 9 ms: the cheapest found takes 18 ms"),
        (Goal(max_latency=4.0), "at most 4 ms: .* with everything in int8"),
        (Goal(max_size=999), "at most 999 bytes: .*1000 bytes of constants"),
    ],
)
def test_goals_out_of_reach_are_refused(goal: Goal, message: str) -> None:
    with pytest.raises(QcompError, match=message):
        find(goal)


@pytest.mark.parametrize(
    "bounds", [{"max_drop": -0.1}, {"max_drop": 1.1}, {"min_sqnr": math.nan}, {"max_latency": 0.0}, {"max_size": 0}]
)
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(QcompError, match="no bound"):
        Goal(**bounds)  # type: ignore[arg-type]


def test_outputs_without_answers_need_a_bound_of_noise() -> None:
    blind = Fidelity(20.0, 1.0, None, None, 0.0)
    with pytest.raises(QcompError, match="--min-sqnr"):
        Goal(max_drop=0.1).accurate(blind, blind)
    assert Goal(min_sqnr=19.0).accurate(blind, blind)


def test_a_model_of_costs_counts_what_follows_a_float_layer() -> None:
    graph = canonical(layered_networks.residual())
    costs = modelled_costs(graph, target("x86_64-avx2"))
    assert costs.timed

    def took(*floats: str) -> float:
        return costs.milliseconds(dict.fromkeys(floats, "float32"))

    assert took() < took("swish") < took("first") == took("first", "swish")
    assert took() < costs.milliseconds({"first": "int16"}) < took("first")
    assert costs.bytes({"second": "float32"}) - costs.bytes({}) == 64 * 3 - 8 * 2
    assert costs.bytes({"second": "int16"}) - costs.bytes({}) == 64 + 8 * 2


def test_a_target_without_rates_has_costs_in_no_unit() -> None:
    costs = modelled_costs(canonical(layered_networks.residual()), target("generic"))
    assert not costs.timed and costs.milliseconds({}) < costs.milliseconds({"first": "float32"})


def test_with_bounds_of_costs_alone_candidates_get_narrower_down_to_int8() -> None:
    found = find(Goal(max_size=1600))
    assert [len(mix.floats) for mix in found.candidates(9)] == [6, 3, 1, 0]
    assert [len(mix.floats) for mix in found.candidates(3)] == [6, 3, 0]


def test_what_no_mix_reaches_is_not_laid_to_float32() -> None:
    def measure(choice: Mapping[str, str]) -> tuple[Fidelity, Fidelity]:
        return fidelity(1e-4), fidelity(1e-4)

    harms = {name: Harm(HARM[name]) for name in NAMES}
    with pytest.raises(QcompError, match="no mix reaches at least 60 dB on these samples: the best found has 40.0 dB"):
        search(NAMES, harms, Goal(min_sqnr=60.0), Prices(), measure, FLOAT)
