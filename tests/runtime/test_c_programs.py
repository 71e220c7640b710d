from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import expected_outputs, zig_cc

from qcomp.runtime.sources import HEADER, SOURCES

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "c_program" / "run_model.c"


def run_program(program: Path, artifact: Path, folder: Path, feed: dict[str, np.ndarray]) -> None:
    for name, array in feed.items():
        array.tofile(folder / name)
    command = [program, artifact, "2", "x", "q", "--", "y=4000", "z=1000", "where=32"]
    done = subprocess.run([os.fspath(part) for part in command], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name, array in expected_outputs(feed).items():
        assert (folder / name).read_bytes() == array.tobytes()


def test_a_c_program_opens_an_artifact(artifact: Path, tmp_path: Path, feed: dict[str, np.ndarray]) -> None:
    zig_cc(EXAMPLE, "-ldl", "-o", tmp_path / "run_model")
    run_program(tmp_path / "run_model", artifact, tmp_path, feed)


def test_a_c_program_links_an_artifact(artifact: Path, tmp_path: Path, feed: dict[str, np.ndarray]) -> None:
    shutil.copy(artifact, tmp_path / "libtiny.so")
    zig_cc("-DLINKED", EXAMPLE, f"-L{tmp_path}", "-ltiny", "-Wl,-rpath,$ORIGIN", "-o", tmp_path / "run_model")
    run_program(tmp_path / "run_model", artifact, tmp_path, feed)


def test_a_c_program_refuses_a_file_that_is_no_library(tmp_path: Path) -> None:
    zig_cc(EXAMPLE, "-ldl", "-o", tmp_path / "run_model")
    done = subprocess.run([tmp_path / "run_model", EXAMPLE, "1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("run_model: ")


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_stands_alone_in_both_languages(language: str, tmp_path: Path) -> None:
    source = tmp_path / "alone.txt"
    source.write_text(
        f'#define QCOMP_PREFIX mine\n#include "{HEADER}"\nconst void *p = (const void *)&mine_describe;\n'
    )
    zig_cc("-x", language, "-pedantic", "-c", source, "-o", tmp_path / "alone.o")


def test_the_sources_compile_as_strict_c11(tmp_path: Path) -> None:
    for source in SOURCES:
        zig_cc("-std=c11", "-Wpedantic", "-c", source, "-o", tmp_path / "strict.o")
