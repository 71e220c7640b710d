"""`qcomp bench`: what is measured, and that both sides run."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import models
import pytest

from qcomp.cli.timing import interleave, settle


def test_json_holds_times_of_all_steps(qcomp: Any, artifact: Path) -> None:
    facts = qcomp("bench", artifact, "--runs", 20, "--profile", "--json").json
    assert facts["qcomp"]["runs"] == 20
    assert 0 < facts["qcomp"]["min_ms"] <= facts["qcomp"]["median_ms"]
    assert facts["macs"] == 504
    assert facts["qcomp"]["gops"] == pytest.approx(2 * 504 / facts["qcomp"]["median_ms"] / 1e6)
    assert sum(step["share"] for step in facts["steps"]) == pytest.approx(1)
    assert "against" not in facts
    if facts["peak_gops"]:
        step = max(facts["steps"], key=lambda step: step["gops"])
        assert step["of_peak"] == pytest.approx(step["gops"] / facts["peak_gops"])


def test_onnxruntime_runs_side_by_side(qcomp: Any, made: Path, artifact: Path) -> None:
    arguments = ("--against", "onnxruntime", "--model", made / "mlp.onnx", "--runs", 20)
    facts = qcomp("bench", artifact, *arguments, "--json").json
    assert (facts["against"]["engine"], facts["against"]["runs"]) == ("onnxruntime", 20)
    assert facts["speedup"] == facts["against"]["median_ms"] / facts["qcomp"]["median_ms"]


def test_random_indices_are_within_any_table(qcomp: Any, tmp_path: Path) -> None:
    rows = models.model(
        [models.node("Gather", ["table", "ids"], ["row"]), models.node("Gemm", ["row", "w"], ["y"])],
        [models.tensor("ids", [4], models.TensorProto.INT64)], [models.tensor("y", [4, 5])],
        [models.weights("table", 2, 8), models.weights("w", 8, 5)],
    )  # fmt: skip
    path, artifact = models.save(rows, tmp_path / "rows.onnx"), tmp_path / "rows.so"
    assert qcomp("compile", path, "-o", artifact, "--float").status == 0
    facts = qcomp("bench", artifact, "--against", "onnxruntime", "--model", path, "--runs", 5, "--json").json
    assert facts["against"]["runs"] == 5


def test_the_table_names_both_engines(qcomp: Any, made: Path, artifact: Path) -> None:
    arguments = ("--against", "onnxruntime", "--model", made / "mlp.onnx", "--runs", 10, "--profile")
    text = qcomp("bench", artifact, *arguments, "--input", made / "mlp_one.npz").out
    assert "times faster than onnxruntime" in text or "times slower than onnxruntime" in text
    for word in ("median ms", "min ms", "GOPS", "share", "qgemm"):
        assert word in text


def test_openvino_runs_side_by_side(qcomp: Any, made: Path, artifact: Path) -> None:
    pytest.importorskip("openvino")
    arguments = ("--against", "openvino", "--model", made / "mlp.onnx", "--runs", 20)
    facts = qcomp("bench", artifact, *arguments, "--json").json
    assert (facts["against"]["engine"], facts["against"]["runs"]) == ("openvino", 20)
    other = qcomp("bench", artifact, *arguments[:3], made / "convnet.onnx")
    assert (other.status, other.out) == (2, "") and "convnet.onnx: OpenVINO cannot run it" in other.err
    other = qcomp("bench", artifact, *arguments[:3], made / "mlp.npz")
    assert (other.status, other.out) == (2, "") and "openvino has no model to run" in other.err


def test_openvino_that_is_not_installed_is_asked_for(
    qcomp: Any, made: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    outcome = qcomp("bench", artifact, "--against", "openvino", "--model", made / "mlp.onnx")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "qcomp: error: the package openvino is not installed; pip install openvino\n"


def test_engines_and_models_are_paired_by_suffix(qcomp: Any, made: Path, artifact: Path) -> None:
    pytest.importorskip("openvino")
    arguments = ("--against", "onnxruntime,openvino", "--model", made / "mlp.onnx", "--runs", 20)
    facts = qcomp("bench", artifact, *arguments, "--json").json
    assert [(p["engine"], p["side"], p["runs"]) for p in facts["peers"]] == [
        ("onnxruntime", "onnxruntime", 20), ("openvino", "openvino", 20)
    ]  # fmt: skip
    fastest = min(facts["peers"], key=lambda p: p["median_ms"])
    assert facts["against"] == {key: fastest[key] for key in facts["against"]}
    assert facts["speedup"] == fastest["speedup"]
    text = qcomp("bench", artifact, *arguments).out
    assert "than onnxruntime" in text and "than openvino" in text


def test_an_engine_runs_every_model_that_it_takes(qcomp: Any, made: Path, artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes((made / "mlp.onnx").read_bytes())
    models = ("--model", made / "mlp.onnx", "--model", other)
    facts = qcomp("bench", artifact, "--against", "onnxruntime", *models, "--runs", 10, "--json").json
    assert [p["model"] for p in facts["peers"]] == [str(made / "mlp.onnx"), str(other)]
    assert [p["side"] for p in facts["peers"]] == [f"onnxruntime {made / 'mlp.onnx'}", f"onnxruntime {other}"]


def test_litert_that_is_not_installed_is_asked_for(
    qcomp: Any, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    (tmp_path / "m.tflite").write_bytes(b"")
    outcome = qcomp("bench", artifact, "--against", "litert", "--model", tmp_path / "m.tflite")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "qcomp: error: the package ai-edge-litert is not installed; pip install ai-edge-litert\n"


def test_litert_refuses_a_file_that_is_no_model(qcomp: Any, artifact: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    (tmp_path / "m.tflite").write_bytes(b"no model")
    outcome = qcomp("bench", artifact, "--against", "litert", "--model", tmp_path / "m.tflite")
    assert (outcome.status, outcome.out) == (2, "") and "m.tflite: LiteRT cannot run it" in outcome.err


def test_sides_take_turns_in_rounds() -> None:
    order: list[str] = []
    times = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 30)
    assert {name: times.runs(name) for name in "ab"} == {"a": 30, "b": 30}
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["a", *["b", "a"] * 5]  # every other round in reverse: two turns of a side in a row


def test_settling_waits_for_threads_that_compute() -> None:
    end = time.perf_counter() + 0.1
    rows: list[float] = []

    def spin() -> None:
        while time.perf_counter() < end:
            pass
        rows.append(time.perf_counter())

    thread = threading.Thread(target=spin)
    thread.start()
    settle()
    assert rows and time.perf_counter() > rows[0]
    thread.join()
