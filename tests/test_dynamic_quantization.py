"""Models that onnxruntime's quantize_dynamic wrote, and float models compiled with --dynamic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from typer.testing import CliRunner

from qcomp.cli import app
from qcomp.compiler import Options, compile, import_model
from qcomp.compiler import quantize as to_integers
from qcomp.errors import QcompError
from qcomp.ir import run
from qcomp.runtime.loader import load


def two_layers() -> onnx.ModelProto:
    """x f32[2, 5, 32] -> MatMul + Add -> Relu -> MatMul -> y."""
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.normal(0, 0.2, (32, 48)) * np.exp(rng.normal(0, 1, 48)), "b1": rng.normal(size=48),
        "w2": rng.normal(0.05, 0.2, (48, 20)),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m1"]), helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["r1"]), helper.make_node("MatMul", ["r1", "w2"], ["y"]),
    ]  # fmt: skip
    inputs, outputs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in (("x", (2, 5, 32)), ("y", (2, 5, 20)))
    )
    initializers = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "two", inputs, outputs, initializers)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def samples(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(6).normal(size=(count, 2, 5, 32)).astype(np.float32))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8])
def test_models_of_onnxruntime_give_its_bits(tmp_path: Path, weights: QuantType, per_channel: bool) -> None:
    onnx.save(two_layers(), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx", per_channel=per_channel, weight_type=weights)
    artifact = compile(tmp_path / "int8.onnx")
    ops = [n.op.name for n in artifact.graph.nodes]
    assert ops == ["dynamic_quantize", "dynamic_qgemm", "relu", "dynamic_quantize", "dynamic_qgemm"]
    assert len(artifact.coverage.dynamic) == 2 and artifact.coverage.integer_share == 1.0
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    compiled = load(str(artifact.save(tmp_path / "model.so")))
    unfused = import_model(tmp_path / "int8.onnx")
    for x in samples(20):
        y = compiled.run({"x": x})["y"]
        assert (y == run(unfused, {"x": x})["y"]).all()
        assert (y == session.run(None, {"x": x})[0]).all()


def test_float_models_become_dynamic(tmp_path: Path) -> None:
    onnx.save(two_layers(), tmp_path / "float.onnx")
    command = ["compile", str(tmp_path / "float.onnx"), "-o", str(tmp_path / "model.so"), "--dynamic", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert len(facts["dynamic"]) == 2 and facts["int8_share_of_macs"] == 1.0
    graph = import_model(tmp_path / "float.onnx")
    integer = to_integers(graph, None, Options(dynamic=True))
    compiled = load(str(tmp_path / "model.so"))
    for x in samples(10):
        y, expected = compiled.run({"x": x})["y"], run(graph, {"x": x})["y"]
        assert (y == run(integer, {"x": x})["y"]).all()
        assert np.abs(y - expected).max() < 0.02 * np.abs(expected).max()


def test_dynamic_takes_no_calibration_data() -> None:
    with pytest.raises(QcompError, match="takes no calibration data"):
        compile(two_layers(), calibration=np.stack(samples(2)), options=Options(dynamic=True))


@pytest.mark.parametrize("other", [["--float"], ["--calibrate", "data.npy"]])
def test_dynamic_excludes_other_ways(tmp_path: Path, other: list[str]) -> None:
    onnx.save(two_layers(), tmp_path / "float.onnx")
    np.save(tmp_path / "data.npy", np.stack(samples(2)))
    other = [str(tmp_path / o) if o.endswith("npy") else o for o in other]
    command = ["compile", str(tmp_path / "float.onnx"), "-o", str(tmp_path / "model.so"), "--dynamic", *other]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, QcompError) and "exclude each other" in str(result.exception)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers_become_dynamic(tmp_path: Path, op: str, gates: int) -> None:
    rng = np.random.default_rng(7)
    shapes = {"w": (1, gates * 24, 16), "r": (1, gates * 24, 24), "b": (1, 2 * gates * 24)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.3, s).astype(np.float32), n) for n, s in shapes.items()]
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (9, 2, 16)), ("y", (9, 1, 2, 24)))
    )
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w", "r", "b"], ["y"], hidden_size=24)], "g", [x], [y], weights
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    artifact = compile(model, options=Options(dynamic=True))
    assert len(artifact.coverage.dynamic) == 2 and artifact.coverage.integer_share == 1.0
    as_float = compile(model)
    assert [i.reason for i in as_float.coverage.islands if i.op == op.lower()] == ["float-state"]
    data = [{"x": x} for x in rng.normal(size=(8, 9, 2, 16)).astype(np.float32)]
    static = compile(model, calibration=data)
    assert static.coverage.dynamic == () and static.coverage.integer_share == 1.0 and not static.coverage.islands
    compiled, calibrated, float_model = (
        load(str(a.save(tmp_path / f"{n}.so")))
        for n, a in (("dynamic", artifact), ("static", static), ("float", as_float))
    )
    feeds = data[0]
    assert (calibrated.run(feeds)["y"] == run(static.graph, feeds)["y"]).all()
    assert np.abs(calibrated.run(feeds)["y"] - float_model.run(feeds)["y"]).max() < 0.05
    result = compiled.run(feeds)["y"]
    assert (result == run(artifact.graph, feeds)["y"]).all()
    assert (float_model.run(feeds)["y"] == run(as_float.graph, feeds)["y"]).all()
    assert np.abs(result - float_model.run(feeds)["y"]).max() < 0.03
