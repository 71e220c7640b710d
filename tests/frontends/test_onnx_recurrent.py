"""LSTM and GRU against onnxruntime, in every form that is imported, and the message of those that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from qcomp.errors import QcompError
from qcomp.frontends.onnx import load_onnx
from qcomp.ir import run

GATES = {"LSTM": 4, "GRU": 3}


def layer(
    op: str, steps: int = 5, batch: int = 2, inputs: int = 3, hidden: int = 4, *, bias: bool = True,
    states: bool = True, lengths: tuple[int, ...] | None = None, peepholes: bool = False, **attributes: object,
) -> onnx.ModelProto:  # fmt: skip
    rng = np.random.default_rng(3)
    count, width = (2 if attributes.get("direction") == "bidirectional" else 1), GATES[op] * hidden

    def tensor(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.6, shape).astype(np.float32)

    constants = {"w": tensor(count, width, inputs), "r": tensor(count, width, hidden)}
    names = ["x", "w", "r", "", "", "", ""]
    if bias:
        constants["b"] = tensor(count, 2 * width)
        names[3] = "b"
    if lengths is not None:
        constants["n"] = np.int32(lengths)
        names[4] = "n"
    feeds = {"x": (steps, batch, inputs)}
    if states:
        feeds["h0"] = (count, batch, hidden)
        names[5] = "h0"
        if op == "LSTM":
            constants["c0"] = tensor(count, batch, hidden)
            names[6] = "c0"
    if peepholes:
        constants["p"] = tensor(count, 3 * hidden)
        names.append("p")
    outputs = ["y", "h", "c"][: 3 if op == "LSTM" else 2]
    if op == "GRU":
        names = names[:6]
    shapes = {"y": (steps, count, batch, hidden), "h": (count, batch, hidden), "c": (count, batch, hidden)}
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, hidden_size=hidden, **attributes)], "layer",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in feeds.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n]) for n in outputs],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def differences(model: onnx.ModelProto) -> float:
    """Largest difference from onnxruntime, of an output, over random inputs."""
    graph = load_onnx(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng, largest = np.random.default_rng(4), 0.0
    for _ in range(5):
        feeds = {v.name: rng.normal(0, 1, v.shape).astype(np.float32) for v in graph.inputs}
        ours = run(graph, feeds)
        for value, theirs in zip(session.get_outputs(), session.run(None, feeds), strict=True):
            largest = max(largest, float(np.abs(ours[value.name] - theirs).max()))
    return largest


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "extra"), [("LSTM", {}), ("GRU", {"linear_before_reset": 0}), ("GRU", {"linear_before_reset": 1})]
)
@pytest.mark.parametrize("given", [True, False])
def test_layers_agree_with_onnxruntime(op: str, extra: dict[str, int], direction: str, given: bool) -> None:
    model = layer(op, bias=given, states=given, lengths=(5, 5) if given else None, direction=direction, **extra)
    assert differences(model) < 2e-6


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamic_lstm_of_onnxruntime(tmp_path: Path, direction: str, per_channel: bool) -> None:
    onnx.save(layer("LSTM", 9, 1, 16, 24, direction=direction), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx", per_channel=per_channel)
    model = onnx.load(tmp_path / "int8.onnx")
    assert [n.op_type for n in model.graph.node] == ["DynamicQuantizeLSTM"]
    assert [n.op.name for n in load_onnx(model).nodes].count("lstm") == 1 + (direction == "bidirectional")
    # one row: the state has one grid in both, and steps of 1/255 of its range are far larger than this
    assert differences(model) < 1e-3


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"peepholes": True}, "peepholes"),
        ({"clip": 3.0}, "clipped gates"),
        ({"input_forget": 1}, "coupled input and forget gates"),
        ({"activations": ["Relu", "Tanh", "Tanh"]}, "activations relu, tanh, tanh; use Sigmoid, Tanh, Tanh"),
        ({"lengths": (5, 3)}, "sequences that end early"),
    ],
)
def test_forms_that_no_op_computes_are_refused(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(QcompError, match=message):
        load_onnx(layer("LSTM", **attributes))  # type: ignore[arg-type]
