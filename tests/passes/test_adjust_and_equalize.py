"""adjust-products and equalize-channels: text before, text after."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import Graph, parse_graph, print_graph, run
from qcomp.passes.adjust_products import AdjustProducts
from qcomp.passes.equalize_channels import EqualizeChannels, equalizable
from qcomp.passes.manager import run_passes

BIASLESS = """graph @m {
  input %x: f32[1,2]
  const %w: f32[2,2] = [1.0, 0.0, 0.0, 2.0]
  %wq: f32[2,2] = fake_quant(%w) {quant = q(0.5, 0)}
  %y: f32[1,2] = gemm(%x, %wq)
  output %y
}"""


def after(graph: Graph, text: str) -> None:
    assert print_graph(graph) == print_graph(parse_graph(text))


def test_a_bias_is_added_to_a_product_without_one() -> None:
    graph = run_passes(parse_graph(BIASLESS), [AdjustProducts(biases={"y": np.float32([0.25, -1.0])})])
    found = run(graph, {"x": np.ones((1, 2), np.float32)})["y"]
    assert found.tolist() == [[1.25, 1.0]]


def test_a_bias_is_added_to_the_one_there_is() -> None:
    text = BIASLESS.replace("%y:", "const %b: f32[2] = [1.0, 1.0]\n  %y:").replace("gemm(%x, %wq)", "gemm(%x, %wq, %b)")
    graph = run_passes(parse_graph(text), [AdjustProducts(biases={"y": np.float32([0.5, -1.0])})])
    (node,) = [n for n in graph.nodes if n.op.name == "gemm"]
    assert node.input(2).array.tolist() == [1.5, 0.0]


def test_weights_are_replaced_behind_their_grid() -> None:
    graph = run_passes(parse_graph(BIASLESS), [AdjustProducts(weights={"y": np.float32([[0.5, 0.0], [0.0, 2.5]])})])
    assert run(graph, {"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[0.5, 2.5]]


def test_weights_that_two_products_share_are_replaced_in_one() -> None:
    text = BIASLESS.replace("output %y", "%z: f32[1,2] = gemm(%x, %wq)\n  output %y\n  output %z")
    graph = run_passes(parse_graph(text), [AdjustProducts(weights={"y": np.float32([[0.5, 0.0], [0.0, 2.5]])})])
    found = run(graph, {"x": np.ones((1, 2), np.float32)})
    assert (found["y"].tolist(), found["z"].tolist()) == ([[0.5, 2.5]], [[1.0, 2.0]])


def test_a_name_that_is_no_product_is_refused() -> None:
    with pytest.raises(QcompError, match="%nothing is no product"):
        run_passes(parse_graph(BIASLESS), [AdjustProducts(biases={"nothing": np.float32([1.0])})])


def test_factors_move_from_a_value_into_the_weights_behind_it() -> None:
    before = """graph @m {
  input %x: f32[1,1,2,2]
  const %w: f32[2,1,1,1] = [4.0, 0.25]
  const %b: f32[2] = [1.0, 0.5]
  const %v: f32[1,2,1,1] = [1.0, 8.0]
  %a: f32[1,2,2,2] = conv2d(%x, %w, %b)
  %r: f32[1,2,2,2] = relu(%a)
  %y: f32[1,1,2,2] = conv2d(%r, %v)
  output %y
}"""
    graph = run_passes(parse_graph(before), [EqualizeChannels({"r": np.array([1.0, 0.125])})])
    after(
        graph,
        """graph @m {requantize = "float", equalized = ["a", "r"]} {
  input %x: f32[1,1,2,2]
  const %w.1: f32[2,1,1,1] = [4.0, 2.0]
  const %b.1: f32[2] = [1.0, 4.0]
  const %v.1: f32[1,2,1,1] = [1.0, 1.0]
  %a: f32[1,2,2,2] = conv2d(%x, %w.1, %b.1)
  %r: f32[1,2,2,2] = relu(%a)
  %y: f32[1,1,2,2] = conv2d(%r, %v.1)
  output %y
}""",
    )


PAIRS = {
    "depthwise": ("conv2d(%x, %w)", "conv2d(%a, %v) {groups = 4}", [4, 3, 1, 1], [8, 1, 3, 3], [1, 3, 5, 5]),
    "grouped": ("conv2d(%x, %w)", "conv2d(%a, %v) {groups = 2}", [4, 3, 1, 1], [6, 2, 1, 1], [1, 3, 5, 5]),
    "transposed": ("conv_transpose2d(%x, %w)", "conv_transpose2d(%a, %v)", [3, 4, 2, 2], [4, 2, 2, 2], [1, 3, 5, 5]),
    "gemm": ("gemm(%x, %w) {trans_b = true}", "gemm(%a, %v)", [4, 3], [4, 5], [2, 3]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_results_of_every_product_stay(name: str) -> None:
    first, second, w, v, x = PAIRS[name]
    rng = np.random.default_rng(3)
    graph = Graph("m")
    from qcomp.ir.types import TensorType

    values = {"%x": graph.input("x", TensorType.f32(*x))}
    for key, shape in (("%w", w), ("%v", v)):
        values[key] = graph.constant(rng.normal(size=shape).astype(np.float32), key[1:])

    def add(text: str, result: str) -> None:
        op, rest = text.split("(")
        operands, _, attrs = rest.partition(")")
        given = dict(part.split(" = ") for part in attrs.strip(" {}").split(", ") if part)
        typed = {k: n == "true" if n in ("true", "false") else int(n) for k, n in given.items()}
        values[result] = graph.add(op, [values[o] for o in operands.split(", ")], typed, names=[result[1:]]).output

    add(first, "%a")
    add(second, "%y")
    graph.outputs = [values["%y"]]
    feed = {"x": rng.normal(size=x).astype(np.float32)}
    factors = np.array([1.0, 0.5, 0.01, 0.125])
    scaled = run_passes(graph, [EqualizeChannels({"a": factors})])
    expected, found = run(graph, feed, keep=["a"]), run(scaled, feed, keep=["a"])
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-4, atol=1e-5)
    shape = (1, 4) if name == "gemm" else (1, 4, 1, 1)
    np.testing.assert_allclose(found["a"] * factors.reshape(shape), expected["a"], rtol=1e-4, atol=1e-5)


def test_a_layer_norm_takes_factors_for_the_gemm_behind_a_reshape() -> None:
    text = """graph @m {
  input %x: f32[1,2,4]
  const %s: f32[4] = [1.0, 2.0, 3.0, 4.0]
  const %b: f32[4] = [0.0, 1.0, 0.0, 1.0]
  const %w: f32[4,1] = [1.0, 1.0, 1.0, 1.0]
  %n: f32[1,2,4] = layer_norm(%x, %s, %b) {axis = 2}
  %r: f32[2,4] = reshape(%n) {shape = [2, 4]}
  %y: f32[2,1] = gemm(%r, %w)
  output %y
}"""
    graph = run_passes(parse_graph(text), [EqualizeChannels({"r": np.array([1.0, 0.5, 0.5, 1.0])})])
    constants = {v.name.split(".")[0]: v.array.reshape(-1).tolist() for v in graph.constants}
    assert constants == {"s": [1.0, 4.0, 6.0, 4.0], "b": [0.0, 2.0, 0.0, 1.0], "w": [1.0, 0.5, 0.5, 1.0]}


@pytest.mark.parametrize("between", ["hard_swish(%a)", "clip(%a) {lo = 0.0, hi = 6.0}"])
def test_a_function_that_factors_do_not_pass_is_no_site(between: str) -> None:
    text = f"""graph @m {{
  input %x: f32[1,2]
  const %w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]
  %a: f32[1,2] = gemm(%x, %w)
  %r: f32[1,2] = {between}
  %y: f32[1,2] = gemm(%r, %w)
  output %y
}}"""
    assert equalizable(parse_graph(text)) == []


def test_a_value_with_a_reader_that_cannot_take_factors_is_no_site() -> None:
    text = """graph @m {
  input %x: f32[1,2]
  const %w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]
  %a: f32[1,2] = gemm(%x, %w)
  %y: f32[1,2] = gemm(%a, %w)
  %z: f32[1,2] = add(%a, %x)
  output %y
  output %z
}"""
    assert equalizable(parse_graph(text)) == []


def test_factors_that_are_not_positive_are_refused() -> None:
    text = """graph @m {
  input %x: f32[1,2]
  const %w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]
  %a: f32[1,2] = gemm(%x, %w)
  %y: f32[1,2] = gemm(%a, %w)
  output %y
}"""
    with pytest.raises(QcompError, match="not 2 positive numbers"):
        run_passes(parse_graph(text), [EqualizeChannels({"a": np.array([1.0, 0.0])})])
