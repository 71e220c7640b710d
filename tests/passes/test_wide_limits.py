"""int16 operands of products with many taps: their integers leave room in the accumulator, weights keep their bits."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.compiler import Options, quantize
from qcomp.ir import Graph, parse_graph, run
from qcomp.reports.coverage import coverage

TAPS = 2048
_WEIGHTS = np.random.default_rng(3).uniform(-1, 1, (2, TAPS)).round(3)
_SPREAD = np.random.default_rng(4).normal(0, 1, (TAPS, 8)).round(2)
_WIDE = f"const %w: f32[2,{TAPS}] = {_WEIGHTS.reshape(-1).tolist()}"
DIRECT = f"""graph @m {{
  input %x: f32[1,2,{TAPS // 2}]
  {_WIDE}
  %r: f32[1,{TAPS}] = reshape(%x) {{shape = [1, {TAPS}]}}
  %y: f32[1,2] = gemm(%r, %w) {{trans_b = true}} @"head"
  output %y
}}"""
BEHIND = f"""graph @m {{
  input %x: f32[1,8]
  {_WIDE}
  const %v: f32[{TAPS},8] = {_SPREAD.reshape(-1).tolist()}
  %h: f32[1,{TAPS}] = gemm(%x, %v) {{trans_b = true}} @"first"
  %r: f32[1,{TAPS}] = FUNCTION(%h) @"between"
  %y: f32[1,2] = gemm(%r, %w) {{trans_b = true}} @"head"
  output %y
}}"""


def samples(text: str) -> np.ndarray:
    shape = parse_graph(text).inputs[0].shape
    return np.random.default_rng(6).normal(size=(32, *shape[1:])).astype(np.float32)


def chosen(text: str, precision: str) -> Graph:
    options = Options(method="minmax", precision={"head": precision})
    return quantize(parse_graph(text), {"x": samples(text)}, options)


def noise(text: str, precision: str) -> float:
    graph, exact = chosen(text, precision), parse_graph(text)
    errors = [run(graph, {"x": x[None]})["y"] - run(exact, {"x": x[None]})["y"] for x in samples(text)]
    return float(np.square(errors).mean())


@pytest.mark.parametrize("text", [DIRECT, BEHIND.replace("FUNCTION", "relu")], ids=["direct", "behind"])
def test_int16_keeps_the_weights_and_is_nearer_than_int8(text: str) -> None:
    head = next(n for n in chosen(text, "int16").nodes if n.name == "head")
    assert head.input(0).dtype.value == "i16"
    assert (np.abs(head.input(1).array).max(axis=1) == 127).all()
    assert noise(text, "int16") < 0.5 * noise(text, "int8")


def test_the_op_before_takes_the_bounds_along() -> None:
    quantized, first, head = chosen(BEHIND.replace("FUNCTION", "relu"), "int16").nodes
    assert quantized.op.name == "quantize" and first.op.name == head.op.name == "qgemm"
    assert first.call.int("lo") == 0 and first.call.int("hi") < 32767


def test_integers_of_a_float_are_bounded_by_a_rescale() -> None:
    graph = chosen(DIRECT, "int16")
    assert [n.op.name for n in graph.nodes] == ["quantize", "rescale", "reshape", "qgemm"]
    bounds = graph.nodes[1]
    assert bounds.attrs["mult"] == 1.0 and bounds.output.quant == bounds.input(0).quant
    assert -bounds.call.int("lo") == bounds.call.int("hi") < 32767


def test_a_function_before_stays_the_only_float() -> None:
    graph = chosen(BEHIND.replace("FUNCTION", "silu"), "int16")
    assert [i.node for i in coverage(graph).islands] == ["between"]


def test_products_of_few_taps_use_all_of_int16() -> None:
    text = BEHIND.replace(str(TAPS), "4").replace(str(_WEIGHTS.reshape(-1).tolist()), str([0.5] * 8))
    text = text.replace(str(_SPREAD.reshape(-1).tolist()), str([1.0, -1.0] * 16)).replace("FUNCTION", "silu")
    assert "rescale" not in {n.op.name for n in chosen(text, "int16").nodes}
