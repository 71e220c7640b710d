"""`qcomp bench`: what is measured, and that both sides run."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qcomp.cli.timing import interleave


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
    assert (other.status, other.out) == (2, "") and "mlp.npz: OpenVINO takes no such file" in other.err


def test_openvino_that_is_not_installed_is_asked_for(
    qcomp: Any, made: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    outcome = qcomp("bench", artifact, "--against", "openvino", "--model", made / "mlp.onnx")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "qcomp: error: the package openvino is not installed; pip install openvino\n"


def test_sides_take_turns_in_rounds() -> None:
    order: list[str] = []
    times = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 30)
    assert {name: t.runs for name, t in times.items()} == {"a": 30, "b": 30}
    assert Counter(order) == {"a": 40, "b": 40}  # one run a round warms up
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["a", "b"] * 10
