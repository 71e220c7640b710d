"""Passes that recognize structures: layer norm, softmax, pooling, pads, squeeze-and-excite, reshapes."""

from __future__ import annotations

import pytest

from qcomp.ir import parse_graph
from qcomp.passes.global_pooling import GlobalPooling
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.normalize_pads import NormalizePads
from qcomp.passes.recognize_layer_norm import RecognizeLayerNorm
from qcomp.passes.recognize_softmax import RecognizeSoftmax
from qcomp.passes.remove_no_ops import RemoveNoOps
from qcomp.passes.reorder_reshapes import ReorderReshapes
from qcomp.passes.squeeze_excite import SqueezeExcite


def graph(body: str, x: str = "f32[3,4]") -> str:
    return f"graph @m {{\ninput %x: {x}\n{body}\n}}"


def ops_after(step, text: str) -> list[str]:
    before = parse_graph(text)
    return [n.op.name for n in run_passes(before, [step], check=Checker.random(before, samples=3))]


LAYER_NORM = """const %eps: f32[] = [0.00001]
const %two: f32[] = [2]
%m: f32[3,1] = reduce_mean(%x) {axes = [1]}
%d: f32[3,4] = sub(%x, %m)
%p: f32[3,4] = SQUARE
%v: f32[3,1] = reduce_mean(%p) {axes = [1]}
%e: f32[3,1] = add(%v, %eps)
%s: f32[3,1] = sqrt(%e)
"""


@pytest.mark.parametrize("square", ["mul(%d, %d)", "pow(%d, %two)"])
@pytest.mark.parametrize(
    "quotient", ["%y: f32[3,4] = div(%d, %s)", "%r: f32[3,1] = reciprocal(%s)\n%y: f32[3,4] = mul(%d, %r)"]
)
def test_layer_norm_pieces_become_layer_norm(square, quotient):
    text = graph(LAYER_NORM.replace("SQUARE", square) + quotient + "\noutput %y")
    assert ops_after(RecognizeLayerNorm(), text) == ["layer_norm"]


def test_layer_norm_takes_its_scale_and_bias(rewritten):
    rewritten(
        RecognizeLayerNorm(),
        graph("const %g: f32[4] = [1, 2, 3, 4]\nconst %b: f32[1,4] = [5, 6, 7, 8]\n"
              + LAYER_NORM.replace("SQUARE", "mul(%d, %d)").replace("const %two: f32[] = [2]\n", "")
              + "%n: f32[3,4] = div(%d, %s)\n%a: f32[3,4] = mul(%n, %g)\n%y: f32[3,4] = add(%b, %a)\noutput %y"),
        graph("""const %g.2: f32[4] = [1, 2, 3, 4]
                 const %b.1: f32[4] = [5, 6, 7, 8]
                 %y: f32[3,4] = layer_norm(%x, %g.2, %b.1) {axis = 1, epsilon = 0.000009999999747378752} @"n"
                 output %y"""),
    )


def test_a_norm_over_leading_axes_stays():
    pieces = LAYER_NORM.replace("SQUARE", "mul(%d, %d)").replace("[3,1]", "[1,4]").replace("axes = [1]", "axes = [0]")
    text = graph(pieces + "%y: f32[3,4] = div(%d, %s)\noutput %y")
    assert "layer_norm" not in ops_after(RecognizeLayerNorm(), text)


def test_a_factor_that_gives_a_norm_more_dimensions_stays():
    body = """const %ones: f32[4] = [1, 1, 1, 1]
              const %g: f32[1,1,4] = [1, 2, 3, 4]
              %n: f32[3,4] = layer_norm(%x, %ones) {axis = 1, epsilon = 1e-05}
              %y: f32[1,3,4] = mul(%n, %g)
              output %y"""
    assert ops_after(RecognizeLayerNorm(), graph(body)) == ["layer_norm", "mul"]


def test_softmax_pieces_become_softmax(rewritten):
    rewritten(
        RecognizeSoftmax(),
        graph("""%m: f32[1,4] = reduce_max(%x) {axes = [0]}
                 %d: f32[3,4] = sub(%x, %m)
                 %e: f32[3,4] = exp(%d)
                 %s: f32[1,4] = reduce_sum(%e) {axes = [0]}
                 %y: f32[3,4] = div(%e, %s)
                 output %y"""),
        graph("%y: f32[3,4] = softmax(%x) {axis = 0}\noutput %y"),
    )


def test_softmax_pieces_without_maximum_become_softmax_and_its_log_log_softmax(rewritten):
    rewritten(
        RecognizeSoftmax(),
        graph("""%e: f32[3,4] = exp(%x)
                 %s: f32[3,1] = reduce_sum(%e) {axes = [-1]}
                 %d: f32[3,4] = div(%e, %s)
                 %y: f32[3,4] = log(%d)
                 output %y""".replace("-1", "1")),
        graph('%y: f32[3,4] = log_softmax(%x) {axis = 1}\noutput %y'),
    )


def test_a_sum_over_another_axis_than_the_maximum_keeps_the_shift():
    text = graph("""%m: f32[1,4] = reduce_max(%x) {axes = [0]}
                    %d: f32[3,4] = sub(%x, %m)
                    %e: f32[3,4] = exp(%d)
                    %s: f32[3,1] = reduce_sum(%e) {axes = [1]}
                    %y: f32[3,4] = div(%e, %s)
                    output %y""")
    assert ops_after(RecognizeSoftmax(), text) == ["reduce_max", "sub", "softmax"]


IMAGE = "f32[2,3,4,5]"


def test_a_mean_over_the_image_becomes_an_average_pool(rewritten):
    rewritten(
        GlobalPooling(),
        graph("%y: f32[2,3] = reduce_mean(%x) {axes = [2, 3], keepdims = false}\noutput %y", IMAGE),
        graph("""%y.pool: f32[2,3,1,1] = avg_pool(%x) {kernel = [4, 5]} @"y"
                 %y: f32[2,3] = reshape(%y.pool) {shape = [2, 3]} @"reshape"
                 output %y""", IMAGE),
    )


def test_a_maximum_over_the_image_becomes_a_max_pool(rewritten):
    rewritten(
        GlobalPooling(),
        graph("%y: f32[2,3,1,1] = reduce_max(%x) {axes = [2, 3]}\noutput %y", IMAGE),
        graph("%y: f32[2,3,1,1] = max_pool(%x) {kernel = [4, 5]}\noutput %y", IMAGE),
    )


def test_a_mean_over_channels_stays(rewritten):
    rewritten(GlobalPooling(), graph("%y: f32[2,1,4,5] = reduce_mean(%x) {axes = [1]}\noutput %y", IMAGE), None)


PAD = "%p: f32[2,3,6,8] = pad({x}) {{pads = [0, 0, 1, 1, 0, 0, 1, 2]{more}}}\n"
CONV = "const %w: f32[1,3,1,1] = [1, 2, 3]\n"


def test_a_pad_joins_the_convolution_after_it(rewritten):
    rewritten(
        NormalizePads(),
        graph(
            CONV + PAD.format(x="%x", more="") + "%y: f32[2,1,6,10] = conv2d(%p, %w) {pads = [0, 1, 0, 1]}\noutput %y",
            IMAGE,
        ),
        graph(CONV + "%y: f32[2,1,6,10] = conv2d(%x, %w) {pads = [1, 2, 1, 3]}\noutput %y", IMAGE),
    )


def test_padding_with_another_value_stays_before_a_convolution(rewritten):
    body = CONV + PAD.format(x="%x", more=", value = 1.0") + "%y: f32[2,1,6,8] = conv2d(%p, %w)\noutput %y"
    rewritten(NormalizePads(), graph(body, IMAGE), None)


def test_a_pad_of_channels_stays(rewritten):
    rewritten(
        NormalizePads(),
        graph("""const %w: f32[1,4,1,1] = [1, 2, 3, 4]
                 %p: f32[2,4,4,5] = pad(%x) {pads = [0, 1, 0, 0, 0, 0, 0, 0]}
                 %y: f32[2,1,4,5] = conv2d(%p, %w)
                 output %y""", IMAGE),
        None,
    )


def test_a_pad_joins_an_average_pool_and_still_counts(rewritten):
    rewritten(
        NormalizePads(),
        graph(PAD.format(x="%x", more="") + "%y: f32[2,3,4,6] = avg_pool(%p) {kernel = [3, 3]}\noutput %y", IMAGE),
        graph(
            "%y: f32[2,3,4,6] = avg_pool(%x) {kernel = [3, 3], pads = [1, 1, 1, 2], count_include_pad = true}\n"
            "output %y",
            IMAGE,
        ),
    )


def test_a_pad_before_an_average_pool_with_uncounted_pads_stays(rewritten):
    pool = "%y: f32[2,3,5,6] = avg_pool(%p) {kernel = [3, 3], pads = [1, 0, 0, 0]}\noutput %y"
    rewritten(NormalizePads(), graph(PAD.format(x="%x", more="") + pool, IMAGE), None)


def test_padding_with_minus_infinity_joins_a_max_pool(rewritten):
    rewritten(
        NormalizePads(),
        graph(
            PAD.format(x="%x", more=", value = -inf") + "%y: f32[2,3,4,6] = max_pool(%p) {kernel = [3, 3]}\noutput %y",
            IMAGE,
        ),
        graph("%y: f32[2,3,4,6] = max_pool(%x) {kernel = [3, 3], pads = [1, 1, 1, 2]}\noutput %y", IMAGE),
    )


def test_padding_with_zero_joins_a_max_pool_of_what_is_not_negative(rewritten):
    rewritten(
        NormalizePads(),
        graph("%r: f32[2,3,4,5] = relu(%x)\n" + PAD.format(x="%r", more="")
              + "%y: f32[2,3,4,6] = max_pool(%p) {kernel = [3, 3]}\noutput %y", IMAGE),
        graph(
            "%r: f32[2,3,4,5] = relu(%x)\n"
            "%y: f32[2,3,4,6] = max_pool(%r) {kernel = [3, 3], pads = [1, 1, 1, 2]}\noutput %y",
            IMAGE,
        ),
    )


@pytest.mark.parametrize("kernel", ["[3, 3]", "[1, 1]"])
def test_padding_with_zero_before_a_max_pool_of_anything_stays(rewritten, kernel):
    shape = "2,3,4,6" if kernel == "[3, 3]" else "2,3,6,8"
    body = PAD.format(x="%x", more="") + f"%y: f32[{shape}] = max_pool(%p) {{kernel = {kernel}}}\noutput %y"
    rewritten(NormalizePads(), graph(body, IMAGE), None)


@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
def test_pools_of_single_pixels_go(rewritten, pool):
    rewritten(
        RemoveNoOps(),
        graph(f"%r: f32[2,3,4,5] = relu(%x)\n%p: f32[2,3,4,5] = {pool}(%r) {{kernel = [1, 1]}}\n"
              "%y: f32[2,3,4,5] = exp(%p)\noutput %y", IMAGE),
        graph('%p: f32[2,3,4,5] = relu(%x) @"r"\n%y: f32[2,3,4,5] = exp(%p)\noutput %y', IMAGE),
    )


def test_reshapes_meet_across_elementwise_nodes(rewritten):
    rewritten(
        ReorderReshapes(),
        graph("""const %two: f32[1] = [2]
                 %a: f32[2,6] = reshape(%x) {shape = [2, 6]}
                 %b: f32[2,6] = relu(%a)
                 %c: f32[2,6] = mul(%b, %two)
                 %y: f32[4,3] = reshape(%c) {shape = [4, 3]}
                 output %y"""),
        graph("""const %two.1: f32[] = [2]
                 %b.moved: f32[3,4] = relu(%x) @"b"
                 %c.moved: f32[3,4] = mul(%b.moved, %two.1) @"c"
                 %y: f32[4,3] = reshape(%c.moved) {shape = [4, 3]}
                 output %y"""),
    )


@pytest.mark.parametrize(
    "between", ["%b: f32[2,6] = softmax(%a) {axis = 1}", "%b: f32[2,6] = add(%a, %each)", "%b: f32[2,6] = add(%a, %a)"]
)
def test_reshapes_stay_around_nodes_that_see_the_shape(rewritten, between):
    const = "const %each: f32[6] = [1, 2, 3, 4, 5, 6]\n" if "each" in between else ""
    rewritten(
        ReorderReshapes(),
        graph(f"{const}%a: f32[2,6] = reshape(%x) {{shape = [2, 6]}}\n{between}\n"
              "%y: f32[4,3] = reshape(%b) {shape = [4, 3]}\noutput %y"),
        None,
    )


def test_squeeze_and_excite_with_matrices_becomes_convolutions(rewritten):
    constants = """const %w1: f32[2,3] = [1, 2, 3, 4, 5, 6]
                   const %b1: f32[2] = [1, 2]
                   const %w2: f32[3,2] = [1, 2, 3, 4, 5, 6]
                """
    rewritten(
        SqueezeExcite(),
        graph(constants + """%p: f32[2,3,1,1] = avg_pool(%x) {kernel = [4, 5]}
                 %f: f32[2,3] = reshape(%p) {shape = [2, 3]}
                 %g: f32[2,2] = gemm(%f, %w1, %b1) {trans_b = true}
                 %r: f32[2,2] = relu(%g)
                 %h: f32[2,3] = gemm(%r, %w2) {trans_b = true}
                 %s: f32[2,3] = hard_sigmoid(%h)
                 %e: f32[2,3,1,1] = reshape(%s) {shape = [2, 3, 1, 1]}
                 %y: f32[2,3,4,5] = mul(%x, %e)
                 output %y""", IMAGE),
        graph("""const %b1: f32[2] = [1, 2]
                 const %w1.1: f32[2,3,1,1] = [1, 2, 3, 4, 5, 6]
                 const %w2.1: f32[3,2,1,1] = [1, 2, 3, 4, 5, 6]
                 %p: f32[2,3,1,1] = avg_pool(%x) {kernel = [4, 5]}
                 %g.conv: f32[2,2,1,1] = conv2d(%p, %w1.1, %b1) @"g"
                 %r.moved: f32[2,2,1,1] = relu(%g.conv) @"r"
                 %h.conv: f32[2,3,1,1] = conv2d(%r.moved, %w2.1) @"h"
                 %e: f32[2,3,1,1] = hard_sigmoid(%h.conv) @"s"
                 %y: f32[2,3,4,5] = mul(%x, %e)
                 output %y""", IMAGE),
    )


def test_a_classifier_after_pooling_keeps_its_gemm(rewritten):
    rewritten(
        SqueezeExcite(),
        graph("""const %w: f32[2,3] = [1, 2, 3, 4, 5, 6]
                 %p: f32[2,3,1,1] = avg_pool(%x) {kernel = [4, 5]}
                 %f: f32[2,3] = reshape(%p) {shape = [2, 3]}
                 %y: f32[2,2] = gemm(%f, %w) {trans_b = true}
                 output %y""", IMAGE),
        None,
    )
