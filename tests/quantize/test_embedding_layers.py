"""Embeddings are layers of the search: int8 rows of a table, or float32 where they are the limit."""

from __future__ import annotations

import numpy as np

from qcomp.analysis import analyze
from qcomp.compiler import Options, quantize
from qcomp.ir import Graph, parse_graph
from qcomp.quantize.layers import Study
from qcomp.reports.costs import modelled_costs
from qcomp.targets import target

ROWS, WIDTH = 512, 16
_TABLE = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).round(3)
_WEIGHTS = np.random.default_rng(1).normal(size=(4, WIDTH)).round(3)
TEXT = f"""graph @m {{
  input %ids: i64[6]
  const %table: f32[{ROWS},{WIDTH}] = {_TABLE.reshape(-1).tolist()}
  const %w: f32[4,{WIDTH}] = {_WEIGHTS.reshape(-1).tolist()}
  %e: f32[6,{WIDTH}] = gather(%table, %ids) {{axis = 0}} @"words"
  %y: f32[6,4] = gemm(%e, %w) {{trans_b = true}} @"head"
  output %y
}}"""
SAMPLES = {"ids": np.random.default_rng(2).integers(0, ROWS, (12, 6))}


def graph() -> Graph:
    return parse_graph(TEXT)


def table_types(lowered: Graph) -> set[str]:
    return {v.dtype.value for v in lowered.constants if v.shape == (ROWS, WIDTH)}


def samples() -> list[dict[str, np.ndarray]]:
    return [{"ids": ids} for ids in SAMPLES["ids"]]


def test_a_table_that_was_chosen_float32_stays_as_it_is() -> None:
    assert table_types(quantize(graph(), samples())) == {"i8"}
    assert table_types(quantize(graph(), samples(), Options(precision={"words": "float32"}))) == {"f32"}


def test_an_analysis_measures_the_table_alone() -> None:
    found = analyze(graph(), calibration=samples())
    assert [layer.name for layer in found.layers] == ["words", "head"]
    by_name = {s.name: s for s in found.sensitivities}
    assert 30 < by_name["words"].alone.sqnr_db < 60


def test_without_every_layer_nothing_is_rounded() -> None:
    study = Study(graph(), {"e": (-4.0, 4.0)})
    mixed = study.mixed({"words": "float32", "head": "float32"})
    assert [n.op.name for n in mixed.nodes] == ["gather", "gemm"]


def test_the_rows_of_a_table_count_a_byte_or_four() -> None:
    costs = modelled_costs(graph(), target("x86_64-avx512vnni"))
    assert costs.bytes({"words": "float32"}) - costs.bytes({}) == 3 * ROWS * WIDTH
