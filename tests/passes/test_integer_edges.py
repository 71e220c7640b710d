"""integer-edges and fixed-requantize: text before, text after, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import Graph, parse_graph, run, verify
from qcomp.passes.fixed_requantize import FixedRequantize
from qcomp.passes.integer_edges import IntegerEdges

HEAD = """
graph @m {requantize = "float"} {
  input %x: f32[1,2,3,2]
  const %w: i8[2,2] = [1, -2, 3, 4]
  const %b: i32[2] = [5, 6]
  const %m: f32[2] = [0.25, 0.5]
  %q: i8[1,3,2,2] q(0.5, 3) = quantize(%x) {quant = q(0.5, 3), perm = [0, 2, 3, 1]}
  %s: i8[1,3,2,2] q(0.25, -5) = qgemm(%q, %w, %b, %m) {x_zp = 3, zp = -5}
  %y: f32[1,3,2,2] = dequantize(%s)
"""


def graph_of(tail: str) -> Graph:
    graph = parse_graph(HEAD + tail + "}\n")
    verify(graph)
    return graph


def test_edges_become_what_the_model_computes_with() -> None:
    before = graph_of("  output %y\n")
    x = np.random.default_rng(1).normal(0, 9, (1, 2, 3, 2)).astype(np.float32)
    (expected,) = run(before, {"x": x}).values()
    after = IntegerEdges().run(before)
    verify(after)
    (given,), (result,) = after.inputs, after.outputs
    assert (given.name, str(given.dtype.numpy), given.shape) == ("x", "int8", (1, 2, 3, 2))
    assert result.name == "y" and result.quant is not None and result.quant.zero_point == (-5,)
    q = np.clip(np.rint(x / np.float32(0.5)) + 3, -128, 127).astype(np.int8)
    (found,) = run(after, {"x": q}).values()
    assert np.array_equal((found.astype(np.float32) + 5) * np.float32(0.25), expected)


USED = "  %z: f32[1,3,2,2] = relu(%y)\n  output %y\n  output %z\n"


@pytest.mark.parametrize("tail", ["  output %y\n  output %y\n", USED])
def test_a_result_that_is_given_twice_or_used_is_int8_where_it_is_given(tail: str) -> None:
    after = IntegerEdges().run(graph_of(tail))
    verify(after)
    assert after.outputs[0].dtype.value == "i8" and after.outputs[0].name == "y"
    assert len({v.name for v in after.outputs}) == len(after.outputs)


def test_an_input_on_two_grids_stays_float() -> None:
    more = "  %r: i8[1,2,3,2] q(1.0, 0) = quantize(%x) {quant = q(1.0, 0)}\n  output %y\n  output %r\n"
    assert IntegerEdges().run(graph_of(more)).inputs[0].dtype.value == "f32"


def test_every_op_that_can_rounds_in_fixed_point_and_the_graph_says_so() -> None:
    graph = FixedRequantize().run(graph_of("  output %y\n"))
    assert graph.attrs["requantize"] == "fixed"
    assert [node.op.name for node in graph.nodes if node.attrs.get("fixed")] == ["qgemm"]
    verify(graph)


def test_a_float_result_is_not_rounded_in_fixed_point() -> None:
    real = "%y: f32[1,3,2,2] = qgemm(%q, %w, %b, %m) {x_zp = 3, dtype = !f32, fixed = true}"
    text = HEAD.replace("%y: f32[1,3,2,2] = dequantize(%s)", real)
    with pytest.raises(QcompError, match="a float32 result is not rounded in fixed point"):
        verify(parse_graph(text + "  output %y\n}\n"))
