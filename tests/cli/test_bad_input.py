"""Every mistake of a user ends with status 2, one line that names the mistake, and no file written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_arguments
import bad_data
import bad_models
import pytest

Run = Callable[..., Any]


def files(*folders: Path) -> dict[str, int]:
    return {str(f): f.stat().st_size for folder in folders for f in folder.rglob("*")}


def assert_refused(qcomp: Run, arguments: list[object], mention: str, *folders: Path) -> None:
    before = files(*folders)
    outcome = qcomp(*arguments)
    assert (outcome.status, outcome.out) == (2, ""), outcome
    assert outcome.err.startswith("qcomp: error: "), outcome.err
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n"), outcome.err
    assert mention in outcome.err, f"{mention!r} is not named: {outcome.err}"
    assert files(*folders) == before


@pytest.mark.parametrize("name", bad_models.MODELS)
def test_broken_models_are_refused(qcomp: Run, tmp_path: Path, name: str) -> None:
    write, mention = bad_models.MODELS[name]
    path = write(tmp_path)
    assert_refused(qcomp, ["compile", path, "-o", tmp_path / "out.so", "--float"], mention, tmp_path)


@pytest.mark.parametrize("name", ["empty file", "text file", "truncated", "missing file", "folder", "random bytes"])
@pytest.mark.parametrize("command", ["inspect", "check", "opt"])
def test_every_command_refuses_what_is_no_model(qcomp: Run, tmp_path: Path, name: str, command: str) -> None:
    write, mention = bad_models.MODELS[name]
    assert_refused(qcomp, [command, write(tmp_path)], mention, tmp_path)


@pytest.mark.parametrize("name", bad_data.DATA)
def test_bad_calibration_data_is_refused(qcomp: Run, made: Path, tmp_path: Path, name: str) -> None:
    model, write, options, mention = bad_data.DATA[name]
    arguments = ["compile", made / model, "-o", tmp_path / "out.so", "--calibrate", write(tmp_path), *options]
    assert_refused(qcomp, arguments, mention, tmp_path, made)


@pytest.mark.parametrize("name", bad_arguments.ARGUMENTS)
def test_bad_arguments_are_refused(qcomp: Run, made: Path, artifact: Path, tmp_path: Path, name: str) -> None:
    template, mention = bad_arguments.ARGUMENTS[name]
    arguments = template(made, tmp_path)
    assert_refused(qcomp, arguments, mention, tmp_path, made)
