"""`qcomp compile` on small models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qcomp.quantize.samples import load_samples
from qcomp.runtime.artifact import read_trailer
from qcomp.runtime.loader import load


def compile_mlp(qcomp: Any, made: Path, out: Path, *options: object) -> Any:
    return qcomp("compile", made / "mlp.onnx", "-o", out, "--calibrate", made / "mlp.npz", *options)


def test_the_summary_tells_what_was_made(qcomp: Any, made: Path, tmp_path: Path) -> None:
    outcome = compile_mlp(qcomp, made, tmp_path / "m.so")
    assert (outcome.status, outcome.err) == (0, "")
    assert "int8     2 of 2 nodes, 100.0% of 504 multiply-accumulates" in outcome.out
    for word in ("arena", "weights", "written", "m.so"):
        assert word in outcome.out
    assert [p.name for p in tmp_path.iterdir()] == ["m.so"]


def test_json_agrees_with_the_artifact(qcomp: Any, made: Path, tmp_path: Path) -> None:
    facts = compile_mlp(qcomp, made, tmp_path / "m.so", "--json").json
    info = read_trailer(tmp_path / "m.so")
    assert facts["nodes"] == {"int8": 2, "int16": 0, "float32": 0}
    assert facts["macs"] == {"int8": 16 * 24 + 24 * 5, "int16": 0, "float32": 0}
    assert (facts["arena_bytes"], facts["weights_bytes"]) == (info.arena_bytes, info.weights_bytes)
    assert facts["output_bytes"] == (tmp_path / "m.so").stat().st_size
    assert facts["model_bytes"] == (made / "mlp.onnx").stat().st_size
    assert facts["target"] == info.target
    assert facts["islands"] == facts["notes"] == []


def test_the_same_input_gives_the_same_bytes(qcomp: Any, made: Path, artifact: Path, tmp_path: Path) -> None:
    assert compile_mlp(qcomp, made, tmp_path / "m.so").status == 0
    assert (tmp_path / "m.so").read_bytes() == artifact.read_bytes()


def test_quiet_prints_nothing(qcomp: Any, made: Path, tmp_path: Path) -> None:
    outcome = compile_mlp(qcomp, made, tmp_path / "m.so", "--quiet")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


def test_a_small_calibration_set_is_doubted(qcomp: Any, made: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    np.savez(tmp_path / "few.npz", x=x, labels=np.arange(4))
    arguments = ("compile", made / "mlp.onnx", "-o", tmp_path / "m.so", "--calibrate", tmp_path / "few.npz")
    facts = qcomp(*arguments, "--json").json
    assert [f["code"] for f in facts["findings"]][0] == "few-samples"
    assert facts["notes"] == ["keys of the calibration data that are no inputs: labels"]
    assert "calibration: 4 calibration samples" in qcomp(*arguments).out


@pytest.mark.parametrize("method", ["minmax", "percentile:99.9", "mse"])
def test_results_are_close_to_the_float_model(qcomp: Any, made: Path, tmp_path: Path, method: str) -> None:
    outcome = compile_mlp(qcomp, made, tmp_path / "m.so", "--method", method, "--per-tensor", "--quiet")
    assert outcome.status == 0, outcome.err
    sample = next(iter(load_samples(made / "mlp.npz", _specs(made))))["x"]
    with load(tmp_path / "m.so") as model:
        assert np.abs(model.run({"x": sample})["y"] - _reference(made, sample)).max() < 0.2


def test_calibration_methods_choose_different_ranges(qcomp: Any, made: Path, tmp_path: Path) -> None:
    for method in ("minmax", "entropy"):
        assert compile_mlp(qcomp, made, tmp_path / method, "--method", method, "--quiet").status == 0
    assert (tmp_path / "minmax").read_bytes() != (tmp_path / "entropy").read_bytes()


def test_what_was_done_for_accuracy_is_said(qcomp: Any, made: Path, tmp_path: Path) -> None:
    high = compile_mlp(qcomp, made, tmp_path / "m.so", "--effort", "high", "--json").json["quality"]
    assert [line.split(" of ")[0] for line in high] == ["weights", "biases"]
    normal = compile_mlp(qcomp, made, tmp_path / "m.so").out
    assert "calibration: biases " in normal and "weights of 2" not in normal


def _specs(made: Path) -> Any:
    import onnx

    from qcomp.quantize.inputs import inputs_of

    return inputs_of(onnx.load(made / "mlp.onnx"))


def _reference(made: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(made / "mlp.onnx", providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


def test_a_quantized_model_needs_no_data(qcomp: Any, made: Path, tmp_path: Path) -> None:
    facts = qcomp("compile", made / "qdq.onnx", "-o", tmp_path / "m.so", "--json").json
    assert (facts["nodes"], facts["notes"]) == ({"int8": 1, "int16": 0, "float32": 0}, [])


def test_data_for_a_quantized_model_is_said_to_be_unused(qcomp: Any, made: Path, tmp_path: Path) -> None:
    arguments = ("--calibrate", made / "mlp.npz", "--json")
    facts = qcomp("compile", made / "qdq.onnx", "-o", tmp_path / "m.so", *arguments).json
    assert facts["notes"] == ["the model is quantized already: the calibration data was not used"]


def test_a_shape_binds_a_dynamic_batch(qcomp: Any, made: Path, tmp_path: Path) -> None:
    arguments = ("--calibrate", made / "mlp.npz", "--shape", "x=4,16", "--quiet")
    assert qcomp("compile", made / "dynamic.onnx", "-o", tmp_path / "m.so", *arguments).status == 0
    assert read_trailer(tmp_path / "m.so").inputs[0].shape == (4, 16)


def test_an_open_batch_is_said_to_be_1(qcomp: Any, made: Path, tmp_path: Path) -> None:
    arguments = ("compile", made / "dynamic.onnx", "-o", tmp_path / "m.so", "--calibrate", made / "mlp.npz", "--json")
    assert qcomp(*arguments).json["notes"] == ["the open batch dimension was set to 1 (--shape sets another): x"]


def test_an_integer_text_graph_compiles(qcomp: Any, made: Path, tmp_path: Path) -> None:
    passes = "--passes=canonicalize,channels-last,fold-fake-quant,fuse-requantize,dead-code"
    assert qcomp("opt", made / "qdq.onnx", passes, "-o", tmp_path / "g.qir").status == 0
    outcome = qcomp("compile", tmp_path / "g.qir", "-o", tmp_path / "g.so", "--json")
    assert outcome.json["nodes"] == {"int8": 1, "int16": 0, "float32": 0}


def test_other_targets_and_compilers_compile(qcomp: Any, made: Path, tmp_path: Path) -> None:
    outcome = compile_mlp(qcomp, made, tmp_path / "arm.so", "--target", "aarch64", "--json")
    assert outcome.json["target"] == "aarch64"
    assert read_trailer(tmp_path / "arm.so").machine == "aarch64"


def test_passes_are_shown_and_checked_on_request(qcomp: Any, made: Path, tmp_path: Path) -> None:
    outcome = compile_mlp(qcomp, made, tmp_path / "m.so", "--print-after-all", "--check-passes", "--json")
    assert outcome.json["nodes"]["int8"] == 2
    assert "# after insert-fake-quant" in outcome.err and "# after fuse-requantize" in outcome.err


def test_a_convolutional_network_compiles_and_runs(qcomp: Any, made: Path, tmp_path: Path) -> None:
    arguments = ("compile", made / "convnet.onnx", "-o", tmp_path / "m.so", "--calibrate", made / "convnet.npz")
    facts = qcomp(*arguments, "--require-int8", "--json").json
    assert (facts["nodes"]["float32"], facts["int8_share_of_macs"]) == (0, 1.0)
    with np.load(made / "convnet.npz") as data:
        np.savez(tmp_path / "one.npz", x=data["x"][:1])
    (output,) = qcomp("run", tmp_path / "m.so", "--input", tmp_path / "one.npz", "--json").json["outputs"]
    assert output["shape"] == [1, 5] and output["min"] < output["max"]


def test_a_model_compiles_as_float32_on_request(qcomp: Any, made: Path, tmp_path: Path) -> None:
    facts = qcomp("compile", made / "softmax.onnx", "-o", tmp_path / "m.so", "--float", "--json").json
    assert facts["macs"] == {"int8": 0, "int16": 0, "float32": 504}
    assert {i["reason"] for i in facts["islands"]} >= {"not-quantized"}
    with np.load(made / "mlp_one.npz") as data, load(tmp_path / "m.so") as model:
        assert abs(model.run({"x": data["x"]})["z"].sum() - 1) < 1e-5


def test_sources_are_written_as_a_folder(qcomp: Any, made: Path, tmp_path: Path) -> None:
    facts = compile_mlp(qcomp, made, tmp_path / "package", "--emit", "c", "--json").json
    names = {p.name for p in (tmp_path / "package").rglob("*")}
    assert {"CMakeLists.txt", "README.md"} <= names
    assert facts["output_bytes"] == sum(p.stat().st_size for p in (tmp_path / "package").rglob("*") if p.is_file())


def test_images_calibrate(qcomp: Any, made: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(2)
    for i in range(3):
        Image.fromarray(generator.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    arguments = ("compile", made / "convnet.onnx", "--calibrate", tmp_path / "images", "--image-mean", "127.5")
    means = [*arguments, "--image-std", "50,60,70", "--image-order", "bgr", "--quiet", "-o", tmp_path / "bgr.so"]
    assert qcomp(*means).status == 0
    assert qcomp(*arguments, "--quiet", "-o", tmp_path / "rgb.so").status == 0
    assert (tmp_path / "rgb.so").read_bytes() != (tmp_path / "bgr.so").read_bytes()


def test_images_without_a_mean_are_told_of(qcomp: Any, made: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(generator.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    model, images, out = made / "convnet.onnx", tmp_path / "images", tmp_path / "m.so"
    facts = qcomp("compile", model, "-o", out, "--calibrate", images, "--json").json
    assert facts["findings"][0]["code"] == "raw-images" and facts["findings"][0]["tensor"] == "x"
    for others in (("analyze", model, "--calibrate", images), ("compare", model, out, "--data", images, "--runs", 10)):
        assert "x is fed pixels of 0 to 255 as they are" in qcomp(*others).out
        assert "(raw-images)" not in qcomp(*others, "--image-std", "1").out


def test_the_digits_network_keeps_its_accuracy(qcomp: Any, tmp_path: Path) -> None:
    from qcomp import zoo

    case = zoo.load("digits_mlp")
    np.save(tmp_path / "digits.npy", case.calibration)
    arguments = ("--calibrate", tmp_path / "digits.npy", "--require-int8", "--quiet")
    assert qcomp("compile", case.onnx_path, "-o", tmp_path / "digits.so", *arguments).status == 0
    with load(tmp_path / "digits.so") as model:
        outputs = [model.run({case.input_name: case.inputs[i : i + 1]})["logits"] for i in range(len(case.inputs))]
    assert case.metric(np.concatenate(outputs))["top1"] >= case.reference["top1"] - 0.01


def test_an_existing_artifact_is_replaced(qcomp: Any, made: Path, tmp_path: Path) -> None:
    (tmp_path / "m.so").write_bytes(b"old")
    assert compile_mlp(qcomp, made, tmp_path / "m.so", "--quiet").status == 0
    assert read_trailer(tmp_path / "m.so").model == "mlp"
