"""Graphs compiled for 64-bit ARM and run by qemu, compared with the interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from qcomp.codegen import toolchain
from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.emulation import EmulatedModel, emulator_command
from qcomp.errors import QcompError
from qcomp.ir import Graph, run, verify
from qcomp.targets import target

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2]))

LEVELS = ("aarch64-i8mm", "aarch64-dotprod", "aarch64")


def _missing() -> str:
    try:
        emulator_command(target("aarch64"))
    except QcompError as error:
        return str(error)
    return ""


emulated = pytest.mark.skipif(bool(_missing()), reason=_missing())


def wrong(
    graph: Graph, feeds: dict[str, np.ndarray], level: str, folder: Path, threads: int = 1
) -> tuple[list[str], set[str]]:
    """Outputs that differ from the interpreter's in any bit, and the names of the kernels that computed them.

    Compiled with few optimizations, which is faster; `test_arm_artifacts` compiles as `qcomp compile` does."""
    from generated_graphs import same_bits

    verify(graph)
    expected = run(graph, feeds)
    package = generate(graph, target(level))
    used = {step["kernel"] for step in package.metadata["steps"]}
    with pytest.MonkeyPatch.context() as patch:
        flags = tuple("-O1" if flag == "-O3" else flag for flag in toolchain.KERNEL_FLAGS)
        patch.setattr(toolchain, "KERNEL_FLAGS", flags)
        path = build_library(package, folder / "model.so")
    found = EmulatedModel(path, threads).run(feeds)
    return [name for name, array in expected.items() if not same_bits(array, found[name])], used
