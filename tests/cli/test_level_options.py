"""Artifacts of several levels on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcomp.cli import main
from qcomp.runtime.artifact import read_trailer
from qcomp.runtime.features import cpu_features, machine
from qcomp.targets import levels, target

pytestmark = pytest.mark.skipif(machine() != "x86_64", reason="needs an x86 CPU")
LEVELS = levels(target("x86_64"))
HERE = [level.name for level in LEVELS if level.features <= cpu_features()]


@pytest.fixture(scope="module")
def portable(made: Path) -> Path:
    """The mlp for any x86."""
    path = made / "portable.so"
    with pytest.raises(SystemExit) as exit:
        main(["compile", str(made / "mlp.onnx"), "-o", str(path), "--calibrate", str(made / "mlp.npz"), "--quiet",
              "--target", "x86_64"])  # fmt: skip
    assert exit.value.code == 0
    return path


def test_every_level_computes_the_same(qcomp: Any, made: Path, portable: Path, tmp_path: Path) -> None:
    found = []
    for options in ((), *(("--level", name) for name in HERE)):
        out = tmp_path / f"{len(found)}.npz"
        outcome = qcomp("run", portable, "-i", made / "mlp_one.npz", "-o", out, *options)
        assert (outcome.status, outcome.err) == (0, "")
        with np.load(out) as arrays:
            found.append(arrays["y"].tobytes())
    assert len(found) == len(HERE) + 1 and len(set(found)) == 1


def test_bench_says_which_level_ran(qcomp: Any, portable: Path) -> None:
    assert qcomp("bench", portable, "--runs", 5, "--json").json["target"] == HERE[0]
    assert qcomp("bench", portable, "--runs", 5, "--json", "--level", "x86_64").json["target"] == "x86_64"
    profiled = qcomp("bench", portable, "--runs", 5, "--profile", "--json", "--level", "x86_64").json
    assert [s["kernel"] for s in profiled["steps"]] == [s.kernel for s in read_trailer(portable).at("x86_64").steps]


def test_inspect_lists_the_levels_and_shows_the_one_of_this_cpu(qcomp: Any, portable: Path, artifact: Path) -> None:
    facts = qcomp("inspect", portable, "--json").json
    assert (facts["target"], facts["level"]) == ("x86_64", HERE[0])
    assert [(v["name"], set(v["isa"]), v["runs_here"]) for v in facts["levels"]] == [
        (level.name, set(level.features), level.name in HERE) for level in LEVELS
    ]
    assert facts["isa"] == sorted(target(HERE[0]).features)
    text = qcomp("inspect", portable).out
    assert all(level.name in text for level in LEVELS) and f"shown    {HERE[0]}" in text
    alone = qcomp("inspect", artifact, "--json").json
    assert (alone["levels"], alone["level"]) == ([], None)


def test_inspect_shows_a_level_that_is_asked_for(qcomp: Any, portable: Path) -> None:
    info = read_trailer(portable)
    for level in LEVELS:
        facts = qcomp("inspect", portable, "--json", "--level", level.name).json
        told = info.at(level.name)
        assert [s["kernel"] for s in facts["steps"]] == [s.kernel for s in told.steps]
        assert (facts["level"], facts["arena_bytes"]) == (level.name, told.arena_bytes)


def test_compile_takes_the_levels_that_are_asked_for(qcomp: Any, made: Path, tmp_path: Path) -> None:
    arguments = ("compile", made / "mlp.onnx", "--calibrate", made / "mlp.npz", "--target", "x86_64", "--json")
    facts = qcomp(*arguments, "-o", tmp_path / "a.so", "--levels", "x86_64-avx2, x86_64-avx512vnni").json
    assert (facts["target"], facts["levels"]) == ("x86_64", ["x86_64-avx512vnni", "x86_64-avx2", "x86_64"])
    facts = qcomp(*arguments, "-o", tmp_path / "b.so", "--levels", "x86_64").json
    assert facts["levels"] == [] and read_trailer(tmp_path / "b.so").levels == ()
    text = qcomp(*arguments[:-1], "-o", tmp_path / "c.so").out
    assert f"levels   {', '.join(level.name for level in LEVELS)}" in text
