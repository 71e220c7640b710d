from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import HERE, zig_cc

from qcomp.runtime.sources import POOL


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("pool") / "pool_stress"
    zig_cc(HERE / "pool_stress.c", POOL, "-lpthread", "-o", program)
    return program


@pytest.mark.parametrize("threads", [-3, 1, 2, 3, 4, 16])
def test_every_task_runs_once_whatever_the_count_nesting_or_rivals(stress: Path, threads: int) -> None:
    done = subprocess.run([stress, str(threads), "2000"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ok\n")
