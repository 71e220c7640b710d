"""Cycles of the ARM micro-kernels' inner loops by llvm-mca's models of CPUs: `python benchmarks/arm_mca.py`.

Compiles the micro-kernels as `qcomp compile` does, and asks llvm-mca about two regions of each: the loop over taps, and
its multiplications alone, which is what the CPU's units could do at best.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qcomp.codegen.c.arm.conv import Tile, tile_helper
from qcomp.codegen.c.arm.ending import Ending, types_helper
from qcomp.codegen.c.arm.products import LANES, SDOT, SMLAL, SMMLA, Products
from qcomp.codegen.toolchain import KERNEL_FLAGS, find_compiler
from qcomp.targets import target

CPUS = ("cortex-a55", "cortex-a76", "neoverse-n1", "neoverse-v1")
ITERATIONS = 200
_BACK = re.compile(r"\s+b\.\w+\s+(\.L\w+)")


@dataclass(frozen=True)
class Form:
    """A form of products: the target it is compiled for, its multiplications, the CPUs that lack them."""

    products: Products
    target: str
    multiplies: str
    lacking: tuple[str, ...] = ()


FORMS = (
    Form(SDOT, "aarch64-dotprod", r"sdot"),
    Form(SMMLA, "aarch64-i8mm", r"smmla", ("cortex-a55", "cortex-a76", "neoverse-n1")),
    Form(SMLAL, "aarch64", r"smull2?|smlal2?|sadalp"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cycles of the ARM micro-kernels' inner loops, by llvm-mca.")
    parser.add_argument("--cpus", nargs="+", default=list(CPUS), metavar="NAME", help="as llvm-mca's -mcpu")
    parser.add_argument("--all", action="store_true", help="tiles of any height, not the highest alone")
    parser.add_argument("--llvm-mca", default="llvm-mca", metavar="PROGRAM", help="the program to ask, as llvm-mca-19")
    arguments = parser.parse_args()
    program = shutil.which(arguments.llvm_mca)
    if program is None:
        sys.exit(f"{arguments.llvm_mca} is not there: install it (Debian: apt install llvm-19)")
    table = Table(title="Cycles of an iteration / of its multiplications alone")
    for column in ("micro-kernel", "products", *arguments.cpus):
        table.add_column(column, justify="left" if column == "micro-kernel" else "right")
    for form in FORMS:
        for tile in _tiles(form.products, arguments.all):
            loop = _loop(form, tile)
            alone = [line for line in loop if re.match(rf"\s+({form.multiplies})\s", line)]
            cells = [
                "-" if cpu in form.lacking else _cell(loop, alone, [program, f"-mcpu={cpu}"])
                for cpu in arguments.cpus
            ]
            products = tile.pixels * tile.channels * tile.products.loaded
            table.add_row(f"{form.products.name} {tile.pixels}x{tile.channels}", str(products), *cells)
    Console().print(table)


def _tiles(products: Products, every: bool) -> list[Tile]:
    form = Ending("i8", -128, -128, 127).form(1.0)
    return [
        Tile(products, pixels, LANES * vectors, True, 0, False, form)
        for vectors, most in enumerate(products.heights, 1) for pixels in range(1 if every else most, most + 1)
    ]  # fmt: skip


def _loop(form: Form, tile: Tile) -> list[str]:
    """Instructions of the tile's loop over taps, without the jump."""
    text = "#include <stdint.h>\n#include <stddef.h>\n" + types_helper().text + "\n" + tile_helper(tile).text
    compiler = find_compiler()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tile.c").write_text(text.replace("static __attribute__((noinline)) ", ""))
        flags = [*compiler.flags(target(form.target)), *KERNEL_FLAGS, "-S", "tile.c", "-o", "tile.s"]
        subprocess.run([*compiler.command, *flags], cwd=folder, check=True, capture_output=True)
        lines = (folder / "tile.s").read_text().splitlines()
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if line.startswith(".L")}
    spans = [(labels[m[1]], i) for i, line in enumerate(lines) if (m := _BACK.match(line)) and labels[m[1]] < i]
    first, last = min(spans, key=lambda span: span[1] - span[0])
    return [line.split("//")[0] for line in lines[first:last] if re.match(r"\s+[a-z]", line)]


def _cell(loop: list[str], alone: list[str], command: list[str]) -> str:
    whole, best = _cycles(loop, command), _cycles(alone, command)
    return f"{whole:.1f} / {best:.1f} = {whole / best:.2f}"


def _cycles(lines: list[str], command: list[str]) -> float:
    """Cycles of an iteration."""
    options = ["-mtriple=aarch64", "-mattr=+dotprod,+i8mm", f"-iterations={ITERATIONS}"]
    done = subprocess.run([*command, *options], input="\n".join(lines), capture_output=True, text=True, check=True)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert found is not None, done.stdout
    return int(found[1]) / ITERATIONS


if __name__ == "__main__":
    main()
