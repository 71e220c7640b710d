from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import Graph, parse_graph, print_graph
from qcomp.passes import registry
from qcomp.passes.base import Pass
from qcomp.passes.dead_code import DeadCode
from qcomp.passes.manager import Checker, PassRecord, run_passes
from qcomp.passes.registry import format_pipeline, lookup_pass, parse_pipeline, pass_names

GRAPH = """
graph @m {
  input %x: f32[4]
  %q: f32[4] = fake_quant(%x) {quant = q(0.5, 0)}
  %unused: f32[4] = fake_quant(%x) {quant = q(0.25, 0)}
  output %q
}
"""


@dataclass(frozen=True)
class Sample(Pass):
    count: int = 3
    rate: float = 0.5
    deep: bool = False
    mode: Literal["fast", "slow"] = "fast"
    axes: tuple[int, ...] = ()
    limit: int | None = None

    name = "sample"

    def run(self, graph: Graph) -> Graph:
        return graph


@dataclass(frozen=True)
class Coarser(Pass):
    """Replaces every use of %q by %unused, which has another grid."""

    name = "coarser"

    def run(self, graph: Graph) -> Graph:
        old = graph.value("q")
        graph.replace_all_uses(old, graph.value("unused"))
        graph.erase(old.producer)
        graph.rename(graph.value("unused"), "q")
        return graph


@dataclass(frozen=True)
class CoarserAndSaysSo(Coarser):
    name = "coarser-tolerant"
    exact = False
    tolerance = 1.0


@dataclass(frozen=True)
class Breaks(Pass):
    name = "breaks"

    def run(self, graph: Graph) -> Graph:
        graph.value("q").type = graph.value("q").type.with_shape((5,))
        return graph


@dataclass(frozen=True)
class LosesOutputName(Pass):
    name = "loses-output-name"

    def run(self, graph: Graph) -> Graph:
        graph.rename(graph.value("q"), "r")
        return graph


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "pass_table", lambda: {"sample": Sample})


def test_dead_code_removes_what_no_output_needs(rewritten):
    rewritten(
        DeadCode(),
        GRAPH,
        """
        graph @m {
          input %x: f32[4]
          %q: f32[4] = fake_quant(%x) {quant = q(0.5, 0)}
          output %q
        }""",
    )


def test_every_registered_pass_parses_by_its_name_and_documents_before_and_after():
    assert "dead-code" in pass_names()
    for name in pass_names():
        assert name == name.lower() and "_" not in name
        assert lookup_pass(name).__doc__


def test_pipeline_text_gives_typed_options(sample):
    text = "sample{count=7,rate=2,deep=true,mode=slow,axes=[1,2],limit=none}, sample"
    assert parse_pipeline(text) == [Sample(7, 2.0, True, "slow", (1, 2), None), Sample()]


def test_pipeline_text_round_trips(sample):
    passes = [Sample(axes=(1, 2), deep=True, limit=4), Sample()]
    assert parse_pipeline(format_pipeline(passes)) == passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dead-cod", "did you mean dead-code"),
        ("dead-code{x=1}", "no option 'x'"),
        ("dead-code{", "brackets do not match"),
        ("dead-code}", "brackets do not match"),
        ("dead code", "is not a pass"),
    ],
)
def test_bad_pipeline_text_is_a_clear_error(text, message):
    with pytest.raises(QcompError, match=message):
        parse_pipeline(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample{count=x}", "'x' is not an integer"),
        ("sample{count=1.5}", "'1.5' is not an integer"),
        ("sample{rate=fast}", "'fast' is not a number"),
        ("sample{deep=1}", "'1' is not true or false"),
        ("sample{mode=medium}", "not one of fast, slow"),
        ("sample{count}", "has no value"),
        ("sample{cuont=1}", "did you mean count"),
    ],
)
def test_bad_option_is_a_clear_error(sample, text, message):
    with pytest.raises(QcompError, match=message):
        parse_pipeline(text)


def test_run_passes_leaves_the_callers_graph_alone():
    graph = parse_graph(GRAPH)
    run_passes(graph, [DeadCode()])
    assert print_graph(graph) == print_graph(parse_graph(GRAPH))


def test_a_pass_that_leaves_a_broken_graph_is_named():
    with pytest.raises(QcompError, match="pass breaks"):
        run_passes(parse_graph(GRAPH), [DeadCode(), Breaks()])


def test_a_pass_that_loses_an_output_name_is_named():
    with pytest.raises(QcompError, match="pass loses-output-name"):
        run_passes(parse_graph(GRAPH), [LosesOutputName()])


def test_translation_validation_names_the_pass_that_changed_results():
    graph = parse_graph(GRAPH)
    assert run_passes(graph, [Coarser()]) is not graph
    with pytest.raises(QcompError, match="pass coarser: output %q"):
        run_passes(graph, [Coarser()], check=Checker.random(graph))


def test_translation_validation_allows_what_a_pass_declares():
    graph = parse_graph(GRAPH)
    run_passes(graph, [CoarserAndSaysSo()], check=Checker.random(graph))


def test_translation_validation_names_the_pass_that_exceeds_its_tolerance():
    graph = parse_graph(GRAPH)
    check = Checker(({"x": np.array([1000, 1, 2, 3], np.float32)},))
    # 1000 saturates to 63.5 on one grid and to 31.75 on the other.
    tight = type("Tight", (Coarser,), {"name": "tight", "exact": False, "tolerance": 0.4})
    with pytest.raises(QcompError, match="pass tight: output %q.*moved a result by 31.8"):
        run_passes(graph, [tight()], check=check)


def test_every_pass_is_recorded_and_printed():
    records: list[PassRecord] = []
    printed: list[tuple[str, int]] = []
    run_passes(
        parse_graph(GRAPH),
        [DeadCode(), DeadCode()],
        on_pass=records.append,
        print_after=lambda step, graph: printed.append((step.name, len(graph))),
    )
    assert [(r.name, r.changed, r.nodes_before, r.nodes_after) for r in records] == [
        ("dead-code", True, 2, 1),
        ("dead-code", False, 1, 1),
    ]
    assert all(r.seconds >= 0 for r in records)
    assert printed == [("dead-code", 1), ("dead-code", 1)]
