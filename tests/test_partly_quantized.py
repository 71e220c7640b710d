"""Calibration data for models that are quantized in part: it serves what they leave open."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.compiler import Options, quantize
from qcomp.ir import Graph, parse_graph, run

WEIGHTS_ALONE = """graph @m {
  input %x: f32[1,2]
  const %w: i8[2,2] q(0.5, 0) = [2, -4, 1, 3]
  %wr: f32[2,2] = dequantize(%w)
  %h: f32[1,2] = gemm(%x, %wr) {trans_b = true}
  %r: f32[1,2] = relu(%h)
  %y: f32[1,2] = gemm(%r, %wr) {trans_b = true}
  output %y
}"""
FIRST_LAYER_ALONE = WEIGHTS_ALONE.replace(
    "%h: f32[1,2] = gemm(%x", "%q: f32[1,2] = fake_quant(%x) {quant = q(0.03125, 0)}\n  %h: f32[1,2] = gemm(%q"
)
ALL = FIRST_LAYER_ALONE.replace(
    "%y: f32[1,2] = gemm(%r", "%s: f32[1,2] = fake_quant(%r) {quant = q(0.0625, -128)}\n  %y: f32[1,2] = gemm(%s"
)
LAST_WEIGHTS_FLOAT = ALL.replace("gemm(%s, %wr)", "gemm(%s, %v)").replace(
    "  %wr:", "  const %v: f32[2,2] = [1.0, -2.0, 0.5, 1.5]\n  %wr:"
)
SAMPLES = np.random.default_rng(0).normal(0, 1, (32, 2)).astype(np.float32)


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


@pytest.mark.parametrize("text", [WEIGHTS_ALONE, FIRST_LAYER_ALONE, LAST_WEIGHTS_FLOAT])
def test_what_a_model_leaves_open_is_calibrated(text: str) -> None:
    source = parse_graph(text)
    graph = quantize(source, SAMPLES)
    assert ops(graph) == ["quantize", "qgemm", "qgemm"]
    x = {"x": SAMPLES[:1]}
    assert np.abs(run(graph, x)["y"] - run(source, x)["y"]).max() < 0.2


def test_without_data_it_stays_float() -> None:
    assert ops(quantize(parse_graph(WEIGHTS_ALONE), None)) == ["gemm", "relu", "gemm"]


def test_data_is_not_read_where_nothing_is_open() -> None:
    def refuse(_: object) -> None:
        raise AssertionError("calibrated")

    assert ops(quantize(parse_graph(ALL), SAMPLES, Options(on_calibration=refuse))) == ["quantize", "qgemm", "qgemm"]
