"""A transpose behind a quantize becomes the order of its result."""

from __future__ import annotations

from qcomp.ir import parse_graph
from qcomp.passes.fuse_quantize_transpose import FuseQuantizeTranspose

HEADER = "graph @m {\ninput %x: f32[1,3,8,9]\n"
QUANTIZE = "%q: i8[1,3,8,9] q(0.5, 3) = quantize(%x) {quant = q(0.5, 3)}\n"
TRANSPOSE = "%y: i8[1,8,9,3] q(0.5, 3) = transpose(%q) {perm = [0, 2, 3, 1]}\noutput %y\n"


def test_one_pass_over_the_input(rewritten) -> None:
    rewritten(
        FuseQuantizeTranspose(),
        HEADER + QUANTIZE + TRANSPOSE + "}",
        HEADER
        + "%y: i8[1,8,9,3] q(0.5, 3) = quantize(%x) {quant = q(0.5, 3), perm = [0, 2, 3, 1]} @\"q\"\noutput %y\n}",
    )


def test_integers_that_others_read_stay(rewritten) -> None:
    rewritten(FuseQuantizeTranspose(), HEADER + QUANTIZE + TRANSPOSE + "output %q\n}", None)


def test_networks_quantize_images_in_one_step() -> None:
    from qcomp.compiler import preview

    text = HEADER + """const %w: f32[4,3,1,1] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    %y: f32[1,4,8,9] = conv2d(%x, %w)
    output %y
    }"""
    names = [node.op.name for node in preview(parse_graph(text)).nodes]
    assert names.count("quantize") == 1 and names[:2] == ["quantize", "qconv2d"]
