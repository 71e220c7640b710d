"""Code for 64-bit ARM, run by qemu: the interpreter's bits at every level, and no instruction that a level lacks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emulators import emulated, wrong
from generated_graphs import KINDS, PRODUCTS, Batch, same_bits

from qcomp.codegen.build import build_library
from qcomp.codegen.c.arm.conv import widths
from qcomp.codegen.c.arm.products import SDOT, SMLAL, SMMLA, Products
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.levels import generate_levels
from qcomp.emulation import EmulatedModel, emulator_command
from qcomp.errors import QcompError
from qcomp.ir import run
from qcomp.targets import levels, target

LEVELS = ("aarch64-i8mm", "aarch64-dotprod", "aarch64")
KERNEL = {"aarch64-i8mm": "smmla", "aarch64-dotprod": "sdot", "aarch64": "smlal"}
BATCH = 60

arm = emulated("aarch64")


@arm
@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize(("kinds", "first"), [(PRODUCTS, 500), (PRODUCTS, 501), (list(KINDS), 502), (list(KINDS), 503)])
def test_generated_graphs(name: str, kinds: list[str], first: int, tmp_path: Path) -> None:
    batch = Batch([((5, first, i), kinds, 1 + i % 3) for i in range(BATCH)])
    package = generate(batch.graph, target(name))
    if kinds is PRODUCTS:
        used = {step["kernel"].split()[0] for step in package.metadata["steps"]}
        assert any(kernel.startswith(KERNEL[name]) for kernel in used)
    path = build_library(package, tmp_path / "model.so")
    bad = wrong(batch.graph, batch.feeds, path, 1 + first % 2)
    assert bad == [], f"{bad}; the first of them is an output of\n{batch.text(bad[0])}"


@arm
def test_one_file_picks_its_level_by_the_processor(tmp_path: Path) -> None:
    batch = Batch([((6, i), PRODUCTS, 2) for i in range(10)])
    held = levels(target("aarch64"))
    assert [level.name for level in held] == list(LEVELS)
    path = build_library(generate_levels(batch.graph, held), tmp_path / "model.so")
    for cpu in ("max", "neoverse-n1", "cortex-a53"):  # all, dotprod alone, neither: a wrong choice is SIGILL
        assert wrong(batch.graph, batch.feeds, path, 1, cpu) == [], cpu


@arm
def test_a_level_without_its_instructions_is_told(tmp_path: Path) -> None:
    batch = Batch([((6, 1), PRODUCTS, 2)])
    path = build_library(generate(batch.graph, target("aarch64-i8mm")), tmp_path / "model.so")
    with pytest.raises(QcompError, match="qemu-aarch64 could not run it"):
        EmulatedModel(path, cpu="cortex-a53").run(batch.feeds)


@arm
def test_run_emulate_gives_the_same_outputs(tmp_path: Path) -> None:
    batch = Batch([((6, 2), PRODUCTS, 2)])
    path = build_library(generate(batch.graph, target("aarch64-dotprod")), tmp_path / "model.so")
    np.savez(tmp_path / "in.npz", **batch.feeds)
    command = ["run", path, "--emulate", "-i", tmp_path / "in.npz", "-o", tmp_path / "o.npz"]
    done = subprocess.run(
        [sys.executable, "-m", "qcomp", *map(str, command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "o.npz") as found:
        for name, array in run(batch.graph, batch.feeds).items():
            assert same_bits(array, found[name])


def test_a_missing_emulator_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(QcompError, match="qemu-aarch64 is not installed; .*apt install qemu-user"):
        emulator_command(target("aarch64-i8mm"))
    with pytest.raises(QcompError, match="names no emulator"):
        emulator_command(target("x86_64"))


@pytest.mark.parametrize(("name", "lacks"), [("aarch64", "sdot|udot|[su]mmla"), ("aarch64-dotprod", "[su]mmla")])
def test_no_instruction_that_a_level_lacks(name: str, lacks: str, tmp_path: Path) -> None:
    batch = Batch([((7, i), list(KINDS), 2) for i in range(20)])
    package = generate(batch.graph, target(name))
    package.write(tmp_path)
    from qcomp.codegen.toolchain import KERNEL_FLAGS, find_compiler

    compiler = find_compiler()
    for unit in package.units:
        if unit.endswith(".c"):
            flags = [*compiler.flags(target(name)), *KERNEL_FLAGS, "-I.", "-S", unit, "-o", f"{unit}.s"]
            subprocess.run([*compiler.command, *flags], cwd=tmp_path, check=True)
            assert not re.search(rf"\b({lacks})\b", (tmp_path / f"{unit}.s").read_text())


@pytest.mark.parametrize("products", [SDOT, SMLAL, SMMLA])
def test_tiles_cover_every_line(products: Products) -> None:
    for vectors, most in enumerate(products.heights, 1):
        for pixels in range(1, 70):
            steps = products.covered(pixels, vectors)
            assert sum(rows * repeats for rows, repeats in steps) == pixels
            assert all(1 <= rows <= most and repeats > 0 for rows, repeats in steps)


@pytest.mark.parametrize("products", [SDOT, SMLAL, SMMLA])
def test_tiles_cover_all_channels(products: Products) -> None:
    for channels in range(1, 300):
        found = widths(products, channels)
        assert sum(found) == -(-channels // 4) and max(found) <= len(products.heights)
        assert max(found) - min(found) <= 1


@pytest.mark.slow
@arm
@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("network", ["resnet8_32", "dscnn_49x10", "ppocr_rec", "efficientnet_lite0"])
def test_networks(network: str, name: str, tmp_path: Path) -> None:
    """Three real inputs each; EfficientNet needs torch, once."""
    import qcomp
    import qcomp.zoo
    from qcomp.compiler import Options

    case = qcomp.zoo.load(network)
    artifact = qcomp.compile(
        case.onnx_path, shapes=case.shapes, target=name, calibration=case.calibration_samples(8),
        options=Options(levels=(name,)),
    )  # fmt: skip
    samples = list(case.feeds(3))
    found = EmulatedModel(artifact.save(tmp_path / "model.so")).run_all(samples)
    for sample, outputs in zip(samples, found, strict=True):
        assert all(same_bits(array, outputs[key]) for key, array in run(artifact.graph, sample).items())
