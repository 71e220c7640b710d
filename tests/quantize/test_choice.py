"""The range of a tensor follows from what the layers behind it make of it."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.compiler import Options, quantize
from qcomp.ir import Graph, parse_graph
from qcomp.ir.onnx_export import to_onnx
from qcomp.passes.quantization_plan import plan_quantization
from qcomp.quantize import choice as choice_module
from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.choice import CANDIDATES, Choice, choose_ranges, readers
from qcomp.quantize.quality import Quality

# Channel 1 has an outlier in every sample, a hundred times what channel 0 holds.
OUTLIERS = np.random.default_rng(0).normal(size=(16, 2000, 2)).astype(np.float32)
OUTLIERS[:, 0, 1] = 100.0


def gemm(weights: str) -> Graph:
    return parse_graph(f"""graph @m {{
  input %x: f32[2000,2]
  const %w: f32[2,1] = [{weights}]
  %y: f32[2000,1] = gemm(%x, %w)
  output %y
}}""")


def chosen(graph: Graph) -> dict[str, Choice]:
    samples = [{"x": sample} for sample in OUTLIERS]
    plan = plan_quantization(graph)
    calibration = calibrate(to_onnx(graph), samples, [v.name for v in plan.points], "auto")
    return {c.tensor: c for c in choose_ranges(graph, plan, calibration, samples[:8])}


def test_outliers_that_nobody_reads_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_module, "_MOST_ERROR", np.inf)
    choice = chosen(gemm("1.0, 0.0"))["x"]
    assert choice.method.startswith("percentile") and choice.range[1] < 10.0
    assert choice.after < 0.1 * choice.before


def test_what_all_samples_say_of_clipping_bounds_the_choice() -> None:
    choice = chosen(gemm("1.0, 0.0"))["x"]
    assert choice.method == "mse" and choice.range[1] > 90.0


def test_outliers_that_the_layer_reads_stay() -> None:
    choice = chosen(gemm("1.0, 1.0"))["x"]
    assert choice.range[1] > 90.0


def test_tensors_of_one_grid_take_one_candidate() -> None:
    graph = parse_graph("""graph @m {
  input %x: f32[2000,2]
  const %w: f32[2,2] = [1.0, 0.0, 0.0, 1.0]
  const %u: f32[2,2] = [0.0, 0.0, 0.0, 1.0]
  const %v: f32[4,1] = [1.0, 0.0, 0.0, 0.0]
  %a: f32[2000,2] = gemm(%x, %w)
  %b: f32[2000,2] = gemm(%x, %u)
  %c: f32[2000,4] = concat(%a, %b) {axis = 1}
  %y: f32[2000,1] = gemm(%c, %v)
  output %y
}""")
    found = chosen(graph)
    assert found["a"].method == found["b"].method


def test_a_tensor_of_few_values_is_left_as_it_is() -> None:
    graph = parse_graph("""graph @m {
  input %x: f32[1,2]
  const %w: f32[2,1] = [1.0, 0.0]
  %y: f32[1,1] = gemm(%x, %w)
  output %y
}""")
    samples = [{"x": sample[:1]} for sample in OUTLIERS]
    calibration = calibrate(to_onnx(graph), samples, ["x"], "auto")
    assert choose_ranges(graph, plan_quantization(graph), calibration, samples) == ()


def test_readers_end_where_values_mix() -> None:
    graph = parse_graph("""graph @m {
  input %x: f32[1,2]
  const %w: f32[2,2] = [1.0, 0.0, 0.0, 1.0]
  %r: f32[1,2] = relu(%x)
  %a: f32[1,2] = gemm(%r, %w)
  %s: f32[1,2] = add(%r, %a)
  %y: f32[1,2] = gemm(%s, %w)
  output %y
}""")
    nodes, results = readers(graph, graph.value("x"))
    assert [n.op.name for n in nodes] == ["relu", "gemm", "add"]
    assert {v.name for v in results} == {"a", "s"}


def test_the_default_chooses_and_says_so_and_a_named_method_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_module, "_MOST_ERROR", np.inf)

    def lines(**options: str) -> list[str]:
        seen: list[Quality] = []
        quantize(gemm("1.0, 0.0"), {"x": OUTLIERS}, Options(on_quality=seen.append, **options))  # type: ignore[arg-type]
        return seen[0].lines()

    assert lines()[0].startswith("ranges of 1 tensors by mse, but 1 by percentile")
    assert not any(line.startswith("ranges") for line in lines(method="mse"))


def test_the_first_candidate_is_the_fallback() -> None:
    assert CANDIDATES[0] == ("mse", 1.0)
