"""Convolutions along the height of images that are one pixel wide run along rows."""

from __future__ import annotations

import pytest

from qcomp.ir import Graph, parse_graph
from qcomp.passes.columns_to_rows import ColumnsToRows
from qcomp.passes.manager import Checker, run_passes

TEXT = """graph @m {
input %x: i8[2,12,WIDTH,2] q(0.5, 3)
const %w: i8[3,3,KERNEL,2] = [TAPS]
const %bias: i32[3] = [5, -7, 100]
const %mult: f32[3] = [0.01, 0.02, 0.003]
%y: i8[2,6,OUT,3] q(0.25, -4) = qconv2d(%x, %w, %bias, %mult) {x_zp = 3, zp = -4, strides = [2, 1], pads = PADS}
output %y
}"""


def graph(width: int = 1, kernel: int = 1, pads: str = "[1, 0, 1, 0]", out: int = 1) -> Graph:
    taps = ", ".join(str(7 * i % 255 - 127) for i in range(18 * kernel))
    text = TEXT.replace("WIDTH", str(width)).replace("KERNEL", str(kernel)).replace("TAPS", taps)
    return parse_graph(text.replace("PADS", pads).replace("OUT", str(out)))


def test_a_column_becomes_a_row() -> None:
    before = graph()
    after = run_passes(before, [ColumnsToRows()], check=Checker.random(before, samples=3))
    (conv,) = [n for n in after.nodes if n.op.name == "qconv2d"]
    assert conv.input(0).shape == (2, 1, 12, 2) and conv.output.shape == (2, 1, 6, 3)
    assert conv.call.ints("strides") == (1, 2) and conv.call.ints("pads") == (0, 1, 0, 1)
    assert str(after.outputs[0].quant) == str(before.outputs[0].quant)


@pytest.mark.parametrize(
    ("width", "kernel", "pads", "out"),
    [(2, 1, "[1, 0, 1, 0]", 2), (1, 2, "[1, 1, 1, 0]", 1), (1, 1, "[1, 1, 1, 0]", 2)],
)
def test_images_with_a_width_stay(width: int, kernel: int, pads: str, out: int) -> None:
    after = run_passes(graph(width, kernel, pads, out), [ColumnsToRows()])
    assert [n.op.name for n in after.nodes] == ["qconv2d"]
