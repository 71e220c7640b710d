"""Graphs compiled for 64-bit ARM and run by qemu, compared with the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulators import emulated, wrong

from qcomp.codegen import toolchain
from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.ir import Graph, verify
from qcomp.targets import target

LEVELS = ("aarch64-i8mm", "aarch64-dotprod", "aarch64")
arm = emulated("aarch64")


def compiled_wrong(
    graph: Graph, feeds: dict[str, np.ndarray], level: str, folder: Path, threads: int = 1
) -> tuple[list[str], set[str]]:
    """Outputs that differ from the interpreter's in any bit, and the names of the kernels that computed them.

    Compiled with few optimizations, which is faster; `test_arm_artifacts` compiles as `qcomp compile` does."""
    verify(graph)
    package = generate(graph, target(level))
    used = {step["kernel"] for step in package.metadata["steps"]}
    with pytest.MonkeyPatch.context() as patch:
        flags = tuple("-O1" if flag == "-O3" else flag for flag in toolchain.KERNEL_FLAGS)
        patch.setattr(toolchain, "KERNEL_FLAGS", flags)
        path = build_library(package, folder / "model.so")
    return wrong(graph, feeds, path, threads), used
