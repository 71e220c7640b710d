"""Executed instructions for each multiply-accumulate on Cortex-M: `python benchmarks/cortex_m_instructions.py`.

Counted by a plugin of qemu over whole images, so the figures are exact and the same on every machine; what it takes to
start cancels out between runs on one and on several samples.  Beside each core's kernels stands portable C, compiled by
the same compiler for the same core: what a user gets who lets a compiler find the instructions.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from arm_instructions import per_product, plugin
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcomp
import qcomp.zoo
from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.image import flash_bytes
from qcomp.compiler import Artifact, Options
from qcomp.targets import target

MODELS = ("resnet8_32", "mnist_resnet8", "mnist_dscnn")
TARGETS = ("cortex-m3", "cortex-m4", "cortex-m7", "cortex-m55")


def main() -> None:
    parser = argparse.ArgumentParser(description="Executed instructions for each multiply-accumulate, counted in qemu.")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help="cases of the zoo")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), metavar="NAME")
    arguments = parser.parse_args()
    table = Table(title="Executed instructions for each multiply-accumulate, whole network; flash and arena in bytes")
    for column in ("model", "core", "MACs", "qcomp", "portable C", "flash", "arena"):
        table.add_column(column, justify="left" if column in ("model", "core") else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counter = plugin(folder)
        for model in arguments.models:
            case = qcomp.zoo.load(model)
            for machine in arguments.targets:
                artifact = qcomp.compile(
                    case.onnx_path, shapes=case.shapes, target=machine, calibration=case.calibration_samples(16),
                    options=Options(io="int8"),
                )  # fmt: skip
                path = artifact.save(folder / "qcomp.elf")
                plain = generate(artifact.graph, target(machine), table=kernel_table(portable_only=True))
                build_library(plain, folder / "portable.elf")
                feed = _feed(artifact)
                counted = [per_product(file, counter, feed) for file in (path, folder / "portable.elf")]
                cells, macs = [f"{each:.3f}" for each, _ in counted], counted[0][1]
                sizes = (str(flash_bytes(path)), str(artifact.metadata["arena_bytes"]))
                table.add_row(model, machine, f"{macs / 1e6:.1f} M", *cells, *sizes)
    Console().print(table)


def _feed(artifact: Artifact) -> dict[str, NDArray[np.int8]]:
    rng = np.random.default_rng(0)
    return {v.name: rng.integers(-128, 128, v.shape).astype(np.int8) for v in artifact.graph.inputs}


if __name__ == "__main__":
    main()
