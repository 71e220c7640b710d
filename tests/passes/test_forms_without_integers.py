"""What integer softmax, layer norm and products of two tensors cannot compute stays float behind its grids."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qcomp.ir import Graph
from qcomp.passes.fuse_requantize import FuseRequantize

Q, R = "q(0.0625, 3)", "q(0.015625, -20)"


def text(shape: str, body: str, more: str = "") -> str:
    """A quantized %d, what `body` makes %y of it, and %y quantized."""
    return f"""graph @m {{
input %x: f32[{shape}]
{more}%q: i8[{shape}] {Q} = quantize(%x) {{quant = {Q}, dtype = !i8}}
%d: f32[{shape}] = dequantize(%q)
{body}
%o: i8[{shape}] {R} = quantize(%y) {{quant = {R}, dtype = !i8}}
output %o
}}"""


@pytest.mark.parametrize(
    "graph",
    [
        text("2,3,5", "%y: f32[2,3,5] = softmax(%d) {axis = 1}"),
        text("1,32769", "%y: f32[1,32769] = softmax(%d) {axis = 1}"),
        text("2,1,2", "%y: f32[2,1,2] = layer_norm(%d, %s) {axis = 1}", "const %s: f32[1,2] = [2, 3]\n"),
        text("2,2", "%y: f32[2,2] = layer_norm(%d, %s) {axis = 1}", "input %s: f32[2]\n"),
    ],
    ids=["softmax over another axis", "softmax of long rows", "layer norm over two axes", "layer norm by an input"],
)
def test_rows_that_have_no_integer_form(rewritten: Callable[..., Graph], graph: str) -> None:
    rewritten(FuseRequantize(), graph, None)


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [("3", "2,3,5", "2,5"), ("2,4,3", "3", "2,4"), ("1,33026", "33026,2", "1,2")],
    ids=["vector times matrices", "matrices times vector", "sums that may leave int32"],
)
def test_products_that_have_no_integer_form(
    rewritten: Callable[..., Graph], left: str, right: str, result: str
) -> None:
    graph = f"""graph @m {{
input %a: f32[{left}]
input %b: f32[{right}]
%aq: i8[{left}] {Q} = quantize(%a) {{quant = {Q}, dtype = !i8}}
%ad: f32[{left}] = dequantize(%aq)
%bq: i8[{right}] {Q} = quantize(%b) {{quant = {Q}, dtype = !i8}}
%bd: f32[{right}] = dequantize(%bq)
%y: f32[{result}] = matmul(%ad, %bd)
%o: i8[{result}] {Q} = quantize(%y) {{quant = {Q}, dtype = !i8}}
output %o
}}"""
    rewritten(FuseRequantize(), graph, None)
