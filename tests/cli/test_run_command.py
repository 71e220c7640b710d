"""`qcomp run` gives what the loader gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcomp.runtime.loader import load


@pytest.mark.parametrize("data", ["mlp_one.npz", "mlp_one.npy"])
def test_outputs_are_written(qcomp: Any, made: Path, artifact: Path, tmp_path: Path, data: str) -> None:
    outcome = qcomp("run", artifact, "--input", made / data, "--output", tmp_path / "o.npz", "--threads", 2)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    loaded = np.load(made / data)
    x = loaded if isinstance(loaded, np.ndarray) else loaded["x"]
    with load(artifact) as model, np.load(tmp_path / "o.npz") as written:
        assert written.files == ["y"]
        np.testing.assert_array_equal(written["y"], model.run({"x": x})["y"])
    assert [p.name for p in tmp_path.iterdir()] == ["o.npz"]


def test_statistics_are_printed_without_output(qcomp: Any, made: Path, artifact: Path) -> None:
    outcome = qcomp("run", artifact, "--input", made / "mlp_one.npz")
    header, _, row = outcome.out.strip().splitlines()
    assert header.split()[:4] == ["output", "dtype", "shape", "min"]
    assert row.split()[:3] == ["y", "float32", "1x5"]


def test_json_holds_the_statistics(qcomp: Any, made: Path, artifact: Path) -> None:
    (fact,) = qcomp("run", artifact, "--input", made / "mlp_one.npz", "--json").json["outputs"]
    with load(artifact) as model, np.load(made / "mlp_one.npz") as data:
        y = model.run({"x": data["x"]})["y"]
    assert fact["max"] == y.max() and fact["min"] == y.min() and fact["argmax"] == y.argmax()
    assert (fact["dtype"], fact["shape"]) == ("float32", [1, 5])


def test_samples_on_the_first_axis_run_one_after_the_other(
    qcomp: Any, made: Path, artifact: Path, tmp_path: Path
) -> None:
    with np.load(made / "mlp_one.npz") as data:
        x = np.concatenate([data["x"], -data["x"], data["x"] * np.float32(0.5)])
    np.savez(tmp_path / "three.npz", x=x)
    facts = qcomp("run", artifact, "--input", tmp_path / "three.npz", "-o", tmp_path / "o.npz", "--json").json
    assert facts["samples"] == 3 and facts["outputs"][0]["shape"] == [3, 5]
    with load(artifact) as model, np.load(tmp_path / "o.npz") as written:
        for i in range(3):
            np.testing.assert_array_equal(written["y"][i : i + 1], model.run({"x": x[i : i + 1]})["y"])


def test_arrays_of_another_shape_are_refused(qcomp: Any, made: Path, artifact: Path, tmp_path: Path) -> None:
    with np.load(made / "mlp_one.npz") as data:
        np.savez(tmp_path / "flat.npz", x=data["x"][..., :-1])
    outcome = qcomp("run", artifact, "--input", tmp_path / "flat.npz")
    assert outcome.status == 2 and "flat.npz" in outcome.err
