"""Recurrent layers take part in sensitivities and mixes with their int8 state."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.compiler import Options, canonical, preview, quantize
from qcomp.ir import Graph
from qcomp.ir.interpreter import run
from qcomp.ir.onnx_export import to_onnx
from qcomp.ir.text import parse_graph
from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.fidelity import Fidelity, compare
from qcomp.quantize.float_runs import outputs_on
from qcomp.quantize.grids import possible_points
from qcomp.quantize.layers import ALONE, WEIGHTS, WITHOUT, Study
from qcomp.reports.costs import modelled_costs
from qcomp.reports.coverage import coverage
from qcomp.targets import target

STEPS, WIDTH, HIDDEN = 12, 6, 8


@pytest.fixture(scope="module")
def made() -> tuple[Study, np.ndarray]:
    """A layer over 12 steps of 6 numbers: a product "layer" to the gates, and an lstm of the same name."""
    generator = np.random.default_rng(2)

    def weights(columns: int) -> list[float]:
        array: list[float] = generator.normal(0, 0.6, 4 * HIDDEN * columns).astype(np.float32).tolist()
        return array

    graph = parse_graph(
        f"""graph @layer {{
  input %x: f32[{STEPS},{WIDTH}]
  const %w: f32[{4 * HIDDEN},{WIDTH}] = {weights(WIDTH)}
  const %r: f32[{4 * HIDDEN},{HIDDEN}] = {weights(HIDDEN)}
  %g: f32[{STEPS},{4 * HIDDEN}] = gemm(%x, %w) {{trans_b = true}} @"layer"
  %s: f32[{STEPS},1,{4 * HIDDEN}] = reshape(%g) {{shape = [{STEPS}, 1, {4 * HIDDEN}]}}
  %y: f32[{STEPS},1,{HIDDEN}], %h: f32[1,{HIDDEN}], %c: f32[1,{HIDDEN}] = lstm(%s, %r) @"layer"
  output %y
}}"""
    )
    graph = canonical(graph)
    x = generator.standard_normal((16, STEPS, WIDTH)).astype(np.float32)
    samples = [{"x": sample} for sample in x]
    ranges = calibrate(to_onnx(graph), samples, possible_points(graph), "minmax").ranges()
    return Study(graph, {name: (r.lo, r.hi) for name, r in ranges.items()}), x


def noise(made: tuple[Study, np.ndarray], graph: Graph) -> float:
    study, x = made
    samples = [{"x": sample} for sample in x]
    pairs = zip(outputs_on(study.graph, samples, 1), outputs_on(graph, samples, 1), strict=True)
    return Fidelity.of([compare(a, b) for a, b in pairs]).sqnr_db


def test_the_layer_is_its_product_and_its_state(made: tuple[Study, np.ndarray]) -> None:
    (layer,) = made[0].layers
    assert layer.macs == STEPS * 4 * HIDDEN * (WIDTH + HIDDEN)
    assert layer.parameters == 4 * HIDDEN * (WIDTH + HIDDEN)


def test_the_state_counts_in_every_form_but_float32(made: tuple[Study, np.ndarray]) -> None:
    study = made[0]
    assert noise(made, study.variant(WITHOUT, "layer")) == np.inf
    assert noise(made, study.variant(ALONE, "layer")) < noise(made, study.variant(WEIGHTS, "layer")) < 50


def test_the_simulation_is_near_what_integers_compute(made: tuple[Study, np.ndarray]) -> None:
    study, x = made
    options = Options(method="minmax")
    integer = quantize(study.graph.clone(), [{"x": sample} for sample in x], options)
    assert any(node.attrs.get("state_scale") for node in integer.nodes)
    pairs = [([run(study.graph, {"x": s})["y"]], [run(integer, {"x": s})["y"]]) for s in x]
    compiled = Fidelity.of([compare(a, b) for a, b in pairs]).sqnr_db
    assert noise(made, study.int8) == pytest.approx(compiled, abs=0.5)


def test_a_float_state_costs_more(made: tuple[Study, np.ndarray]) -> None:
    costs = modelled_costs(made[0].graph, target("x86_64-avx2"))
    float32 = {"layer": "float32"}
    assert costs.milliseconds({}) < costs.milliseconds(float32)
    assert costs.bytes(float32) - costs.bytes({}) >= 3 * 4 * HIDDEN * (WIDTH + HIDDEN) - 200


def test_a_preview_assumes_the_data_that_is_to_come(made: tuple[Study, np.ndarray]) -> None:
    assert [i.reason for i in coverage(preview(made[0].graph.clone())).islands] == []
