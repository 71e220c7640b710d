"""Attention over many keys whose small weights hold much together stays float32; other attention is int8."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.analysis import analyze
from qcomp.compiler import Options, quantize
from qcomp.ir import Graph, parse_graph, run
from qcomp.quantize.attention_tails import moved_weight
from qcomp.reports.coverage import coverage

KEYS = 256
TEXT = f"""graph @m {{
  input %q: f32[1,2,1,4]
  input %k: f32[1,{KEYS},1,4]
  input %v: f32[1,{KEYS},1,4]
  const %w: f32[4,4] = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
  %a: f32[1,2,1,4] = attention(%q, %k, %v) {{scale = 1.0}} @"heads"
  %r: f32[2,4] = reshape(%a) {{shape = [2, 4]}}
  %y: f32[2,4] = gemm(%r, %w) @"last"
  output %y
}}"""


def samples(gap: float) -> dict[str, np.ndarray]:
    """One key is best by `gap`, and its value is unlike those of all others."""
    rng = np.random.default_rng(0)
    q, k = np.zeros((8, 2, 1, 4), np.float32), np.zeros((8, KEYS, 1, 4), np.float32)
    q[..., 0], k[:, 0, :, 0] = gap, 1.0
    v = rng.uniform(0.5, 1.5, (8, KEYS, 1, 4)).astype(np.float32)
    v[:, 0] = -1.0
    return {"q": q, "k": k, "v": v}


def taken(data: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: array[i : i + 1] for name, array in data.items()}


def ops(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.nodes}


@pytest.mark.parametrize("gap, share", [(0.0, 0.0), (6.5, (KEYS - 1) / (KEYS - 1 + np.exp(6.5))), (20.0, 0.0)])
def test_the_weight_that_moves_is_that_of_keys_that_round_to_nothing(gap: float, share: float) -> None:
    graph = parse_graph(TEXT)
    few = [taken(samples(gap), i) for i in range(4)]
    (found,) = moved_weight(graph, graph.nodes[:1], few).values()
    assert found == pytest.approx(share, abs=1e-5)


def test_a_mask_hides_keys_from_the_measure() -> None:
    text = TEXT.replace("%v) {", "%v, %hide) {").replace(
        "  const %w", f"  const %hide: f32[1,1,1,{KEYS}] = {[0.0] + [-1e30] * (KEYS - 1)}\n  const %w"
    )
    graph = parse_graph(text)
    assert list(moved_weight(graph, graph.nodes[:1], [taken(samples(6.5), 0)]).values()) == [0.0]


def test_a_long_tail_stays_float_with_a_reason_and_is_right() -> None:
    data = samples(6.5)
    graph = quantize(parse_graph(TEXT), data)
    assert "qattention" not in ops(graph)
    reasons = {i.node: i.reason for i in coverage(graph).islands}
    assert reasons["heads"] == "long-tail" and set(reasons.values()) <= {"long-tail", "float-neighbours"}
    exact = run(parse_graph(TEXT), taken(data, 0))["y"]
    assert np.abs(run(graph, taken(data, 0))["y"] - exact).max() < 0.05


def test_attention_without_one_is_integer() -> None:
    assert "qattention" in ops(quantize(parse_graph(TEXT), samples(2.0)))


def test_who_chooses_int8_has_it() -> None:
    graph = quantize(parse_graph(TEXT), samples(6.5), Options(precision={"heads": "int8"}))
    assert "qattention" in ops(graph)


def test_who_chooses_float32_is_told_so() -> None:
    graph = quantize(parse_graph(TEXT), samples(6.5), Options(precision={"heads": "float32"}))
    assert {i.node: i.reason for i in coverage(graph).islands}["heads"] == "chosen-float32"


def test_an_analysis_leaves_it_out_of_its_layers() -> None:
    found = analyze(parse_graph(TEXT), calibration=samples(6.5))
    assert [layer.name for layer in found.layers] == ["last"]
    found = analyze(parse_graph(TEXT), calibration=samples(2.0))
    assert [layer.name for layer in found.layers] == ["heads", "last"]
