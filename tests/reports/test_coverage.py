"""Float islands say why they are float, and what would change that."""

from __future__ import annotations

import pytest

from qcomp.compiler import integer_lowering
from qcomp.ir import parse_graph
from qcomp.passes.manager import run_passes
from qcomp.reports.coverage import coverage, int8_advice

WEIGHTS = "const %w: i8[2,2] {grid} = [100, -100, 3, 4]\n  %wr: f32[2,2] = dequantize(%w)"
GEMM = """graph @m {
  input %x: f32[2,2]
  WEIGHTS
  const %b: f32[BIAS] = ZEROS
  %xr: f32[2,2] = fake_quant(%x) {QUANT}
  %y: f32[2,2] = gemm(%xr, %wr, %b) {trans_b = true}
  output %y
}"""


def gemm(*, grid: str = "q(0.5, 0)", bias: int = 1, quant: str = "quant = q(0.25, 0)") -> str:
    shape, zeros = ("2", "[0.0, 1.0]") if bias == 1 else ("2,1", "[0.0, 1.0]")
    text = GEMM.replace("WEIGHTS", WEIGHTS.format(grid=grid)).replace("QUANT", quant)
    return text.replace("BIAS", shape).replace("ZEROS", zeros)


NOT_QUANTIZED = """graph @m {
  input %x: f32[2,2]
  const %w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]
  %y: f32[2,2] = gemm(%x, %w) {trans_b = true}
  output %y
}"""
COMPUTED_WEIGHTS = """graph @m {
  input %x: f32[2,2]
  %w: f32[2,2] = relu(%x)
  %y: f32[2,2] = gemm(%x, %w)
  output %y
}"""
CONCAT_WANTED_TWICE = """graph @m {
  input %x: f32[2,2]
  input %z: f32[2,2]
  %a: f32[2,2] = fake_quant(%x) {quant = q(0.5, 0)}
  %b: f32[2,2] = fake_quant(%z) {quant = q(0.25, 0)}
  %c: f32[4,2] = concat(%a, %b) {axis = 0}
  %y: f32[4,2] = fake_quant(%c) {quant = q(0.5, 0)}
  output %c
  output %y
}"""
WIDE_SUM = """graph @m {
  input %x: f32[2]
  %a: f32[2] = fake_quant(%x) {quant = q(0.0009765625, 0), dtype = !u16}
  %b: f32[2] = fake_quant(%x) {quant = q(0.25, 0)}
  %s: f32[2] = add(%b, %a)
  %y: f32[2] = fake_quant(%s) {quant = q(0.25, 0)}
  output %y
}"""
TINY_RESULT = """graph @m {
  input %x: f32[2,2]
  input %z: f32[2,2]
  %a: f32[2,2] = fake_quant(%x) {quant = q(0.5, 0)}
  %b: f32[2,2] = fake_quant(%z) {quant = q(0.25, 0)}
  %s: f32[2,2] = OP
  %y: f32[2,2] = fake_quant(%s) {quant = q(9.31322574615478515625e-10, 0)}
  output %y
}"""
INTERPOLATION = """graph @m {
  input %x: f32[1,2,3,3]
  %r: f32[1,2,6,6] = resize(%x) {mode = "MODE", sizes = [1, 2, 6, 6], scales = [1.0, 1.0, 2.0, 2.0]}
  %y: f32[1,6,6,2] = transpose(%r) {perm = [0, 2, 3, 1]}
  output %y
}"""
LOG_SOFTMAX = """graph @m {
  input %x: f32[1,2]
  %y: f32[1,2] = log_softmax(%x) {axis = 1}
  output %y
}"""
RELU = """graph @m {
  input %x: f32[2]
  %y: f32[2] = relu(%x)
  output %y
}"""
UNITS = """graph @m {
  input %x: f32[1,2]
  const %factor: f32[2] = [2, 0.01]
  %y: f32[1,2] = mul(%x, %factor)
  output %y
}"""

CASES = {
    "asymmetric-weights": gemm(grid="q(0.5, 100)"),
    "unsupported-form": gemm(bias=2),
    "wide-activations": gemm(quant="quant = q(0.25, 0), dtype = !u16"),
    "not-quantized": NOT_QUANTIZED,
    "two-activations": COMPUTED_WEIGHTS,
    "float-copy": CONCAT_WANTED_TWICE,
    "no-int8-form": LOG_SOFTMAX,
    "float-result": RELU,
    "float-neighbours": RELU.replace("output %y", "%z: f32[2] = cumsum(%y) {axis = 0}\n  output %z"),
    "input-units": UNITS,
}


def islands(text: str) -> list[str]:
    found = coverage(run_passes(parse_graph(text), integer_lowering())).islands
    assert all(island.detail and island.advice for island in found)
    return [island.reason for island in found]


@pytest.mark.parametrize("reason", CASES)
def test_an_island_has_its_own_reason(reason: str) -> None:
    assert reason in islands(CASES[reason])


def test_a_resize_that_interpolates_is_an_island_and_copies_beside_it_are_counted() -> None:
    found = coverage(parse_graph(INTERPOLATION.replace("MODE", "linear")))
    assert [(i.op, i.reason) for i in found.islands] == [("resize", "no-int8-form")]
    assert (found.float_nodes, found.float_copies) == (2, ("transpose",))
    nearest = coverage(parse_graph(INTERPOLATION.replace("MODE", "nearest")))
    assert (nearest.islands, nearest.float_copies) == ((), ("resize", "transpose"))


def test_quantized_images_that_are_interpolated_name_the_resize() -> None:
    text = INTERPOLATION.replace("MODE", "linear").replace("resize(%x)", "resize(%q)")
    text = text.replace("  %r", "  %q: f32[1,2,3,3] = fake_quant(%x) {quant = q(0.5, 0)}\n  %r")
    text = text.replace("(%r)", "(%s)").replace("  %y", "  %s: f32[1,2,6,6] = fake_quant(%r) {quant = q(0.5, 0)}\n  %y")
    assert islands(text) == ["no-int8-form"]


def test_the_advice_for_int8_alone_is_never_to_do_nothing() -> None:
    found = coverage(parse_graph(LOG_SOFTMAX)).islands
    assert int8_advice(found) == "no-int8-form: take these ops out of the model, or leave --require-int8 out"
    mixed = (*found, *coverage(parse_graph(NOT_QUANTIZED)).islands)
    assert int8_advice(mixed).startswith("not-quantized: give calibration data")
    assert int8_advice(mixed).endswith("leave --require-int8 out")


def test_a_sum_of_uint16_and_int8_names_the_uint16() -> None:
    assert islands(WIDE_SUM) == ["wide-activations"]


def test_a_sum_of_int16_and_int8_is_integer() -> None:
    assert islands(WIDE_SUM.replace("!u16", "!i16")) == []


@pytest.mark.parametrize("op", ["add(%a, %b)", "sub(%a, %b)"])
def test_a_sum_whose_result_has_tiny_steps_stays_float(op: str) -> None:
    assert islands(TINY_RESULT.replace("OP", op)) == ["scales-far-apart"]


def test_a_quantized_gemm_is_no_island() -> None:
    assert islands(gemm()) == []


def test_a_zero_point_that_fits_int8_is_taken_off_the_weights() -> None:
    assert islands(gemm(grid="q(0.5, 27)")) == []
