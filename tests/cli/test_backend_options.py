"""`--backend`: what is compiled by TVM, what is said about it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcomp as package
from qcomp.codegen import backends
from qcomp.codegen.tune.file import read_tuning
from qcomp.codegen.tvm import adapter
from qcomp.runtime.features import cpu_features
from qcomp.targets import target

pytest.importorskip("tvm", reason="needs the tvm extra")
pytestmark = pytest.mark.skipif(
    not target("x86_64-avx512vnni").features <= cpu_features(), reason="needs AVX512-VNNI"
)


def compiled(qcomp: Any, made: Path, out: Path, *options: object) -> Any:
    return qcomp("compile", made / "convnet.onnx", "-o", out, "--calibrate", made / "convnet.npz", *options)


def test_tvm_computes_and_is_reported(qcomp: Any, made: Path, tmp_path: Path) -> None:
    outcome = compiled(qcomp, made, tmp_path / "a.so", "--backend", "tvm", "--target", "x86_64-avx512vnni")
    assert outcome.status == 0
    line = "  tvm      100.0% of the multiply-accumulates, 5 of 6 steps; by C: 1 quantize (tvm-no-kernel)\n"
    assert line in outcome.out
    facts = compiled(qcomp, made, tmp_path / "a.so", "--backend", "tvm", "--json").json["backend"]
    assert (facts["name"], facts["tvm_macs_share"]) == ("tvm", 1.0)
    assert [entry["reason"] for entry in facts["by_c"]] == ["tvm-no-kernel"]
    assert compiled(qcomp, made, tmp_path / "c.so", "--json").json["backend"] is None
    x = np.load(made / "convnet.npz")["x"][:1]
    with package.load(tmp_path / "a.so") as by_tvm, package.load(tmp_path / "c.so") as by_c:
        for name, array in by_c.run({"x": x}).items():
            assert np.array_equal(array, by_tvm.run({"x": x})[name])


def test_tuning_goes_into_the_same_kind_of_file(qcomp: Any, made: Path, tmp_path: Path) -> None:
    arguments = ("--calibrate", made / "convnet.npz", "--candidates", 6, "--quiet")
    file = tmp_path / "t.json"
    assert qcomp("tune", made / "convnet.onnx", "-o", file, "--backend", "tvm", *arguments).status == 0
    tuning = read_tuning(file)
    assert {choice.kernel for choice in tuning.layers.values()} == {"tvm_conv", "tvm_gemm"}
    facts = compiled(qcomp, made, tmp_path / "a.so", "--backend", "tvm", "--tuning", file, "--json").json
    assert facts["tuning"]["found"] == facts["tuning"]["layers"] == len(tuning.layers)


def test_auto_takes_what_the_file_says(qcomp: Any, made: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    arguments = ("--calibrate", made / "convnet.npz", "--candidates", 1, "--quiet")
    assert qcomp("tune", made / "convnet.onnx", "-o", file, "--backend", "auto", *arguments).status == 0
    content = json.loads(file.read_text())
    # As if TVM were faster for convolutions alone.
    content["layers"] = {
        name: {"schedule": "", "kernel": "tvm_conv", "speedup": 1.5}
        for name in content["layers"] if name.startswith("qconv2d")
    }  # fmt: skip
    file.write_text(json.dumps(content))
    facts = compiled(qcomp, made, tmp_path / "a.so", "--backend", "auto", "--tuning", file, "--json").json
    assert (facts["backend"]["name"], facts["backend"]["tvm_steps"]) == ("auto", 2)
    assert {e["reason"] for e in facts["backend"]["by_c"] if e["op"] in ("qgemm", "max_pool")} == {"as-tuned"}
    for other in ("c", "tvm"):
        refused = compiled(qcomp, made, tmp_path / "b.so", "--tuning", file, "--backend", other)
        assert refused.status == 2 and f"measured with the back end auto, not {other}" in refused.err
        arguments = ("tune", made / "convnet.onnx", "--tuning", file, "--backend", other)
        assert qcomp(*arguments).status == 2
    file.write_text(json.dumps({**content, "layers": {}}))
    refused = compiled(qcomp, made, tmp_path / "b.so", "--tuning", file, "--backend", "auto")
    assert refused.status == 2 and "none of the model's 5 layers is in the tuning" in refused.err


def test_auto_needs_measurements_and_one_target(qcomp: Any, made: Path, tmp_path: Path) -> None:
    outcome = compiled(qcomp, made, tmp_path / "a.so", "--backend", "auto")
    assert outcome.status == 2 and "run `qcomp tune --backend auto`" in outcome.err
    outcome = compiled(qcomp, made, tmp_path / "a.so", "--backend", "auto", "--target", "x86_64")
    assert outcome.status == 2 and "the back end auto is for one target, and this artifact is for 6" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_every_level_is_reported(qcomp: Any, made: Path, tmp_path: Path) -> None:
    levels = ("--target", "x86_64", "--levels", "x86_64-avx512vnni,x86_64-avx2")
    outcome = compiled(qcomp, made, tmp_path / "a.so", "--backend", "tvm", *levels)
    assert "  tvm      x86_64-avx512vnni: 100.0% of the" in outcome.out
    assert "; x86_64-avx2 0.0%, x86_64 0.0%\n" in outcome.out
    facts = compiled(qcomp, made, tmp_path / "a.so", "--backend", "tvm", "--json", *levels).json["backend"]
    assert facts["levels"] == {"x86_64-avx512vnni": 1.0, "x86_64-avx2": 0.0, "x86_64": 0.0}


def test_a_model_without_anything_for_tvm_is_noted(qcomp: Any, made: Path, tmp_path: Path) -> None:
    outcome = qcomp("compile", made / "convnet.onnx", "-o", tmp_path / "a.so", "--float", "--backend", "tvm")
    assert outcome.status == 0 and "note: TVM computes no multiply-accumulates of this model" in outcome.out


@pytest.mark.parametrize("name", ["cortex-m4", "x86_64-avx2", "generic"])
def test_targets_without_forms_are_refused(qcomp: Any, made: Path, tmp_path: Path, name: str) -> None:
    outcome = compiled(qcomp, made, tmp_path / "a.so", "--backend", "tvm", "--target", name)
    assert outcome.status == 2 and f"TVM computes no products for {name};" in outcome.err


def test_without_the_package_it_says_what_to_install(
    qcomp: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    adapter.check_installed.cache_clear()
    backends.table_of.cache_clear()
    try:
        for command in (("compile", "-o", tmp_path / "a.so"), ("tune", "-o", tmp_path / "t.json")):
            outcome = qcomp(command[0], made / "convnet.onnx", *command[1:], "--backend", "tvm")
            assert outcome.status == 2 and "pip install apache-tvm==" in outcome.err and outcome.err.count("\n") == 1
    finally:
        monkeypatch.undo()
        adapter.check_installed.cache_clear()
    assert list(tmp_path.iterdir()) == []


def test_another_version_is_refused(qcomp: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "version", lambda name: "0.99")
    adapter.check_installed.cache_clear()
    backends.table_of.cache_clear()
    try:
        outcome = compiled(qcomp, made, tmp_path / "a.so", "--backend", "tvm")
        assert outcome.status == 2 and "needs apache-tvm 0.27.0.post1, found 0.99" in outcome.err
    finally:
        monkeypatch.undo()
        adapter.check_installed.cache_clear()


def test_a_schedule_that_no_layer_has_is_one_line(qcomp: Any, made: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    arguments = ("--calibrate", made / "convnet.npz", "--candidates", 1, "--quiet")
    assert qcomp("tune", made / "convnet.onnx", "-o", file, "--backend", "tvm", *arguments).status == 0
    unknown = ("vnni vectors=6 rows=9", "vnni vectors=0 rows=1", "amx vectors=2 rows=16", "sdot vectors=1 rows=1", "?")
    for schedule in unknown:
        content = json.loads(file.read_text())
        for entry in content["layers"].values():
            entry["schedule"] = schedule
        (tmp_path / "bad.json").write_text(json.dumps(content))
        options = ("--backend", "tvm", "--tuning", tmp_path / "bad.json")
        outcome = compiled(qcomp, made, tmp_path / "a.so", *options)
        if schedule.startswith("amx") and target("native").name == "x86_64-amx":
            continue
        assert outcome.status == 2 and outcome.err.count("\n") == 1 and repr(schedule) in outcome.err
