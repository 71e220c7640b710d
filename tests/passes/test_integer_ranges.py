"""Range analysis of integer graphs and the passes that use it."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import Graph, Interval, parse_graph, run
from qcomp.passes.dead_channels import RemoveDeadChannels, find_dead_channels
from qcomp.passes.fit_accumulators import FitAccumulators
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.prove_accumulators import ProveAccumulators, accumulator_bounds, accumulator_report
from qcomp.passes.range_analysis import analyze_ranges, range_report
from qcomp.passes.tighten_clamps import TightenClamps


def gemm(weights: list[int], bias: list[int], mult: list[float], attrs: str = "", table: str = "") -> str:
    rows, k = len(bias), len(weights) // len(bias)
    return f"""graph @m {{
      input %x: i8[3,{k}] q(0.5, 0)
      const %w: i8[{rows},{k}] = {weights}
      const %b: i32[{rows}] = {bias}
      const %m: f32[{rows}] = {mult}
      {f"const %t: i8[256] = {table}" if table else ""}
      %y: i8[3,{rows}] q(0.5, 0) = qgemm(%x, %w, %b, %m{", %t" if table else ""}) {attrs}
      output %y
    }}"""


def table_text(function) -> str:
    return str([int(v) for v in np.clip(function(np.arange(-128, 128)), -128, 127)])


def reached(graph: Graph) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Smallest and largest of every value over random inputs and the corners of the input space."""
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def observe(value, array):
        low, high = seen.get(value.name, (array, array))
        seen[value.name] = np.minimum(low, array), np.maximum(high, array)

    check = Checker.random(graph, samples=20)
    corners = [{n: np.full_like(a, v) for n, a in check.inputs[0].items()} for v in (-128, 0, 127)]
    for inputs in (*check.inputs, *corners):
        run(graph, inputs, observe=observe)
    return seen


def test_the_bounds_of_a_product_are_met_exactly_per_channel():
    graph = parse_graph(gemm([1, 1, -1, 0], [10, 0], [0.25, 0.5], "{x_zp = 3, zp = -2}"))
    interval = analyze_ranges(graph)[graph.value("y")]
    # (10 + 2·[-131, 124])·0.25 - 2 and ([-124, 131])·0.5 - 2, rounded half to even
    assert interval.lo.tolist() == [-65, -64]
    assert interval.hi.tolist() == [62, 64]


INTEGER_GRAPH = """
graph @m {
  input %a: i8[1,5,5,2] q(0.5, 0)
  input %b: i8[1,5,5,2] q(0.5, 0)
  const %w: i8[2,3,3,2] = [W]
  const %bias: i32[2] = [100, -3000]
  const %m: f32[2] = [0.01, 0.02]
  const %t: i8[256] = [T]
  %c: i8[1,5,5,2] q(0.5, 3) = qconv2d(%a, %w, %bias, %m) {pads=[1,1,1,1], x_zp=-5, zp=3, lo=-20, hi=90}
  %d: i8[1,5,5,2] q(0.5, 3) = qconv2d(%a, %w, %bias, %m, %t) {pads=[1,1,1,1], x_zp=-5, zp=3}
  %e: i8[1,5,5,2] q(0.5, 1) = qadd(%c, %b) {a_zp=3, b_zp=0, a_mult=0.3, b_mult=-0.45, zp=1}
  %f: i8[1,5,5,2] q(0.5, 1) = qmul(%c, %d) {a_zp=3, b_zp=7, mult=0.01, zp=1, hi=100}
  %g: i8[1,3,3,2] q(0.5, 1) = qavg_pool(%f) {kernel=[3,3], strides=[2,2], pads=[1,1,1,1], x_zp=1, ratio=0.7, zp=-4}
  %h: i8[1,5,5,2] q(0.5, 1) = table(%e, %t)
  %p: f32[1,5,5,2] = qconv2d(%a, %w, %bias, %m) {pads=[1,1,1,1], x_zp=-5, dtype=!f32}
  output %g
  output %h
  output %p
}
""".replace("[W]", str([(i * 37 % 255) - 127 for i in range(36)])).replace(
    "[T]", table_text(lambda v: v * v // 200 - 40)
).replace("a_mult=0.3", f"a_mult={float(np.float32(0.3))}").replace(
    "b_mult=-0.45", f"b_mult={float(np.float32(-0.45))}").replace("mult=0.01,", f"mult={float(np.float32(0.01))},")


def test_integer_values_stay_inside_their_bounds():
    graph = parse_graph(INTEGER_GRAPH)
    ranges = analyze_ranges(graph)
    for name, (low, high) in reached(graph).items():
        bound = ranges[graph.value(name)]
        assert (bound.lo <= low).all() and (high <= bound.hi).all(), name


def test_given_input_ranges_narrow_what_follows():
    graph = parse_graph(gemm([1, 1, -1, 0], [0, 0], [1.0, 1.0]))
    ranges = analyze_ranges(graph, {"x": Interval.of(0, 10)})
    assert ranges[graph.value("y")].lo.tolist() == [0, -10]
    assert ranges[graph.value("y")].hi.tolist() == [20, 0]


def test_an_unknown_input_range_is_refused():
    with pytest.raises(QcompError, match="no input 'z'"):
        analyze_ranges(parse_graph(INTEGER_GRAPH), {"z": Interval.of(0, 1)})


def test_the_report_has_a_line_for_every_value():
    report = range_report(parse_graph(gemm([0, 0, -1, 0], [4, 0], [1.0, 1.0])))
    assert report == "%y: i8[3,2] q(0.5, 0) = qgemm in [-127, 127]  (2 bounds, 1 constant)\n"


def test_accumulators_are_bounded_by_the_worst_input():
    (bounds,) = accumulator_bounds(parse_graph(gemm([100, -100, 1, 0], [5, -7], [0.001, 0.001], "{x_zp = 10}")))
    # 100·(127 − 10) + 100·(128 + 10) + 5, and 1·138 + 7
    assert bounds.accumulator.tolist() == [100 * 117 + 100 * 138 + 5, 145]
    assert bounds.bits == 16
    assert bounds.fits.all() and (bounds.weight_scale_factor == 1).all()


OVERFLOWS = gemm([127] * 4, [2**31 - 1, 0], [1e-6, 1e-6])


def test_a_product_that_may_overflow_is_refused_and_names_the_channel():
    with pytest.raises(QcompError, match="prove-accumulators: y: 1 of 2 channels.*channel 0"):
        run_passes(parse_graph(OVERFLOWS), [ProveAccumulators()])


def test_the_accumulator_report_names_channels_that_are_not_proven():
    assert "NOT proven for channels 0\n" in accumulator_report(parse_graph(OVERFLOWS))
    assert accumulator_report(parse_graph(gemm([1, 1], [0], [1.0]))) == (
        "y: 1 channels, 10 bits, 0.00% of int32 used, proven\n"
    )


def test_a_channel_with_a_raised_weight_scale_fits():
    (bounds,) = accumulator_bounds(parse_graph(OVERFLOWS))
    factor = bounds.weight_scale_factor[0]
    assert factor > 1
    fixed = gemm([int(127 / factor)] * 2 + [127] * 2, [int((2**31 - 1) / factor), 0], [1e-6, 1e-6])
    run_passes(parse_graph(fixed), [ProveAccumulators()])


def test_a_folded_zero_point_that_overflows_the_bias_is_refused():
    big = 2**31 - 1 - 255 * 127
    with pytest.raises(QcompError, match="can exceed int32"):
        run_passes(parse_graph(gemm([-127, -127], [big], [1e-6], "{x_zp = 127}")), [ProveAccumulators()])


def test_an_accumulator_times_multiplier_beyond_int32_is_refused():
    with pytest.raises(QcompError, match="can exceed int32"):
        run_passes(parse_graph(gemm([127, 127], [0], [1e5])), [ProveAccumulators()])


def test_huge_float32_results_are_not_held_to_int32():
    text = gemm([1, 2], [0], [1e20], "{dtype = !f32}").replace("%y: i8[3,1] q(0.5, 0)", "%y: f32[3,1]")
    run_passes(parse_graph(text), [ProveAccumulators()])


def test_proven_clamps_become_those_of_int8(rewritten):
    rewritten(
        TightenClamps(),
        gemm([1, 1], [0], [0.25], "{lo = -64, hi = 64}"),
        gemm([1, 1], [0], [0.25], ""),
    )


@pytest.mark.parametrize("attrs", ["{lo = -63}", "{hi = 63}", "{lo = -63, hi = 63}"])
def test_clamps_that_may_act_stay(rewritten, attrs):
    rewritten(TightenClamps(), gemm([1, 1], [0], [0.25], attrs), None)


def test_a_clamp_before_a_table_is_judged_before_the_table(rewritten):
    table = table_text(lambda v: v * 0)
    rewritten(TightenClamps(), gemm([1, 1], [0], [0.25], "{lo = -60}", table), None)
    rewritten(TightenClamps(), gemm([1, 1], [0], [0.25], "{lo = -64}", table), gemm([1, 1], [0], [0.25], "", table))


def test_a_clamp_on_a_sum_of_narrow_operands_goes():
    text = """graph @m {
      input %x: i8[4] q(0.5, 0)
      const %t: i8[256] = [T]
      %a: i8[4] q(0.5, 0) = table(%x, %t)
      %y: i8[4] q(0.5, 0) = qadd(%a, %a) {a_mult = 1.0, b_mult = 1.0, lo = 0, hi = 20}
      output %y
    }""".replace("[T]", table_text(lambda v: np.clip(v, 0, 10)))
    graph = run_passes(parse_graph(text), [TightenClamps()], check=Checker.random(parse_graph(text)))
    node = graph.value("y").producer
    assert (node.attrs["lo"], node.attrs["hi"]) == (-128, 127)


CHAIN = """graph @m {
  input %x: i8[1,6,6,2] q(0.5, 0)
  const %w: i8[4,1,1,2] = [1, 2, 0, 0, 3, -4, 5, 6]
  const %b: i32[4] = [10, 40, -10, 0]
  const %m: f32[4] = [0.25, 0.25, 0.25, 0.25]
  const %t: i8[256] = [T]
  const %dw: i8[4,3,3,1] = [D]
  const %v: i8[2,1,1,4] = [1, 2, 3, 4, 5, 6, 7, 8]
  const %c: i32[2] = [100, 200]
  const %n: f32[2] = [0.125, 0.0625]
  %a: i8[1,6,6,4] q(0.5, 1) = qconv2d(%x, %w, %b, %m) {zp = 1}
  %r: i8[1,6,6,4] q(0.5, 1) = table(%a, %t)
  %d: i8[1,4,4,4] q(0.5, 2) = qconv2d(%r, %dw, %b, %m) {groups = 4, x_zp = 1, zp = 2PADS}
  %y: i8[1,4,4,2] q(0.5, 0) = qconv2d(%d, %v, %c, %n) {x_zp = 2}
  output %y
}""".replace("[T]", table_text(lambda v: np.maximum(v, -3))).replace("[D]", str([(i * 5 % 9) - 4 for i in range(36)]))


def test_a_channel_without_weights_goes_with_everything_it_runs_through():
    before = parse_graph(CHAIN.replace("PADS", ""))
    graph = run_passes(before, [RemoveDeadChannels()], check=Checker.random(before, samples=5))
    assert [n.output.shape[3] for n in graph] == [3, 3, 3, 2]
    # channel 1: 1 + 40/4 = 11; its depthwise sum is 10·Σw + 40, a quarter of it + 2; that minus 2 times v, on the bias
    taps = parse_graph(CHAIN.replace("PADS", "")).value("dw").array[1].astype(int).sum()
    constant = int(np.rint((10 * taps + 40) * 0.25))
    bias = graph.value("y").producer.input(2).array
    assert bias.tolist() == [100 + 2 * constant, 200 + 6 * constant]


def test_a_dead_channel_whose_border_differs_stays_and_says_why(rewritten):
    text = CHAIN.replace("PADS", ", pads = [1, 1, 1, 1]").replace("[1,4,4", "[1,6,6")
    rewritten(RemoveDeadChannels(), text, None)
    found = {d.value: d for d in find_dead_channels(parse_graph(text))}
    assert found["r"].channels == (1,) and found["r"].constants == (11,) and found["r"].removable == ()
    assert "cannot turn them into a bias" in found["r"].why


def test_dead_channels_of_an_output_stay(rewritten):
    text = gemm([0, 0, 1, 1], [4, 0], [1.0, 1.0])
    rewritten(RemoveDeadChannels(), text, None)
    (dead,) = find_dead_channels(parse_graph(text))
    assert dead.why == "it is an output of the model"


def test_channels_are_removed_only_in_whole_multiples(rewritten):
    rewritten(RemoveDeadChannels(multiple=2), CHAIN.replace("PADS", ""), None)


def test_one_channel_stays_when_all_are_dead():
    before = parse_graph(CHAIN.replace("PADS", "").replace("[1, 2, 0, 0, 3, -4, 5, 6]", "[0, 0, 0, 0, 0, 0, 0, 0]"))
    graph = run_passes(before, [RemoveDeadChannels()], check=Checker.random(before, samples=2))
    assert [n.output.shape[3] for n in graph] == [1, 1, 1, 2]


def test_a_channel_that_may_overflow_gets_the_weight_scale_that_fits_and_no_larger():
    text = gemm([100, -80, 3, 4], [2**31 - 1, 10], [1e-8, 0.5])
    before = parse_graph(text)
    graph = run_passes(before, [FitAccumulators(), ProveAccumulators()])
    _, weights, bias, mult = graph.value("y").producer.inputs
    assert weights.array.tolist() == [[100, -80], [3, 4]]
    assert 0.998 * 2**31 < bias.array[0] < 2**31 - 1 and bias.array[1] == 10
    assert mult.array[0] == pytest.approx(1e-8 * (2**31 - 1) / bias.array[0]) and mult.array[1] == 0.5
    x = np.array([[1, 2], [-128, 127], [127, -128]], np.int8)
    expected = np.clip(np.rint((x.astype(int) @ [[100, 3], [-80, 4]] + [2**31 - 1, 10]) * [1e-8, 0.5]), -128, 127)
    assert run(graph, {"x": x})["y"].tolist() == expected.tolist()


def test_weights_whose_rounding_takes_room_back_are_divided_until_they_fit():
    text = gemm([3] * 50_000, [0], [1e-8]).replace("i8[3,50000] q(0.5, 0)", "i16[3,50000] q(0.5, 0)")
    graph = run_passes(parse_graph(text), [FitAccumulators(), ProveAccumulators()])
    assert graph.value("y").producer.input(1).array.max() == 1


def test_a_raised_weight_scale_shows_in_the_type():
    text = gemm([100, -80, 3, 4], [2**31 - 1, 10], [1e-8, 0.5])
    graded = text.replace("i8[2,2] =", "i8[2,2] q([0.5, 0.25], [], axis=0) =")
    graph = run_passes(parse_graph(graded), [FitAccumulators()])
    assert graph.value("y").producer.input(1).quant.scale == (pytest.approx(0.5, rel=2e-3), 0.25)


def test_channels_that_fit_keep_their_weight_scale(rewritten):
    rewritten(FitAccumulators(), gemm([1, 1, -1, 0], [10, 0], [0.25, 0.5]), None)


def test_a_result_that_does_not_fit_is_not_helped_by_a_larger_weight_scale(rewritten):
    rewritten(FitAccumulators(), gemm([127, 127], [0], [1e5]), None)


def test_products_of_one_name_are_fitted_each_by_its_own_bounds():
    before = parse_graph("""graph @m {
      input %x: i8[3,1] q(0.5, 0)
      const %w: i8[1,1] = [100]
      const %large: i32[1] = [2147483647]
      const %small: i32[1] = [0]
      const %m: f32[1] = [1e-8]
      %y: i8[3,1] q(0.5, 0) = qgemm(%x, %w, %large, %m) @"rnn"
      %z: i8[3,1] q(0.5, 0) = qgemm(%x, %w, %small, %m) @"rnn"
      output %y
      output %z
    }""")
    graph = run_passes(before, [FitAccumulators(), ProveAccumulators()])
    assert graph.value("y").producer.input(2).array[0] < 2**31 - 1
    assert graph.value("z").producer.input(1).array[0] == 100
