"""int16 activations: which values get them, and that the integers between follow what was chosen."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.compiler import Options, preview, quantize
from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, parse_graph, run
from qcomp.passes.choose_precision import ChoosePrecision
from qcomp.passes.integer_regions import integer_nodes
from qcomp.passes.manager import run_passes
from qcomp.passes.wide_reads import wide_reads
from qcomp.reports.coverage import coverage

CONVS = """graph @m {
  input %x: f32[1,4,4,2]
  const %w: f32[2,2,1,1] = [1.984375, -1.0, 0.5, -1.984375]
  const %v: f32[2,2,3,3] = TAPS
  %c: f32[1,4,4,2] = conv2d(%x, %w) {layout = "NHWC"} @"first"
  %r: f32[1,4,4,2] = relu(%c) @"relu"
  %d: f32[1,4,4,2] = conv2d(%r, %v) {pads = [1, 1, 1, 1], layout = "NHWC"} @"second"
  %s: f32[1,4,4,2] = add(%d, %r) @"sum"
  %t: f32[1,2,4,4] = transpose(%s) {perm = [0, 3, 1, 2]} @"turn"
  %b: f32[1,4,4,2] = transpose(%t) {perm = [0, 2, 3, 1]} @"back"
  %h: f32[1,4,4,2] = hard_swish(%b) @"swish"
  %e: f32[1,4,4,2] = conv2d(%h, %w) {layout = "NHWC"} @"third"
  output %e
}"""
# on int8 grids of their own, so that only activations are rounded
_TAPS = np.random.default_rng(1).integers(-127, 128, (2, 18))
_TAPS[:, 0] = 127
CONVS = CONVS.replace("TAPS", str((_TAPS / 256).reshape(-1).tolist()))
STREAM = """graph @m {
  input %x: f32[6,8]
  const %w: f32[8,8] = WEIGHTS
  const %g: f32[8] = [1, 2, 1, 0.5, 1, 1, 1, 1]
  const %p: f32[6,8] = PLACES
  %a: f32[6,8] = add(%x, %p) @"place"
  %n: f32[6,8] = layer_norm(%a, %g) {axis = 1} @"norm"
  %f: f32[6,8] = gemm(%n, %w) @"inner"
  %u: f32[6,8] = gelu(%f) @"gelu"
  %o: f32[6,8] = gemm(%u, %w) @"outer"
  %s: f32[6,8] = add(%a, %o) @"stream"
  %m: f32[6,8] = layer_norm(%s, %g) {axis = 1} @"last"
  %y: f32[6,8] = gemm(%m, %w) @"head"
  output %y
}"""
_RNG = np.random.default_rng(2)
STREAM = STREAM.replace("WEIGHTS", str((_RNG.normal(size=64) * 0.4).round(3).tolist()))
STREAM = STREAM.replace("PLACES", str(_RNG.normal(size=48).round(3).tolist()))


def samples(*shape: int) -> np.ndarray:
    data = np.random.default_rng(5).standard_normal((40, *shape)).astype(np.float32)
    data[..., 1] *= 20  # a channel that is far larger than the rest
    return data


def widths(graph: Graph) -> dict[str, tuple[str, str]]:
    """By name of node: the types that integer ops read first and give."""
    return {n.name: (n.input(0).dtype.value, n.output.dtype.value) for n in graph.nodes if n.op.name.startswith("q")}


def chosen(text: str, **precision: str) -> Graph:
    shape = parse_graph(text).inputs[0].shape
    data = samples(*shape) if len(shape) < 4 else samples(*shape[1:])
    data = data if len(shape) == 4 else data.reshape(-1, *shape[1:])
    return quantize(parse_graph(text), {"x": data}, Options(method="minmax", precision=precision))


def test_a_product_that_was_chosen_reads_int16_and_its_producer_writes_it() -> None:
    found = widths(chosen(CONVS, second="int16"))
    assert found["first"] == ("i8", "i16") and found["second"] == ("i16", "i8")


def test_a_value_with_readers_of_both_widths_is_rescaled_for_the_narrow_ones() -> None:
    fourth = '  %f: f32[1,4,4,2] = conv2d(%r, %w) {layout = "NHWC"} @"fourth"\n'
    text = CONVS.replace("  output %e", f"{fourth}  output %e\n  output %f")
    graph = chosen(text, second="int16")
    (rescale,) = (n for n in graph.nodes if n.op.name == "rescale")
    assert (rescale.input(0).dtype, rescale.output.dtype) == (DType.I16, DType.I8)
    assert [u.name for u in graph.users(rescale.output)] == ["fourth"]
    assert widths(graph)["sum"] == ("i8", "i8")  # its other operand is the int16 that is there anyway
    total = next(n for n in graph.nodes if n.name == "sum")
    assert total.input(1).dtype is DType.I16


def test_a_sum_that_was_chosen_reads_int16_of_all_that_integers_compute() -> None:
    graph = chosen(CONVS, sum="int16")
    total = next(n for n in graph.nodes if n.op.name == "qadd")
    assert [total.input(i).dtype for i in range(2)] == [DType.I16, DType.I16] and total.output.dtype is DType.I8


def test_a_function_before_a_chosen_product_stays_float_and_keeps_its_precision() -> None:
    graph = chosen(CONVS, third="int16")
    assert {i.node: i.reason for i in coverage(graph).islands} == {"swish": "wide-activations"}
    assert widths(graph)["third"] == ("i16", "f32")


def test_everything_in_int16_is_nearer_to_the_float_model() -> None:
    x = {"x": samples(4, 4, 2)[:1]}
    exact = run(parse_graph(CONVS), x)["e"]
    narrow = run(chosen(CONVS), x)["e"]
    wide = run(chosen(CONVS, first="int16", second="int16", sum="int16", third="int16"), x)["e"]
    assert np.abs(wide - exact).mean() < 0.5 * np.abs(narrow - exact).mean()


def test_a_stream_and_what_adds_to_it_are_int16_and_the_products_int8() -> None:
    found = widths(chosen(STREAM))
    assert found["place"] == ("i16", "i16") and found["stream"] == ("i16", "i16")
    assert found["norm"] == found["last"] == ("i16", "i8")
    assert found["inner"] == ("i8", "i8") and found["outer"] == ("i8", "i16")
    assert not coverage(chosen(STREAM)).islands


def test_nodes_that_read_int16_are_counted_apart() -> None:
    facts = coverage(chosen(STREAM)).facts()
    assert facts["nodes"] == {"int8": 3, "int16": 4, "float32": 0}  # both sums and both norms
    assert facts["macs"]["int16"] == 0 and facts["int8_share_of_macs"] == 1.0
    facts = coverage(chosen(STREAM, head="int16")).facts()
    assert facts["macs"]["int16"] == 6 * 8 * 8 and facts["int8_share_of_macs"] == pytest.approx(2 / 3)


def test_constants_that_are_added_to_a_stream_are_int16_too() -> None:
    graph = chosen(STREAM)
    place = next(n for n in graph.nodes if n.name == "place")
    assert place.input(1).is_constant and place.input(1).dtype is DType.I16


def test_a_grid_of_int16_is_symmetric_and_holds_twice_the_range_seen() -> None:
    quant = next(n.output.quant for n in chosen(STREAM).nodes if n.name == "place")
    assert quant is not None and quant.zero_point == (0,)
    data = samples(6, 8) + parse_graph(STREAM).value("p").array
    assert quant.scale[0] * 32767 == pytest.approx(2 * np.abs(data).max(), rel=1e-4)


def test_a_clipped_range_does_not_cut_int16() -> None:
    graph = parse_graph(STREAM)
    data = samples(6, 8).reshape(-1, 8)
    found = [
        next(n.output.quant for n in quantize(graph.clone(), {"x": data}, Options(method=m)).nodes if n.name == "place")
        for m in ("minmax", "percentile:90")
    ]
    assert found[0] == found[1]


def test_a_stream_that_was_chosen_float_stays_float() -> None:
    reasons = {i.node: i.reason for i in coverage(chosen(STREAM, last="float32")).islands}
    assert reasons["last"] == "chosen-float32" and reasons["stream"] == "float-neighbours"


def test_a_last_norm_gives_float32_from_int16() -> None:
    text = STREAM.replace('  %y: f32[6,8] = gemm(%m, %w) @"head"\n', "").replace("output %y", "output %m")
    assert widths(chosen(text))["last"] == ("i16", "f32")


def test_a_norm_of_a_sum_without_integers_before_it_stays_float() -> None:
    text = """graph @m {
  input %x: f32[2,4]
  input %z: f32[2,4]
  const %one: f32[4] = [1.0, 1.0, 1.0, 1.0]
  %s: f32[2,4] = add(%x, %z)
  %y: f32[2,4] = layer_norm(%s, %one) {axis = 1}
  output %y
}"""
    assert not integer_nodes(parse_graph(text))


def test_a_concat_that_a_stream_reads_is_int16_throughout() -> None:
    text = STREAM.replace("add(%x, %p)", "concat(%h, %i) {axis = 0}").replace(
        "  %a:",
        "  const %k: f32[8,8] = "
        + str((_RNG.normal(size=64) * 0.4).round(3).tolist())
        + "\n  %z: f32[6,8] = gemm(%x, %k)\n"
        + "  %h: f32[3,8] = slice(%z) {starts = [0, 0], ends = [3, 8], steps = [1, 1]}\n"
        + "  %i: f32[3,8] = slice(%z) {starts = [3, 0], ends = [6, 8], steps = [1, 1]}\n  %a:",
    )
    graph = parse_graph(text)
    reads = wide_reads(graph, integer_nodes(graph))
    assert {n.op.name for n in reads.nodes} == {"layer_norm", "add", "concat", "slice"}
    lowered = chosen(text)
    assert {v.dtype for n in lowered.nodes if n.op.name in ("concat", "slice") for v in n.inputs} == {DType.I16}


@pytest.mark.parametrize("name", ["relu", "swish", "turn"])
def test_what_has_no_form_for_int16_is_refused(name: str) -> None:
    with pytest.raises(QcompError, match=f"'{name}' has no form that reads int16"):
        run_passes(parse_graph(CONVS), [ChoosePrecision(precision={name: "int16"})])


def test_a_preview_shows_the_widths_without_data() -> None:
    assert widths(preview(parse_graph(STREAM)))["stream"] == ("i16", "i16")
