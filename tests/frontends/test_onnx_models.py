"""Real models: what is imported and interpreted is what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from qcomp import zoo
from qcomp.frontends.onnx import load_onnx
from qcomp.ir import Graph, run


def largest_difference(path: str, graph: Graph, feeds: dict[str, np.ndarray]) -> float:
    """Largest difference of any output from onnxruntime's, as a share of that output's largest value."""
    options = onnxruntime.SessionOptions()
    # As the model is written: fused kernels of quantized models compute something else than the model says.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    expected = session.run([v.name for v in graph.outputs], feeds)
    got = run(graph, feeds)
    pairs = zip(graph.outputs, expected, strict=True)
    return max(float(np.abs(got[v.name] - e).max() / max(np.abs(e).max(), 1e-30)) for v, e in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_a_model_of_the_zoo_agrees_with_onnxruntime(name: str) -> None:
    case = zoo.load(name)
    graph = load_onnx(case.onnx_path, case.shapes)
    assert largest_difference(str(case.onnx_path), graph, case.feed(0)) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("name", ["mnist_resnet8", "efficientnet_lite0", "digits_mlp"])
def test_a_model_quantized_by_onnxruntime_gives_the_same_answers(name: str, form: str) -> None:
    case = zoo.load(name)
    path = zoo.quantized_by_onnxruntime(case, form)
    graph = load_onnx(path, case.shapes)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    same = 0
    for feeds in case.feeds(20):
        (expected,) = session.run(None, feeds)
        same += int(run(graph, feeds)[graph.outputs[0].name].argmax() == expected.argmax())
    assert same >= 18
