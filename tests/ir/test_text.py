"""The text form: random graphs parse back equal, and what is no graph is refused with its line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, Quantization, TensorType, graphs_equal, parse_graph, print_graph, run, verify

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Chains and diamonds of elementwise ops over quantized and plain values, with odd names and numbers."""
    graph = Graph(draw(NAMES))
    shape = (2, draw(st.integers(1, 3)))
    names = draw(st.lists(NAMES, min_size=8, max_size=8, unique=True))
    values = [graph.input(names[0], TensorType.f32(*shape))]
    numbers = st.floats(width=32, allow_nan=True)
    data = np.array([draw(numbers) for _ in range(shape[0] * shape[1])], np.float32).reshape(shape)
    values.append(graph.constant(data, names[1]))
    for name in names[2:]:
        op = draw(st.sampled_from(["add", "relu", "clip", "fake_quant", "concat", "quantize"]))
        a, b = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        attrs: dict = {}
        if op == "clip":
            attrs = {"lo": draw(numbers.filter(lambda v: v == v)), "hi": draw(st.sampled_from([0.1, np.inf, 1e-30]))}
        if op in ("fake_quant", "quantize"):
            scale = draw(st.floats(2.0**-20, 2.0**20, width=32))
            quant = draw(st.sampled_from([Quantization.per_tensor(scale, 3), _channels(shape[0], scale)]))
            attrs = {"quant": quant, "dtype": draw(st.sampled_from([DType.I8, DType.I16]))}
        inputs = [a, b] if op == "add" else [a]
        node = graph.add("relu" if op == "concat" else op, inputs, attrs, names=[name])
        y = node.output
        if op == "quantize":
            y = graph.add("dequantize", [y]).output
        values.append(y)
    graph.outputs = [values[-1]]
    return graph


def _channels(count: int, scale: float) -> Quantization:
    return Quantization.per_channel(np.full(count, scale), 0, np.arange(count))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(graphs())
def test_random_graphs_parse_back_equal(graph: Graph) -> None:
    verify(graph)
    text = print_graph(graph)
    again = parse_graph(text)
    verify(again)
    assert print_graph(again) == text and graphs_equal(graph, again)
    x = {graph.inputs[0].name: np.ones(graph.inputs[0].shape, np.float32)}
    for name, array in run(graph, x).items():
        assert _bits(array) == _bits(run(again, x)[name])


def _bits(array: np.ndarray) -> bytes:
    """The bytes of an array with one NaN for all: numpy's sign of a NaN depends on where in memory the element lies."""
    return (np.where(np.isnan(array), np.float32(np.nan), array) if array.dtype.kind == "f" else array).tobytes()


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(graphs())
def test_clones_are_equal_and_independent(graph: Graph) -> None:
    text, twin = print_graph(graph), graph.clone()
    verify(twin)
    assert print_graph(twin) == text
    twin.outputs = [twin.inputs[0]]
    twin.prune()
    assert print_graph(graph) == text


@pytest.mark.parametrize("dtype", [d for d in DType])
def test_constants_of_every_type_parse_back(dtype: DType) -> None:
    for count in (3, 100):
        graph = Graph()
        array = np.random.default_rng(0).integers(0, 2, count).astype(dtype.numpy)
        graph.outputs = [graph.constant(array, "c")]
        again = parse_graph(print_graph(graph)).value("c")
        assert again.dtype is dtype and again.array.tobytes() == array.tobytes()


def test_large_constants_can_be_elided() -> None:
    graph = Graph()
    graph.outputs = [graph.constant(np.zeros(1000, np.float32), "c")]
    assert "%c: f32[1000] = ..." in print_graph(graph, elide=True)


def test_defaults_are_left_out_and_filled_in() -> None:
    text = "graph @m {\n  input %x: f32[1,1,4,4]\n  %y: f32[1,1,2,2] = max_pool(%x) {kernel = [3, 3]}\n  output %y\n}"
    graph = parse_graph(text)
    assert graph.nodes[0].attrs["strides"] == (1, 1)
    assert "strides" not in print_graph(graph)


def body(*lines: str) -> str:
    return "\n".join(["graph @m {", "input %x: f32[2]", *lines, "}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model @m {", "<text>:1: expected 'graph'"),
        (body("%y: f32[2] = relu(%z)"), "<text>:3: %z is used before it is defined"),
        (body("%y: f32[3] = relu(%x)"), "<text>:3: %y is written as f32[3], relu gives f32[2]"),
        (body("%y: f33[2] = relu(%x)"), "<text>:3: 'f33' is no element type"),
        (body("%x: f32[2] = relu(%x)"), "<text>:3: %x is defined twice"),
        (body("%y: f32[2] = rellu(%x)"), "no op is called 'rellu'; did you mean relu"),
        (body("%y: f32[2] = clip(%x) {low = 1.0}"), "clip has no attribute 'low'"),
        (body("%y: f32[2] = add(%x)"), "add needs operand 'b'"),
        (body("%y: f32[2] = relu(%x, %x)"), "relu takes 1 operands, not 2"),
        (body("const %c: f32[2] = [1]"), "<text>:3: constant has 1 elements, its type 2"),
        (body("const %c: i8[1] = [300]"), "<text>:3: constant does not fit i8"),
        (body('const %c: f32[1] = z"AAAA"'), "<text>:3: constant data is damaged"),
        (body("output %x", "}", "output %x"), "text after the graph"),
        (body("~"), "<text>:3: unexpected '~'"),
        (body("%y: f32[2] = relu(%x"), "<text>:4: expected ')'"),
    ],
)
def test_what_is_no_graph_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(QcompError) as caught:
        parse_graph(text)
    assert message in str(caught.value)


RICH = """graph @m {requantize = "float"} {
  input %x: f32[2,3]  # a comment
  const %w: f32[3,2] = [0, 1.5, -inf, nan, 4, 5]
  const %z: i8[3] q([0.5, 0.25, 1.0], [], axis=0) = [1, 2, 3]
  %p: f32[2,2] = gemm(%x, %w, _) {alpha = 0.5, trans_a = false} @"a name"
  %"odd name": f32[2,2] = clip(%p) {lo = -1.0}
  %q: i8[2,2] q(0.5, 3) = quantize(%"odd name") {quant = q(0.5, 3), dtype = !i8}
  %s: i8[2,1] q(0.5, 3), %t: i8[2,1] q(0.5, 3) = split(%q) {axis = 1, sizes = [1, 1]}
  %y: f32[2,1] = dequantize(%t)
  output %y
}
"""
PIECES = ["", "(", ")", "[", "]", "{", "}", ",", "=", "!", "%x", "@m", "-1", "1e999", "q", "!f33", '"']
PIECES += ["_", "axis", "\n", "\\u12", "0", "%y", "nan"]


def test_the_rich_text_is_a_graph() -> None:
    verify(parse_graph(RICH))


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.integers(0, len(RICH) - 1), st.integers(0, 12), st.sampled_from(PIECES))
def test_damaged_text_raises_nothing_but_a_clear_error(start: int, length: int, piece: str) -> None:
    text = RICH[:start] + piece + RICH[start + length :]
    try:
        verify(parse_graph(text))
    except QcompError as error:
        assert "\n" not in str(error)
