"""Progress: lines in a log only where work takes long, and none if they are not wanted."""

from __future__ import annotations

import pytest

from qcomp.cli import progress
from qcomp.cli.progress import Stages


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages() as stages:
        stages("calibrate", 1, 64)
        stages("generate", 0, 1)
    assert capsys.readouterr().err == ""


def test_long_work_says_where_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Stages() as stages:
        for done in range(1, 65):
            now += 0.5
            stages("calibrate", done, 64)
        now += 20
        stages("generate", 0, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "qcomp: calibrate 20 of 64, 10 s", "qcomp: calibrate 40 of 64, 20 s", "qcomp: calibrate 60 of 64, 30 s",
        "qcomp: generate, 52 s",
    ]  # fmt: skip


def test_quiet_work_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    with Stages(quiet=True) as stages:
        stages("calibrate", 1, 64)
    assert capsys.readouterr().err == ""
