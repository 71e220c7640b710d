"""Equalization, bias correction and rounding by results: each on a graph that is bad without it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcomp.compiler import Options, quantize
from qcomp.errors import QcompError
from qcomp.ir import Graph, parse_graph, print_graph, run
from qcomp.ir.types import Quantization, TensorType
from qcomp.passes.adjust_products import AdjustProducts
from qcomp.passes.assign_per_channel import AssignPerChannel
from qcomp.passes.insert_fake_quant import InsertFakeQuant
from qcomp.passes.manager import run_passes
from qcomp.passes.quantization_plan import plan_quantization
from qcomp.quantize.bias_correction import correction
from qcomp.quantize.equalization import find_equalizations
from qcomp.quantize.positions import distinct_weights, rows_of
from qcomp.quantize.quality import Quality
from qcomp.quantize.refinement import refine, refinement_samples
from qcomp.quantize.replay import Replay, run_float
from qcomp.quantize.rounding import round_rows, second_moments
from qcomp.quantize.samples import samples_of

RNG = np.random.default_rng
Samples = list[dict[str, np.ndarray]]


def images(count: int, shape: tuple[int, ...], seed: int = 0, mean: float = 0.0) -> Samples:
    return [{"x": (RNG(seed + i).normal(size=shape) + mean).astype(np.float32)} for i in range(count)]


def badly_scaled(between: str = "identity") -> Graph:
    """conv, then depthwise: channel 0 is a hundredth of channel 1, and the depthwise weights make up for it."""
    graph = Graph("scales")
    rng = RNG(1)
    w, v = rng.normal(size=(2, 3, 1, 1)), rng.normal(size=(2, 1, 3, 3))
    w[0] *= 0.01
    v[0] *= 100.0
    x = graph.input("x", TensorType.f32(1, 3, 8, 8))
    a = graph.add("conv2d", [x, graph.constant(w.astype(np.float32), "w")], names=["a"]).output
    if between != "identity":
        a = graph.add(between, [a], names=["r"]).output
    y = graph.add("conv2d", [a, graph.constant(v.astype(np.float32), "v")], {"groups": 2}, names=["y"]).output
    graph.outputs = [y]
    return graph


def conv_chain(act: str = "hard_swish") -> Graph:
    graph = Graph("chain")
    rng = RNG(5)
    value = graph.input("x", TensorType.f32(1, 4, 8, 8))
    for index in range(4):
        w = graph.constant((rng.normal(size=(4, 4, 3, 3)) / 6).astype(np.float32), f"w{index}")
        b = graph.constant(rng.normal(size=4).astype(np.float32), f"b{index}")
        value = graph.add("conv2d", [value, w, b], {"pads": (1, 1, 1, 1)}, names=[f"c{index}"]).output
        if index < 3:
            value = graph.add(act, [value], names=[f"a{index}"]).output
    graph.outputs = [value]
    return graph


def fake_quantized(graph: Graph, samples: Samples, shrink: float = 1.0) -> Graph:
    """Grids over all that is seen of each point, times `shrink`."""
    work = graph.clone()
    work.outputs = list(plan_quantization(work).points)
    seen = run_float(work, samples)
    ranges = {
        name: (shrink * min(float(t.min()) for t in tensors), shrink * max(float(t.max()) for t in tensors))
        for name, tensors in seen.items()
    }
    return run_passes(graph, [InsertFakeQuant(ranges=ranges), AssignPerChannel()])


def noise(exact: Graph, quantized: Graph, samples: Samples) -> float:
    """Mean squared error of the outputs."""
    pairs = [(run(exact, s), run(quantized, s)) for s in samples]
    return float(np.mean([(a[n] - b[m]) ** 2 for a, b in pairs for n, m in zip(a, b, strict=True)]))


@pytest.mark.parametrize("between", ["identity", "relu"])
def test_badly_scaled_channels_are_equalized(between: str) -> None:
    graph, samples = badly_scaled(between), images(8, (1, 3, 8, 8))
    (found,) = find_equalizations(graph, samples)
    assert found.factors[0] < 0.05 and found.factors[1] == 1.0
    assert found.after < 0.01 * found.before


def test_equalized_channels_make_a_better_integer_graph() -> None:
    samples = np.concatenate([s["x"] for s in images(40, (1, 3, 8, 8))])
    graph, test = badly_scaled(), images(10, (1, 3, 8, 8), seed=1000)
    plain = noise(graph, fake_quantized(graph, images(40, (1, 3, 8, 8))), test)
    assert noise(graph, quantize(graph, samples), test) < 0.01 * plain


def test_channels_of_one_scale_stay_as_they_are() -> None:
    graph = badly_scaled()
    for node, factor in zip([n for n in graph.nodes if n.op.name == "conv2d"], (100.0, 0.01), strict=True):
        weights = node.input(1).array.copy()
        weights[0] *= factor
        graph.set_input(node, 1, graph.constant(weights, "even"))
    assert find_equalizations(graph, images(8, (1, 3, 8, 8))) == ()


def test_a_mean_error_is_taken_off() -> None:
    exact = [RNG(i).normal(size=(1, 3, 4, 4)).astype(np.float32) for i in range(4)]
    shift = np.float32([0.5, -0.25, 0.0]).reshape(3, 1, 1)
    found = correction(exact, [t + shift for t in exact], 1)
    np.testing.assert_allclose(found.bias, [-0.5, 0.25, 0.0], atol=1e-6)
    assert found.before > 0.01 and found.after < 1e-10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e18, 1e30])
def test_huge_activations_are_corrected_without_overflow(size: float) -> None:
    relu = Graph("relu")
    relu.add("relu", [relu.input("x", TensorType.f32(1))])
    exact = [RNG(i).normal(size=(1, 3, 4, 4)).astype(np.float32) * np.float32(size) for i in range(4)]
    for chain in ((), relu.nodes):
        found = correction(exact, [t + np.float32(size) for t in exact], 1, chain, chain)
        assert np.isfinite(found.bias).all()
    np.testing.assert_allclose(correction(exact, [t + np.float32(size) for t in exact], 1).bias, -size, rtol=1e-5)


def test_a_blank_margin_does_not_outvote_the_picture() -> None:
    exact = [RNG(i).normal(size=(1, 1, 8, 8)).astype(np.float32) for i in range(4)]
    found = [t.copy() for t in exact]
    for e, f in zip(exact, found, strict=True):
        e[..., 2:] = 3.0  # three quarters of every picture
        f[..., 2:] = 4.0
    bias = correction(exact, found, 1).bias
    assert abs(float(bias[0])) < 0.02


def test_the_mean_behind_the_activation_counts() -> None:
    """Noise in front of a relu gives a mean behind it, which no mean in front of it shows."""
    graph = parse_graph("""graph @m {
  input %x: f32[1,1]
  const %w: f32[1,1] = [1.0]
  %a: f32[1,1] = gemm(%x, %w)
  %r: f32[1,1] = relu(%a)
  %y: f32[1,1] = gemm(%r, %w)
  output %y
}""")
    relu = [n for n in graph.nodes if n.op.name == "relu"]
    exact = [np.linspace(-1.0, 1.0, 2000, dtype=np.float32).reshape(-1, 1)]
    noisy = [exact[0] + np.where(np.arange(2000) % 2, 0.5, -0.5).astype(np.float32).reshape(-1, 1)]
    assert abs(float(correction(exact, noisy, 1).bias[0])) < 1e-3
    bias = correction(exact, noisy, 1, relu, relu).bias
    assert bias[0] < -0.02
    assert np.maximum(noisy[0] + bias, 0).mean() == pytest.approx(np.maximum(exact[0], 0).mean(), abs=2e-3)


@pytest.mark.parametrize("act", ["relu", "hard_swish"])
def test_corrected_biases_lower_the_error_on_other_samples(act: str) -> None:
    graph, samples = conv_chain(act), images(16, (1, 4, 8, 8), mean=1.0)
    rough = fake_quantized(graph, samples, shrink=0.6)
    found = refine(graph, rough, samples)
    better = run_passes(rough, [AdjustProducts(found.biases)])
    test = images(10, (1, 4, 8, 8), seed=1000, mean=1.0)
    assert noise(graph, better, test) < 0.7 * noise(graph, rough, test)


def test_rounding_by_results_beats_the_nearest_on_correlated_inputs() -> None:
    rng = RNG(7)
    rows = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 16)) + 0.05 * rng.normal(size=(500, 16))
    weights = rng.normal(size=(8, 16))
    scales = np.abs(weights).max(axis=1) / 7
    moments = second_moments(rows, np.ones(500))
    errors = []
    for integers in (np.rint(weights / scales[:, None]), round_rows(weights, scales, moments).astype(np.float64)):
        error = (integers * scales[:, None] - weights) @ (rows - rows.mean(0)).T
        errors.append(float((error**2).mean()))
    assert errors[1] < 0.25 * errors[0]


@pytest.mark.parametrize("groups", [1, 4])
def test_rounded_weights_stay_on_their_grid_and_lower_the_error(groups: int) -> None:
    rng = RNG(11)
    graph = Graph("smooth")
    weights = graph.constant(rng.normal(size=(4, 4 // groups, 3, 3)).astype(np.float32), "w")
    attrs = {"groups": groups, "strides": (1, 2), "pads": (1, 0, 1, 1)}
    graph.outputs = [graph.add("conv2d", [graph.input("x", TensorType.f32(1, 4, 16, 16)), weights], attrs).output]
    # Pictures without sharp edges: neighbours are nearly the same, and so are the errors of their weights.
    smooth = [{"x": s["x"].cumsum(2).cumsum(3) * np.float32(0.01)} for s in images(20, (1, 4, 16, 16))]
    grid = Quantization.per_channel(np.abs(weights.array).max(axis=(1, 2, 3)) / 7, 0)  # coarse, to see something
    plain = graph.clone()
    (node,) = plain.nodes
    plain.set_input(node, 1, plain.add("fake_quant", [node.input(1)], {"quant": grid}).output)
    found = refine(graph, plain, smooth[:10], rounding=True)
    errors = [
        noise(graph, run_passes(plain, [AdjustProducts(found.biases, weights)]), smooth[10:])
        for weights in ({}, found.weights)
    ]
    assert errors[1] < 0.7 * errors[0]
    steps = found.weights[node.name] / np.asarray(grid.scale).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_a_replay_gives_what_the_interpreter_gives() -> None:
    graph, samples = conv_chain("relu"), images(2, (1, 4, 8, 8))
    replay = Replay(graph, samples)
    for node in graph.nodes:
        replay.advance(node)
    expected = run(graph, samples[1])["c3"]
    np.testing.assert_allclose(replay.held[graph.outputs[0]][1], expected, rtol=1e-4, atol=1e-5)
    assert [value.name for value in replay.held] == ["c3"]


def test_equal_rows_share_the_weight_of_one() -> None:
    rows = np.float32([[1, 2], [3, 4], [1, 2], [1, 2]])
    np.testing.assert_allclose(distinct_weights(rows), [1 / 3, 1, 1 / 3, 1 / 3])


def test_rows_are_thinned_out_alike_in_every_tensor() -> None:
    tensors = [np.arange(2 * 100, dtype=np.float32).reshape(1, 2, 10, 10)] * 4
    found = rows_of(tensors, 1, most=100)
    assert [rows.shape for rows in found] == [(20, 2)] * 4
    assert found[0][1].tolist() == [5.0, 105.0]


def test_samples_are_spread_over_the_set() -> None:
    graph = badly_scaled()
    numbers = np.arange(100, dtype=np.float32).reshape(-1, 1, 1, 1)
    data = samples_of(numbers * np.ones((1, 3, 8, 8), np.float32), _specs())
    found = [float(s["x"].flat[0]) for s in refinement_samples(graph, data)]
    assert len(found) == 16 and found[0] == 0.0 and found[-1] == 99.0


def _specs():  # type: ignore[no-untyped-def]
    from qcomp.quantize.inputs import InputSpec

    return (InputSpec("x", np.dtype(np.float32), (1, 3, 8, 8)),)


@pytest.mark.parametrize("effort", ["normal", "high"])
def test_the_same_samples_give_the_same_graph_and_lines(effort: str) -> None:
    samples = np.concatenate([s["x"] for s in images(20, (1, 4, 8, 8))])

    def outcome() -> tuple[str, list[list[str]]]:
        seen: list[Quality] = []
        graph = quantize(conv_chain(), samples, Options(effort=effort, on_quality=seen.append))
        return print_graph(graph), [quality.lines() for quality in seen]

    first = outcome()
    assert first == outcome()
    assert any(line.startswith("biases of 4 of 4 layers corrected") for line in first[1][0])
    assert any(line.startswith("weights of 4 of 4 layers") for line in first[1][0]) == (effort == "high")


def test_an_effort_that_is_none_is_refused() -> None:
    with pytest.raises(QcompError, match="unknown effort 'most'.*normal or high"):
        Options(effort="most")


Make = Callable[[], Graph]


@pytest.mark.parametrize("make", [badly_scaled, conv_chain])
def test_one_sample_is_enough(make: Make) -> None:
    graph = make()
    shape = graph.inputs[0].shape
    quantize(graph, images(1, shape)[0]["x"])


def test_one_sample_does_not_say_how_far_channels_reach() -> None:
    assert find_equalizations(badly_scaled(), images(1, (1, 3, 8, 8))) == ()


def test_channels_that_few_samples_happen_to_scale_stay_as_they_are() -> None:
    rng, graph = np.random.default_rng(7), Graph("chance")
    value = graph.input("x", TensorType.f32(1, 3, 12, 12))
    for channels, groups in ((16, 1), (16, 16), (16, 1), (16, 16)):
        taps = value.shape[1] // groups
        weights = rng.normal(0, 1 / np.sqrt(9 * taps), (channels, taps, 3, 3)).astype(np.float32)
        operands = [value, graph.constant(weights), graph.constant(rng.normal(0, 0.3, channels).astype(np.float32))]
        value = graph.add("conv2d", operands, {"pads": (1, 1, 1, 1), "groups": groups}).output
        value = graph.add("relu", [value]).output
    graph.outputs = [value]
    few, test = images(2, (1, 3, 12, 12)), images(20, (1, 3, 12, 12), seed=1000)
    plain = noise(graph, fake_quantized(graph, few), test)
    assert noise(graph, quantize(graph, np.concatenate([s["x"] for s in few])), test) < 1.5 * plain


def test_products_of_one_name_and_layers_of_several_results_are_told_apart() -> None:
    text = """graph @m {
      input %x: f32[6,8]
      const %w: f32[5,8] = W
      const %v: f32[12,5] = V
      const %r: f32[12,3] = R
      %a: f32[6,5] = gemm(%x, %w) {trans_b = true} @"same"
      %b: f32[6,12] = gemm(%a, %v) {trans_b = true} @"same"
      %c: f32[6,1,12] = reshape(%b) {shape = [6, 1, 12]}
      %y: f32[6,1,3], %h: f32[1,3], %s: f32[1,3] = lstm(%c, %r) @"same"
      output %y
    }"""
    rng = np.random.default_rng(3)
    for letter, size in (("W", 40), ("V", 60), ("R", 36)):
        values = ", ".join(f"{v:.3f}" for v in rng.normal(size=size))
        text = text.replace(f"= {letter}\n", f"= [{values}]\n")
    samples = rng.normal(size=(16, 6, 8)).astype(np.float32)
    integer = quantize(parse_graph(text), samples)
    assert [node.op.name for node in integer.nodes].count("qgemm") == 2
