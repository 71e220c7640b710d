"""Libraries for 32-bit ARM and RISC-V, run by qemu: portable C gives the interpreter's bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from emulators import emulated, wrong
from generated_graphs import INTEGERS, KINDS, Batch, batch_of

from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.passes.fixed_requantize import FixedRequantize
from qcomp.targets import Target, target


def check(batch: Batch, machine: Target, folder: Path) -> None:
    path = build_library(generate(batch.graph, machine), folder / "model.so")
    bad = wrong(batch.graph, batch.feeds, path, 2)
    assert bad == [], f"{bad}; the first of them is an output of\n{batch.text(bad[0])}"


@emulated("armv7-neon")
@pytest.mark.parametrize("fixed", [False, True])
def test_armv7(fixed: bool, tmp_path: Path) -> None:
    batch = Batch([((21, fixed, i), list(KINDS), 1 + i % 3) for i in range(50)])
    if fixed:
        FixedRequantize().run(batch.graph)
    check(batch, target("armv7-neon"), tmp_path)


@emulated("riscv64-v")
def test_riscv_vectors_on_integers(tmp_path: Path) -> None:
    """qemu 7.2 stops at vectors of floats that are converted to integers, so this graph has none."""
    batch = batch_of([(22, i) for i in range(60)], INTEGERS, 4 << 20, floats=False, steps=2)
    FixedRequantize().run(batch.graph)
    check(batch, target("riscv64-v"), tmp_path)


@emulated("riscv64-v")
def test_riscv_without_vectors(tmp_path: Path) -> None:
    machine = target("riscv64-v")
    flags = {k: tuple(f.replace("+v", "").replace("gcv", "gc") for f in fs) for k, fs in machine.flags.items()}
    batch = Batch([((23, i), list(KINDS), 1 + i % 3) for i in range(50)])
    check(batch, replace(machine, flags=flags), tmp_path)
