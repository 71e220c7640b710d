"""`qcomp tune` on small models, and `qcomp compile --tuning`; no test depends on a time."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

import qcomp as package
from qcomp.cli import app
from qcomp.codegen.tune.choose import Rounds
from qcomp.codegen.tune.file import read_tuning
from qcomp.codegen.tune.search import CANDIDATES
from qcomp.runtime.features import cpu_features
from qcomp.targets import native

pytestmark = pytest.mark.skipif(not {"avx2", "f16c"} <= cpu_features(), reason="needs AVX2")


@pytest.fixture(scope="module")
def tuning(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuning file of the convnet, in which one schedule is not the default."""
    calibration = {"x": np.load(made / "convnet.npz")["x"]}
    # No candidate takes no time at all: the default wins every layer, on any machine.
    never = Rounds(sift=1, refine=1, confirm=3, runs=1, least_gain=1.0)
    measured = package.tune(made / "convnet.onnx", calibration=calibration, candidates=2, rounds=never)
    path = measured.save(tmp_path_factory.mktemp("tuning") / "t.json")
    content = json.loads(path.read_text())
    first = sorted(content["layers"])[0]
    content["layers"][first] |= {"schedule": "tasks=2", "speedup": 1.5}
    path.write_text(json.dumps(content))
    return path


def compile_convnet(qcomp: Any, made: Path, out: Path, *options: object) -> Any:
    return qcomp("compile", made / "convnet.onnx", "-o", out, "--calibrate", made / "convnet.npz", *options)


def test_the_table_and_the_total_are_shown(qcomp: Any, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    options = ("--calibrate", made / "convnet.npz", "--candidates", 3)
    outcome = qcomp("tune", made / "convnet.onnx", "-o", out, *options)
    assert (outcome.status, outcome.err) == (0, "")
    for word in ("layer", "steps", "default us", "best us", "gain", "schedule", "qconv2d 1x8x8x3", "all steps:"):
        assert word in outcome.out
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_json_agrees_with_the_file(qcomp: Any, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    facts = qcomp("tune", made / "mlp.onnx", "-o", out, "--calibrate", made / "mlp.npz", "--json").json
    written = read_tuning(out)
    assert (facts["target"], facts["cpu"]) == (written.target, written.cpu) == (native().name, written.cpu)
    assert facts["notes"] == []
    assert {f["layer"]: f["kernel"] for f in facts["layers"]} == {n: c.kernel for n, c in written.layers.items()}
    assert facts["default_us"] == sum(f["steps"] * f["default_us"] for f in facts["layers"])
    assert facts["speedup"] == facts["default_us"] / facts["best_us"]
    assert out.stat().st_mode & 0o111 == 0


def test_a_float_model_needs_no_data(qcomp: Any, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    facts = qcomp("tune", made / "mlp.onnx", "-o", out, "--candidates", 1, "--json").json
    assert len(facts["notes"]) == 1 and "--calibrate" in facts["notes"][0]
    arguments = ("compile", made / "mlp.onnx", "-o", tmp_path / "m.so", "--calibrate", made / "mlp.npz")
    assert qcomp(*arguments, "--tuning", out, "--json").json["tuning"]["found"] == 2


def test_models_are_added_to_a_file(qcomp: Any, made: Path, tuning: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.json"
    before = read_tuning(tuning)
    arguments = ("tune", made / "mlp.onnx", "--tuning", tuning, "--candidates", 1, "--quiet")
    outcome = qcomp(*arguments, "-o", both)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    merged = read_tuning(both)
    assert read_tuning(tuning) == before
    assert set(before.layers) < set(merged.layers) and len(merged.layers) == len(before.layers) + 2
    both.write_bytes(tuning.read_bytes())
    assert qcomp("tune", made / "mlp.onnx", "--tuning", both, "--candidates", 1, "--quiet").status == 0
    assert set(read_tuning(both).layers) == set(merged.layers)


def test_compile_follows_the_file_and_says_so(qcomp: Any, made: Path, tuning: Path, tmp_path: Path) -> None:
    outcome = compile_convnet(qcomp, made, tmp_path / "a.so", "--tuning", tuning)
    layers = len(read_tuning(tuning).layers)
    assert f"tuning   {layers} of {layers} layers found in {tuning}, 1 not as by default\n" in outcome.out
    facts = compile_convnet(qcomp, made, tmp_path / "b.so", "--tuning", tuning, "--json").json
    assert facts["tuning"] == {"file": str(tuning), "layers": layers, "found": layers, "changed": 1}
    assert (tmp_path / "a.so").read_bytes() == (tmp_path / "b.so").read_bytes()
    plain = compile_convnet(qcomp, made, tmp_path / "c.so", "--json").json
    assert plain["tuning"] is None
    assert (tmp_path / "c.so").read_bytes() != (tmp_path / "a.so").read_bytes()
    x = np.load(made / "convnet.npz")["x"][:1]
    with package.load(tmp_path / "a.so") as tuned, package.load(tmp_path / "c.so") as default:
        for name, array in default.run({"x": x}).items():
            assert np.array_equal(array, tuned.run({"x": x})[name])


def test_layers_of_another_model_are_by_default(qcomp: Any, made: Path, tuning: Path, tmp_path: Path) -> None:
    arguments = ("compile", made / "mlp.onnx", "-o", tmp_path / "m.so", "--calibrate", made / "mlp.npz")
    outcome = qcomp(*arguments, "--tuning", tuning)
    assert f"tuning   0 of 2 layers found in {tuning}, 0 not as by default; the other 2 by default" in outcome.out


def test_sources_follow_the_file_too(qcomp: Any, made: Path, tuning: Path, tmp_path: Path) -> None:
    for name, options in (("tuned", ("--tuning", tuning)), ("plain", ())):
        assert compile_convnet(qcomp, made, tmp_path / name, "--emit", "c", *options).status == 0
    units = [path.name for path in (tmp_path / "plain").glob("*.c")]
    assert any((tmp_path / "tuned" / n).read_bytes() != (tmp_path / "plain" / n).read_bytes() for n in units)


def test_python_takes_a_file_or_what_tune_returned(made: Path, tuning: Path) -> None:
    samples = {"x": np.load(made / "convnet.npz")["x"]}
    artifacts = [
        package.compile(made / "convnet.onnx", calibration=samples, options=package.Options(tuning=given))
        for given in (tuning, str(tuning), read_tuning(tuning))
    ]
    assert artifacts[0].package.files == artifacts[1].package.files == artifacts[2].package.files
    layers = len(read_tuning(tuning).layers)
    assert (artifacts[0].package.tuned.found, artifacts[0].package.tuned.changed) == (layers, 1)


def test_command_line_and_python_measure_alike() -> None:
    command = getattr(typer.main.get_command(app), "commands")["tune"]  # noqa: B009
    defaults = {parameter.name: parameter.default for parameter in command.params}
    signature = inspect.signature(package.tune).parameters
    assert defaults["candidates"] == signature["candidates"].default == CANDIDATES
    assert defaults["threads"] == signature["threads"].default == 1
