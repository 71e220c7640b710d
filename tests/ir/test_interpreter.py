"""What the interpreter returns, keeps and refuses."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import Graph, TensorType, parse_graph, run

TEXT = """graph @m {
  input %x: f32[2]
  const %w: f32[2] = [1, 2]
  %s: f32[2] = add(%x, %w)
  %y: f32[2] = relu(%s)
  output %y
  output %w
  output %x
}"""
X = np.array([-3.0, 1.0], np.float32)


def test_outputs_may_be_results_constants_and_inputs() -> None:
    results = run(parse_graph(TEXT), {"x": X})
    assert {k: v.tolist() for k, v in results.items()} == {"y": [0, 3], "w": [1, 2], "x": [-3, 1]}


def test_named_intermediate_values_are_kept() -> None:
    assert run(parse_graph(TEXT), {"x": X}, keep=["s"])["s"].tolist() == [-2, 3]


def test_the_observer_sees_every_computed_value_once() -> None:
    seen = []
    run(parse_graph(TEXT), {"x": X}, observe=lambda value, array: seen.append((value.name, array.tolist())))
    assert seen == [("s", [-2, 3]), ("y", [0, 3])]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": X, "z": X}, "the model has no input 'z'; its inputs are x"),
        ({"x": np.zeros(3, np.float32)}, "%x: expected f32[2], got f32[3]"),
        ({"x": np.zeros(2)}, "%x: expected f32[2], got f64[2]"),
        ({"x": np.zeros(2, np.complex64)}, "element type complex64 is not supported"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(QcompError) as caught:
        run(parse_graph(TEXT), inputs)
    assert message in str(caught.value)


def test_running_does_not_change_inputs_or_constants() -> None:
    graph, x = parse_graph(TEXT), X.copy()
    before = graph.value("w").array.copy()
    run(graph, {"x": x})
    assert (x == X).all() and (graph.value("w").array == before).all()


def test_overflow_and_nan_raise_no_warnings(recwarn: pytest.WarningsRecorder) -> None:
    graph = Graph()
    x = graph.input("x", TensorType.f32(4))
    y = graph.add("exp", [x]).output
    for op in ("softplus", "mish", "gelu", "log", "sqrt", "reciprocal", "sin"):
        y = graph.add(op, [y]).output
    graph.outputs = [graph.add("softmax", [y], {"axis": 0}).output]
    run(graph, {"x": np.array([1e30, -1e30, np.nan, np.inf], np.float32)})
    assert not recwarn.list
