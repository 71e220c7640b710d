"""Nodes that were chosen to stay float32 stay so through every pass; the rest runs on integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcomp.compiler import Options, preview, quantize
from qcomp.errors import QcompError
from qcomp.ir import Graph, parse_graph, print_graph
from qcomp.passes.choose_precision import ChoosePrecision
from qcomp.passes.integer_regions import integer_nodes
from qcomp.passes.manager import run_passes
from qcomp.passes.precision import chosen_precision, precision_text, read_precision
from qcomp.reports.coverage import coverage, int8_advice

NETWORK = """graph @m {
  input %x: f32[1,2,4,4]
  const %w: f32[2,2,1,1] = [1.0, -2.0, 0.5, 0.25]
  const %v: f32[2,2,1,1] = [1.0, -2.0, 0.5, 0.25]
  %c: f32[1,2,4,4] = conv2d(%x, %w) @"first"
  %r: f32[1,2,4,4] = hard_swish(%c) @"swish"
  %d: f32[1,2,4,4] = conv2d(%r, %v) @"second"
  %s: f32[1,2,4,4] = add(%d, %r) @"sum"
  %e: f32[1,2,4,4] = conv2d(%s, %v) @"third"
  output %e
}"""
SAMPLES = {"x": np.random.default_rng(0).standard_normal((40, 2, 4, 4)).astype(np.float32)}


def lowered(**precision: str) -> Graph:
    return quantize(parse_graph(NETWORK), SAMPLES, Options(method="minmax", precision=precision))


def test_the_choice_is_written_into_the_graph() -> None:
    graph = run_passes(parse_graph(NETWORK), [ChoosePrecision(precision={"second": "float32", "first": "int8"})])
    assert 'precision = ["first=int8", "second=float32"]}' in print_graph(graph).splitlines()[0]
    assert chosen_precision(parse_graph(print_graph(graph))) == {"first": "int8", "second": "float32"}


def test_names_may_hold_what_separates_them() -> None:
    graph = parse_graph(NETWORK.replace('"first"', '"a=b/c=d"'))
    graph = run_passes(graph, [ChoosePrecision(precision={"a=b/c=d": "float32"})])
    assert chosen_precision(graph) == {"a=b/c=d": "float32"}


def test_a_chosen_product_leaves_the_integer_side_with_what_depends_on_it() -> None:
    graph = run_passes(parse_graph(NETWORK), [ChoosePrecision(precision={"first": "float32"})])
    assert [n.name for n in graph.nodes if n in integer_nodes(graph)] == ["second", "sum", "third"]


def test_everything_in_int8_is_the_default() -> None:
    assert print_graph(lowered()) == print_graph(lowered(first="int8", sum="int8")).replace(
        ', precision = ["first=int8", "sum=int8"]', ""
    )


@pytest.mark.parametrize("name", ["first", "swish", "second", "sum", "third"])
def test_a_chosen_node_and_only_what_follows_it_stays_float(name: str) -> None:
    found = coverage(lowered(**{name: "float32"}))
    reasons = {island.node: island.reason for island in found.islands}
    assert reasons.pop(name) == "chosen-float32"
    assert set(reasons.values()) <= {"float-neighbours"}
    products = {"first", "second", "third"} - {name}
    assert products.isdisjoint(reasons)


def test_a_chosen_function_between_integers_does_not_become_a_table() -> None:
    text = NETWORK.replace("  output %e", "  %f: f32[1,2,4,4] = conv2d(%c, %v)\n  output %e\n  output %f")
    graph = quantize(parse_graph(text), SAMPLES, Options(method="minmax", precision={"swish": "float32"}))
    assert [n.op.name for n in graph.nodes if n.name == "swish"] == ["hard_swish"]


def test_a_chosen_sum_between_integers_does_not_become_an_integer_sum() -> None:
    graph = lowered(sum="float32")
    assert [n.op.name for n in graph.nodes if n.name == "sum"] == ["add"]


def test_weights_of_a_chosen_product_are_not_rounded() -> None:
    graph = lowered(second="float32")
    (node,) = [n for n in graph.nodes if n.name == "second"]
    assert node.op.name == "conv2d"
    assert node.input(1).array.tolist() == parse_graph(NETWORK).value("v").array.tolist()


def test_all_float_needs_no_grid() -> None:
    found = coverage(lowered(first="float32", second="float32", third="float32", sum="float32"))
    assert (found.integer_nodes, found.integer_macs) == (0, 0)


def test_the_preview_follows_the_choice() -> None:
    found = coverage(preview(parse_graph(NETWORK), Options(precision={"third": "float32"})))
    assert {i.node: i.reason for i in found.islands} == {"sum": "float-neighbours", "third": "chosen-float32"}
    assert "--precision" in int8_advice(found.islands)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ({"secnd": "float32"}, "no node 'secnd'; did you mean second"),
        ({"zzz": "int8"}, "no node 'zzz'; `qcomp analyze` lists"),
        ({"second": "float16"}, "'float16' is no precision; use int8, int16, float32"),
    ],
)
def test_wrong_choices_are_refused(precision: dict[str, str], message: str) -> None:
    with pytest.raises(QcompError, match=message):
        run_passes(parse_graph(NETWORK), [ChoosePrecision(precision=precision)])


def test_data_movement_cannot_be_chosen() -> None:
    graph = parse_graph(
        'graph @m {\n  input %x: f32[1,2]\n  %y: f32[2] = reshape(%x) {shape = [2]} @"move"\n  output %y\n}'
    )
    with pytest.raises(QcompError, match="only moves data"):
        run_passes(graph, [ChoosePrecision(precision={"move": "float32"})])


def test_a_quantized_model_has_nothing_to_choose() -> None:
    text = NETWORK.replace("conv2d(%x, %w)", "conv2d(%xq, %w)").replace(
        "  const %w", "  %xq: f32[1,2,4,4] = fake_quant(%x) {quant = q(0.5, 0)}\n  const %w"
    )
    with pytest.raises(QcompError, match="quantized already"):
        quantize(parse_graph(text), SAMPLES, Options(precision={"first": "float32"}))


def test_a_file_holds_a_choice(tmp_path: Path) -> None:
    precision = {"second": "float32", "first": "int8"}
    (tmp_path / "p.json").write_text(precision_text(precision))
    assert read_precision(tmp_path / "p.json") == precision
    graph = quantize(parse_graph(NETWORK), SAMPLES, Options(method="minmax", precision=tmp_path / "p.json"))
    assert print_graph(graph) == print_graph(lowered(**precision))


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"a": "int4"}', "\0"])
def test_files_with_something_else_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(QcompError, match=r"p\.json"):
        read_precision(tmp_path / "p.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QcompError, match=r"lost\.json: cannot be read"):
        read_precision(tmp_path / "lost.json")
