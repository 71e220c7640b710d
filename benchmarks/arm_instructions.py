"""Executed instructions for each multiply-accumulate on 64-bit ARM: `python benchmarks/arm_instructions.py`.

Counted by a plugin of qemu over whole runs (one thread), so the figures are exact and the same on every machine; what
it takes to start and to stop cancels out between runs on one and on several samples.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcomp
import qcomp.zoo
from qcomp.codegen.toolchain import find_compiler
from qcomp.compiler import Options
from qcomp.emulation import EmulatedModel
from qcomp.targets import target

MODELS = ("resnet8_32", "dscnn_49x10", "mobilenet_v2", "ppocr_rec")
TARGETS = ("aarch64", "aarch64-dotprod", "aarch64-i8mm")
MORE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Executed instructions for each multiply-accumulate, counted in qemu.")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help="cases of the zoo")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), metavar="NAME")
    arguments = parser.parse_args()
    table = Table(title="Executed instructions for each multiply-accumulate, whole network")
    for column in ("model", "MACs", *arguments.targets):
        table.add_column(column, justify="left" if column == "model" else "right")
    with tempfile.TemporaryDirectory() as name:
        counter = plugin(Path(name))
        for model in arguments.models:
            case = qcomp.zoo.load(model)
            cells, macs = [], 0
            for machine in arguments.targets:
                path = Path(name) / f"{model}-{machine}.so"
                levels = (machine,) if target(machine).carries else ()
                artifact = qcomp.compile(
                    case.onnx_path, shapes=case.shapes, target=machine, calibration=case.calibration_samples(16),
                    options=Options(levels=levels),
                )  # fmt: skip
                artifact.save(path)
                each, macs = per_product(path, counter, next(iter(case.feeds(1))))
                cells.append(f"{each:.3f}")
            table.add_row(model, f"{macs / 1e6:.1f} M", *cells)
    Console().print(table)


def plugin(folder: Path) -> Path:
    source = Path(__file__).with_name("instructions.c")
    built = folder / "instructions.so"
    command = [*find_compiler().command, "-shared", "-fPIC", "-O2", "-Wl,--allow-shlib-undefined", str(source)]
    subprocess.run([*command, "-o", str(built)], check=True, capture_output=True)
    return built


def per_product(path: Path, counter: Path, feed: Mapping[str, NDArray[Any]]) -> tuple[float, int]:
    """Executed instructions for each multiply-accumulate of an artifact, and how many of these it has."""
    model = EmulatedModel(path)
    macs = sum(step.macs for step in model.info.steps)
    few, many = (_count(model, counter, [feed] * samples) for samples in (1, 1 + MORE))
    return (many - few) / MORE / macs, macs


def _count(model: EmulatedModel, counter: Path, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> int:
    said = model.traced(["-plugin", str(counter), "-d", "plugin"], feeds)
    found = re.search(r"instructions: (\d+)", said)
    assert found is not None, said
    return int(found[1])


if __name__ == "__main__":
    main()
