"""Passes around conv2d, conv_transpose2d and gemm: batch norm, affine chains, biases, forms."""

from __future__ import annotations

import pytest

from qcomp.ir import parse_graph
from qcomp.passes.conv_transpose_to_conv import ConvTransposeToConv
from qcomp.passes.fold_affine_chains import FoldAffineChains
from qcomp.passes.fuse_batch_norm import FuseBatchNorm
from qcomp.passes.fuse_bias import FuseBias
from qcomp.passes.hoist_weight_movement import HoistWeightMovement
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.matmul_to_gemm import MatmulToGemm
from qcomp.passes.normalize_gemm import NormalizeGemm


def graph(body: str, x: str = "f32[1,2,4,4]") -> str:
    return f"graph @m {{\ninput %x: {x}\n{body}\n}}"


def ops_after(step, text: str) -> list[str]:
    """Ops that remain after a pass whose result is checked against the interpreter."""
    before = parse_graph(text)
    return [n.op.name for n in run_passes(before, [step], check=Checker.random(before, samples=3))]


NORM = """const %scale: f32[2] = [2, 0.5]
const %bias: f32[2] = [1, -1]
const %mean: f32[2] = [0.5, 0]
const %var: f32[2] = [1, 4]
"""


def test_batch_norm_folds_into_the_convolution_before_it(rewritten):
    rewritten(
        FuseBatchNorm(),
        graph(f"""{NORM}const %w: f32[2,2,1,1] = [1, 2, 3, 4]
                  const %b: f32[2] = [1, 2]
                  %c: f32[1,2,4,4] = conv2d(%x, %w, %b)
                  %y: f32[1,2,4,4] = batch_norm(%c, %scale, %bias, %mean, %var) {{epsilon = 0.0}}
                  output %y"""),
        graph("""const %w.1: f32[2,2,1,1] = [2, 4, 0.75, 1]
                 const %b.1: f32[2] = [2, -0.5]
                 %y: f32[1,2,4,4] = conv2d(%x, %w.1, %b.1) @"c"
                 output %y"""),
    )


def test_batch_norm_alone_becomes_a_mul_and_an_add(rewritten):
    rewritten(
        FuseBatchNorm(),
        graph(f"""{NORM}%y: f32[1,2,4,4] = batch_norm(%x, %scale, %bias, %mean, %var) {{epsilon = 0.0}}
                  output %y"""),
        graph("""const %y.scale: f32[2,1,1] = [2, 0.25]
                 const %y.shift: f32[2,1,1] = [0, -1]
                 %y.scaled: f32[1,2,4,4] = mul(%x, %y.scale)
                 %y: f32[1,2,4,4] = add(%y.scaled, %y.shift)
                 output %y"""),
    )


CONVOLUTIONS = {
    "conv2d": "const %w: f32[2,2,3,3] = [W36]\n%c: f32[1,2,4,4] = conv2d(%x, %w) {pads = [1, 1, 1, 1]}",
    "grouped": "const %w: f32[2,1,3,3] = [W18]\n%c: f32[1,2,4,4] = conv2d(%x, %w) {pads=[1,1,1,1], groups = 2}",
    "transposed": "const %w: f32[2,2,1,1] = [W4]\n%c: f32[1,2,4,4] = conv_transpose2d(%x, %w)",
    "transposed, grouped": "const %w: f32[2,1,1,1] = [W2]\n%c: f32[1,2,4,4] = conv_transpose2d(%x, %w) {groups=2}",
}


def weights(text: str) -> str:
    for n in (36, 18, 4, 2):
        text = text.replace(f"[W{n}]", f"[{', '.join(str((i * 7 % 11) / 4 - 1) for i in range(n))}]")
    return text


@pytest.mark.parametrize("conv", CONVOLUTIONS)
def test_batch_norm_folds_into_every_kind_of_convolution(conv):
    text = graph(weights(CONVOLUTIONS[conv]) + "\n" + NORM + "%y: f32[1,2,4,4] = batch_norm(%c, %scale, %bias, %mean,"
                 " %var)\noutput %y")
    assert ops_after(FuseBatchNorm(), text) == [("conv_transpose2d" if "trans" in conv else "conv2d")]


@pytest.mark.parametrize("conv", CONVOLUTIONS)
@pytest.mark.parametrize(
    "chain",
    [
        "%y: f32[1,2,4,4] = mul(%c, %two)",
        "%y: f32[1,2,4,4] = div(%c, %two)",
        "%y: f32[1,2,4,4] = sub(%two, %c)",
        "%y: f32[1,2,4,4] = neg(%c)",
        "%d: f32[1,2,4,4] = mul(%each, %c)\n%e: f32[1,2,4,4] = add(%d, %two)\n%y: f32[1,2,4,4] = sub(%e, %each)",
    ],
)
def test_arithmetic_after_a_convolution_folds_into_it(conv, chain):
    constants = "const %two: f32[] = [2]\nconst %each: f32[1,2,1,1] = [3, -0.5]\n"
    text = graph(constants + weights(CONVOLUTIONS[conv]) + f"\n{chain}\noutput %y")
    assert ops_after(FoldAffineChains(), text) == [("conv_transpose2d" if "trans" in conv else "conv2d")]


@pytest.mark.parametrize("conv", CONVOLUTIONS)
def test_a_scale_before_any_convolution_folds_into_it(conv):
    body = weights(CONVOLUTIONS[conv]).replace("(%x,", "(%s,")
    constants, node = body.split("\n")
    text = graph(f"const %each: f32[1,2,1,1] = [3, -0.5]\n{constants}\n%s: f32[1,2,4,4] = mul(%x, %each)\n{node}\n"
                 "output %c")
    assert ops_after(FoldAffineChains(), text) == [("conv_transpose2d" if "trans" in conv else "conv2d")]


SHIFTED = """const %t: f32[1,2,1,1] = [3, -0.5]
const %w: f32[2,2,1,1] = [1, 2, 3, 4]
%s: f32[1,2,4,4] = add(%x, %t)
%y: f32[1,2,{size},{size}] = conv2d(%s, %w) {{pads = [{pad}, {pad}, {pad}, {pad}]}}
output %y"""


def test_a_shift_before_an_unpadded_convolution_folds_into_its_bias(rewritten):
    rewritten(
        FoldAffineChains(),
        graph(SHIFTED.format(size=4, pad=0)),
        graph("""const %w.1: f32[2,2,1,1] = [1, 2, 3, 4]
                 const %y.bias: f32[2] = [2, 7]
                 %y: f32[1,2,4,4] = conv2d(%x, %w.1, %y.bias)
                 output %y"""),
    )


def test_a_shift_before_a_padded_convolution_stays(rewritten):
    rewritten(FoldAffineChains(), graph(SHIFTED.format(size=6, pad=1)), None)


UNITS = """const %mean: f32[2] = [13, 750]
const %factor: f32[2] = [FACTORS]
const %w: f32[3,2] = [1, 2, 3, 4, 5, 6]
SOURCE
%d: f32[1,2] = sub(%r, %mean)
%n: f32[1,2] = mul(%d, %factor)
%y: f32[1,3] = gemm(%n, %w) {trans_b = true}
output %y"""


@pytest.mark.parametrize(
    ("factors", "source", "ops"),
    [
        ("1.2, 0.003", "%r: f32[1,2] = neg(%x)", ["mul", "add", "gemm"]),
        ("1.2, -0.4", "%r: f32[1,2] = neg(%x)", ["gemm"]),
        ("1.2, 0", "%r: f32[1,2] = neg(%x)", ["gemm"]),
        ("1.2, 0.003", "%r: f32[1,2] = tanh(%x)", ["tanh", "gemm"]),
    ],
)
def test_factors_that_give_the_channels_of_an_input_one_unit_stay_before_the_product(factors, source, ops):
    text = graph(UNITS.replace("FACTORS", factors).replace("SOURCE", source), "f32[1,2]")
    assert ops_after(FoldAffineChains(), text) == ops


def test_a_product_with_two_users_keeps_the_arithmetic_after_it(rewritten):
    rewritten(
        FoldAffineChains(),
        graph("""const %w: f32[2,2,1,1] = [1, 2, 3, 4]
                 const %two: f32[] = [2]
                 %c: f32[1,2,4,4] = conv2d(%x, %w)
                 %y: f32[1,2,4,4] = mul(%c, %two)
                 output %y
                 output %c"""),
        None,
    )


def test_runs_of_arithmetic_become_one_mul_and_one_add(rewritten):
    rewritten(
        FoldAffineChains(),
        graph("""const %two: f32[] = [2]
                 const %three: f32[1] = [3]
                 const %eight: f32[] = [8]
                 %a: f32[1,2,4,4] = add(%x, %two)
                 %b: f32[1,2,4,4] = mul(%a, %three)
                 %c: f32[1,2,4,4] = sub(%b, %two)
                 %y: f32[1,2,4,4] = div(%c, %eight)
                 output %y"""),
        graph("""const %y.shift: f32[] = [0.5]
                 const %y.scaled.scale: f32[] = [0.375]
                 %y.scaled: f32[1,2,4,4] = mul(%x, %y.scaled.scale)
                 %y: f32[1,2,4,4] = add(%y.scaled, %y.shift)
                 output %y"""),
    )


def test_arithmetic_that_cancels_out_vanishes(rewritten):
    rewritten(
        FoldAffineChains(),
        graph("""const %two: f32[] = [2]
                 %r: f32[1,2,4,4] = relu(%x)
                 %a: f32[1,2,4,4] = mul(%r, %two)
                 %b: f32[1,2,4,4] = div(%a, %two)
                 %y: f32[1,2,4,4] = tanh(%b)
                 output %y"""),
        graph('%b: f32[1,2,4,4] = relu(%x) @"r"\n%y: f32[1,2,4,4] = tanh(%b)\noutput %y'),
    )


def test_a_constant_that_varies_over_pixels_stays(rewritten):
    rewritten(
        FoldAffineChains(),
        graph("""const %w: f32[2,2,1,1] = [1, 2, 3, 4]
                 const %pixels: f32[4] = [1, 2, 3, 4]
                 %c: f32[1,2,4,4] = conv2d(%x, %w)
                 %y: f32[1,2,4,4] = mul(%c, %pixels)
                 output %y"""),
        None,
    )


def test_integer_arithmetic_is_left_alone(rewritten):
    body = "const %two: i32[] = [2]\n%a: i32[4] = add(%x, %two)\n%y: i32[4] = add(%a, %two)\noutput %y"
    rewritten(FoldAffineChains(), graph(body, "i32[4]"), None)


def test_an_addition_becomes_the_bias_of_a_quantized_product(rewritten):
    weight = """const %q: i8[2,3] q([0.5, 0.25], [], axis=0) = [1, 2, 3, 4, 5, 6]
                const %r: i32[1,2] q([0.125, 0.5], [], axis=1) = [8, 9]
                %w: f32[2,3] = dequantize(%q)
                %b: f32[1,2] = dequantize(%r)
             """
    rewritten(
        FuseBias(),
        graph(f"""{weight}%m: f32[5,2] = gemm(%x, %w) {{trans_b = true}}
                  %y: f32[5,2] = add(%b, %m)
                  output %y""", "f32[5,3]"),
        graph("""const %q: i8[2,3] q([0.5, 0.25], [], axis=0) = [1, 2, 3, 4, 5, 6]
                const %r.1: i32[2] q([0.125, 0.5], [], axis=0) = [8, 9]
                %w: f32[2,3] = dequantize(%q)
                %b.1: f32[2] = dequantize(%r.1) @"b"
                %y: f32[5,2] = gemm(%x, %w, %b.1) {trans_b = true} @"m"
                output %y""", "f32[5,3]"),
    )


def test_an_addition_to_a_product_with_bias_stays_for_other_passes(rewritten):
    rewritten(
        FuseBias(),
        graph("""const %w: f32[2,2,1,1] = [1, 2, 3, 4]
                 const %b: f32[2] = [1, 2]
                 const %t: f32[2,1,1] = [1, 2]
                 %c: f32[1,2,4,4] = conv2d(%x, %w, %b)
                 %y: f32[1,2,4,4] = add(%c, %t)
                 output %y"""),
        None,
    )


def test_gemm_takes_its_factors_into_the_constants(rewritten):
    rewritten(
        NormalizeGemm(),
        graph("""const %w: f32[2,3] = [1, 2, 3, 4, 5, 6]
                 const %c: f32[1,3] = [2, 4, 6]
                 %y: f32[5,3] = gemm(%x, %w, %c) {alpha = 2.0, beta = 0.5}
                 output %y""", "f32[5,2]"),
        graph("""const %w.2: f32[3,2] = [2, 8, 4, 10, 6, 12]
                 const %c.1: f32[3] = [1, 2, 3]
                 %y: f32[5,3] = gemm(%x, %w.2, %c.1) {trans_b = true}
                 output %y""", "f32[5,2]"),
    )


def test_gemm_with_a_transposed_operand_gets_a_transpose(rewritten):
    rewritten(
        NormalizeGemm(),
        graph("""const %w: f32[3,2] = [1, 2, 3, 4, 5, 6]
                 %y: f32[5,3] = gemm(%x, %w) {trans_a = true, trans_b = true}
                 output %y""", "f32[2,5]"),
        graph("""const %w: f32[3,2] = [1, 2, 3, 4, 5, 6]
                 %x.t: f32[5,2] = transpose(%x) {perm = [1, 0]}
                 %y: f32[5,3] = gemm(%x.t, %w) {trans_b = true}
                 output %y""", "f32[2,5]"),
    )


def test_a_quantized_gemm_weight_is_transposed_with_its_scales(rewritten):
    rewritten(
        NormalizeGemm(),
        graph("""const %q: i8[2,3] q([0.5, 0.25, 1.0], [], axis=1) = [1, 2, 3, 4, 5, 6]
                 %w: f32[2,3] = dequantize(%q)
                 %y: f32[5,3] = gemm(%x, %w)
                 output %y""", "f32[5,2]"),
        graph("""const %q.1: i8[3,2] q([0.5, 0.25, 1.0], [], axis=0) = [1, 4, 2, 5, 3, 6]
                 %w.1: f32[3,2] = dequantize(%q.1) @"w"
                 %y: f32[5,3] = gemm(%x, %w.1) {trans_b = true}
                 output %y""", "f32[5,2]"),
    )


def test_gemm_of_two_activations_stays(rewritten):
    rewritten(NormalizeGemm(), graph("%y: f32[3,3] = gemm(%x, %x) {alpha = 2.0}\noutput %y", "f32[3,3]"), None)


def test_matmul_with_a_weight_and_an_addition_become_gemm(rewritten):
    rewritten(
        MatmulToGemm(),
        graph("""const %w: f32[3,2] = [1, 2, 3, 4, 5, 6]
                 const %b: f32[2] = [1, 2]
                 %m: f32[2,4,2] = matmul(%x, %w)
                 %y: f32[2,4,2] = add(%b, %m)
                 output %y""", "f32[2,4,3]"),
        graph("""const %b: f32[2] = [1, 2]
                 const %w.1: f32[2,3] = [1, 3, 5, 2, 4, 6]
                 %x.rows: f32[8,3] = reshape(%x) {shape = [8, 3]}
                 %y.rows: f32[8,2] = gemm(%x.rows, %w.1, %b) {trans_b = true} @"m"
                 %y: f32[2,4,2] = reshape(%y.rows) {shape = [2, 4, 2]} @"reshape"
                 output %y""", "f32[2,4,3]"),
    )


def test_matmul_of_matrices_needs_no_reshape():
    text = graph("const %w: f32[3,2] = [1, 2, 3, 4, 5, 6]\n%y: f32[4,2] = matmul(%x, %w)\noutput %y", "f32[4,3]")
    assert ops_after(MatmulToGemm(), text) == ["gemm"]


def test_matmul_of_a_vector_keeps_its_rank():
    text = graph("const %w: f32[3,2] = [1, 2, 3, 4, 5, 6]\n%y: f32[2] = matmul(%x, %w)\noutput %y", "f32[3]")
    assert ops_after(MatmulToGemm(), text) == ["reshape", "gemm", "reshape"]


def test_matmul_of_activations_stays(rewritten):
    rewritten(MatmulToGemm(), graph("%y: f32[3,3] = matmul(%x, %x)\noutput %y", "f32[3,3]"), None)


def test_an_addition_that_enlarges_the_product_stays():
    text = graph("""const %w: f32[3,2] = [1, 2, 3, 4, 5, 6]
                    const %b: f32[2,1,2] = [1, 2, 3, 4]
                    %m: f32[4,2] = matmul(%x, %w)
                    %y: f32[2,4,2] = add(%m, %b)
                    output %y""", "f32[4,3]")
    assert ops_after(MatmulToGemm(), text) == ["gemm", "add"]


TRANSPOSED = """const %w: f32[2,1,2,2] = [1, 2, 3, 4, 5, 6, 7, 8]
const %b: f32[1] = [0.5]
%y: f32[1,1,{size},{size}] = conv_transpose2d(%x, %w, %b) {{strides = [2, 2]{more}}}
output %y"""


def test_a_transposed_convolution_without_overlap_becomes_a_convolution(rewritten):
    rewritten(
        ConvTransposeToConv(),
        graph(TRANSPOSED.format(size=8, more="")),
        graph("""const %w.1: f32[4,2,1,1] = [1, 5, 2, 6, 3, 7, 4, 8]
                 const %b.1: f32[4] = [0.5, 0.5, 0.5, 0.5]
                 %y.taps: f32[1,4,4,4] = conv2d(%x, %w.1, %b.1) @"y"
                 %y: f32[1,1,8,8] = depth_to_space(%y.taps) {block = 2} @"depth_to_space"
                 output %y"""),
    )


@pytest.mark.parametrize(
    ("size", "more"), [(9, ", output_pads = [1, 1]"), (6, ", pads = [1, 1, 1, 1]"), (9, ", dilations = [2, 2]")]
)
def test_a_transposed_convolution_with_pads_or_dilation_stays(rewritten, size, more):
    rewritten(ConvTransposeToConv(), graph(TRANSPOSED.format(size=size, more=more)), None)


def test_a_transpose_of_a_quantized_weight_moves_into_the_constant(rewritten):
    rewritten(
        HoistWeightMovement(),
        graph("""const %q: i8[2,3] q([0.5, 0.25], [], axis=0) = [1, 2, 3, 4, 5, 6]
                 %d: f32[2,3] = dequantize(%q)
                 %t: f32[3,2] = transpose(%d) {perm = [1, 0]}
                 %y: f32[4,2] = matmul(%x, %t)
                 output %y""", "f32[4,3]"),
        graph("""const %q.1: i8[3,2] q([0.5, 0.25], [], axis=1) = [1, 4, 2, 5, 3, 6]
                 %t: f32[3,2] = dequantize(%q.1) @"d"
                 %y: f32[4,2] = matmul(%x, %t)
                 output %y""", "f32[4,3]"),
    )


def test_a_reshape_that_splits_the_channels_of_a_grid_stays(rewritten):
    rewritten(
        HoistWeightMovement(),
        graph("""const %w: f32[4,2] = [1, 2, 3, 4, 5, 6, 7, 8]
                 %d: f32[4,2] = fake_quant(%w) {quant = q([0.5, 0.25, 0.125, 0.1], [], axis=0)}
                 %t: f32[2,4] = reshape(%d) {shape = [2, 4]}
                 %y: f32[2,4] = add(%x, %t)
                 output %y""".replace("0.1]", "0.0625]"), "f32[2,4]"),
        None,
    )
