"""A tiny artifact, compiled once, and what tests need to make others from it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcomp.runtime.artifact import write_trailer
from qcomp.runtime.features import machine
from qcomp.runtime.sources import INCLUDE_DIR, SOURCES

HERE = Path(__file__).parent
TARGET = f"{machine()}-linux-gnu.2.17"

METADATA: dict[str, Any] = {
    "format": 1,
    "qcomp": "0.1.0",
    "model": "tiny",
    "target": "native",
    "isa": [],
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": [4, 250], "quantization": None},
        {"name": "q", "dtype": "i8", "shape": [1000], "quantization": {"scale": 0.5, "zero_point": 3}},
    ],
    "outputs": [
        {"name": "y", "dtype": "float32", "shape": [4, 250], "quantization": None},
        {"name": "z", "dtype": "int8", "shape": [1000], "quantization": None},
        {"name": "where", "dtype": "uint64", "shape": [4], "quantization": None},
    ],
    "arena_bytes": 4096,
    "weights_bytes": 0,
    "steps": [
        {"name": "a", "op": "scale", "kernel": "c", "macs": 1000, "shape": [1000], "bytes_moved": 8000},
        {"name": "b", "op": "reverse", "kernel": "c", "macs": 0, "shape": [1000], "bytes_moved": 8000},
        {"name": "c", "op": "triple", "kernel": "c", "macs": 2000, "shape": [1000], "bytes_moved": 2000},
    ],
    "islands": [],
}


def zig_cc(*arguments: object) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGET, "-O2", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run([*command, "-I", INCLUDE_DIR, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def build_elf(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Compiles the tiny model with further compiler arguments; returns the library's bytes."""

    def build(*arguments: str) -> bytes:
        folder = tmp_path_factory.mktemp("tiny")
        (folder / "tiny_metadata.h").write_text(f"#define METADATA {json.dumps(json.dumps(METADATA))}\n")
        library = folder / "tiny.so"
        zig_cc("-shared", "-fPIC", "-fvisibility=hidden", "-s", "-I", folder, *arguments,
               HERE / "tiny_model.c", *SOURCES, "-lpthread", "-o", library)  # fmt: skip
        return library.read_bytes()

    return build


@pytest.fixture(scope="session")
def elf(build_elf: Callable[..., bytes]) -> bytes:
    return build_elf()


@pytest.fixture(scope="session")
def artifact(elf: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as an artifact file."""
    path = tmp_path_factory.mktemp("artifact") / "tiny.so"
    path.write_bytes(write_trailer(elf, METADATA))
    return path


@pytest.fixture
def variant(elf: bytes, tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny model with some metadata replaced; returns its path."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "variant.so"
        path.write_bytes(write_trailer(elf, METADATA | changes))
        return path

    return write


@pytest.fixture
def feed() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    return {
        "x": generator.standard_normal((4, 250)).astype(np.float32),
        "q": generator.integers(-128, 128, 1000).astype(np.int8),
    }


def expected_outputs(feed: dict[str, np.ndarray], factor: float = 2.0) -> dict[str, np.ndarray]:
    return {
        "y": (np.float32(factor) * feed["x"]).ravel()[::-1].reshape(4, 250),
        "z": np.clip(3 * feed["q"].astype(np.int32), -128, 127).astype(np.int8),
    }
