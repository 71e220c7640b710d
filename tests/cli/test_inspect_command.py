"""`qcomp inspect` of artifacts, models and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from qcomp.runtime.artifact import read_trailer


def test_an_artifact_shows_its_metadata(qcomp: Any, artifact: Path) -> None:
    facts = qcomp("inspect", artifact, "--json").json
    info = read_trailer(artifact)
    assert facts["kind"] == "artifact" and facts["target"] == info.target
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 16], "quantization": None}]
    assert [s["op"] for s in facts["steps"]] == [s.op for s in info.steps]
    assert facts["macs"] == 504 and facts["arena_bytes"] == info.arena_bytes
    assert facts["arena_lower_bound"] <= facts["arena_bytes"]


def test_an_artifact_shows_as_tables(qcomp: Any, artifact: Path) -> None:
    text = qcomp("inspect", artifact).out
    for word in ("model 'mlp'", "arena", "weights", "inputs", "outputs", "kernel", "bytes moved", "qgemm", "1x16"):
        assert word in text, word


def test_a_float_model_shows_what_it_is_made_of(qcomp: Any, made: Path) -> None:
    facts = qcomp("inspect", made / "dynamic.onnx", "--json").json
    assert facts["ops"] == {"Gemm": 2, "Relu": 1}
    assert facts["opset"] == {"ai.onnx": 17}
    assert facts["parameters"] == 24 * 16 + 24 + 5 * 24 + 5
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 16]}]
    assert facts["quantized"] is False
    assert "not quantized" in qcomp("inspect", made / "dynamic.onnx").out


def test_weights_beside_a_model_count_to_its_size(qcomp: Any, made: Path, tmp_path: Path) -> None:
    path, beside = tmp_path / "m.onnx", tmp_path / "weights"
    onnx.save(onnx.load(made / "mlp.onnx"), path, save_as_external_data=True, location="weights", size_threshold=0)
    whole = path.stat().st_size + beside.stat().st_size
    facts = qcomp("inspect", path, "--json").json
    assert (facts["bytes"], facts["inputs"][0]["dtype"]) == (whole, "float32")
    assert qcomp("compile", path, "-o", tmp_path / "m.so", "--float", "--json").json["model_bytes"] == whole


def test_a_quantized_model_is_called_quantized(qcomp: Any, made: Path) -> None:
    assert qcomp("inspect", made / "qdq.onnx", "--json").json["quantized"] is True


def test_a_text_graph_shows_its_ops(qcomp: Any, made: Path, tmp_path: Path) -> None:
    assert qcomp("opt", made / "mlp.onnx", "-o", tmp_path / "g.qir").status == 0
    facts = qcomp("inspect", tmp_path / "g.qir", "--json").json
    assert (facts["kind"], facts["ops"], facts["macs"]) == ("qir", {"gemm": 2, "relu": 1}, 504)
