"""The compiler keeps what the micro-kernels add up in registers, and makes of their loops what they are written for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from qcomp.codegen.c.arm.conv import Tile, tile_helper
from qcomp.codegen.c.arm.ending import Ending, Form, types_helper
from qcomp.codegen.c.arm.products import LANES, SDOT, SMLAL, SMMLA, Products
from qcomp.codegen.toolchain import KERNEL_FLAGS, find_compiler
from qcomp.targets import target

LEVELS = {SDOT: "aarch64-dotprod", SMMLA: "aarch64-i8mm", SMLAL: "aarch64"}
#: The instruction that adds products up, and how many products of a tap and a weight it adds.
SUMS = {SDOT: ("sdot", 16), SMMLA: ("smmla", 32), SMLAL: ("sadalp", 16)}
PLAIN = Ending("i8", -128, -128, 127).form(1.0)
TABLE = Ending("i8", 3, -128, 127, tuple(range(256))).form(1.0)


def tiles(products: Products, form: Form) -> list[Tile]:
    return [
        Tile(products, rows, LANES * vectors, True, 0, False, form)
        for vectors, most in enumerate(products.heights, 1) for rows in range(1, most + 1)
    ]  # fmt: skip


def assembly(wanted: list[Tile], folder: Path) -> dict[str, list[str]]:
    """Lines of each micro-kernel, which are made external so that they stay."""
    text = "\n".join([types_helper().text, *(tile_helper(tile).text for tile in wanted)])
    source = "#include <stdint.h>\n#include <stddef.h>\n" + text.replace("static __attribute__((noinline)) ", "")
    (folder / "tiles.c").write_text(source)
    compiler = find_compiler()
    flags = [*compiler.flags(target(LEVELS[wanted[0].products])), *KERNEL_FLAGS, "-S", "tiles.c", "-o", "tiles.s"]
    subprocess.run([*compiler.command, *flags], cwd=folder, check=True, capture_output=True)
    parts = re.split(r"^(qc_neon_\w+):", (folder / "tiles.s").read_text(), flags=re.MULTILINE)
    return {name: body.splitlines() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def product_loop(lines: list[str], name: str) -> list[str]:
    """Instructions of the innermost loop that has this one."""
    labels = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"(\.L\w+):", line))}
    jumps = [(m[1], i) for i, line in enumerate(lines) if (m := re.match(r"\s+b\.\w+\s+(\.L\w+)", line))]
    loops = [[x for x in lines[labels[to] : i + 1] if re.match(r"\s+[a-z]", x)] for to, i in jumps if labels[to] < i]
    return min((loop for loop in loops if any(name in line for line in loop)), key=len)


@pytest.mark.parametrize("products", LEVELS, ids=lambda p: p.name)
def test_product_loops_have_their_sums_and_no_spills(products: Products, tmp_path: Path) -> None:
    wanted = tiles(products, PLAIN)
    found = assembly(wanted, tmp_path)
    name, each = SUMS[products]
    for tile in wanted:
        loop = product_loop(found[tile.name], name)
        outputs = tile.channels * (tile.pixels + tile.pixels % 2 if products is SMMLA else tile.pixels)
        assert sum(name in line for line in loop) == outputs * products.loaded // each, tile.name
        assert not [line for line in loop if "[sp" in line], tile.name


@pytest.mark.parametrize(("products", "most"), [(SDOT, 0.079), (SMMLA, 0.0485), (SMLAL, 0.2165)], ids=lambda p: str(p))
def test_instructions_of_the_widest_tile(products: Products, most: float, tmp_path: Path) -> None:
    """Instructions for each product of a tap and a weight: 1/16, 1/32 and 3/16 at the least."""
    tile = tiles(products, PLAIN)[-1]
    loop = product_loop(assembly([tile], tmp_path)[tile.name], SUMS[products][0])
    assert len(loop) <= most * tile.pixels * tile.channels * products.loaded


@pytest.mark.parametrize("products", LEVELS, ids=lambda p: p.name)
def test_endings_store_whole_vectors_and_look_up_by_table_instructions(products: Products, tmp_path: Path) -> None:
    tile = tiles(products, TABLE)[-1]
    lines = assembly([tile], tmp_path)[tile.name]
    text = "\n".join(lines)
    assert not re.search(r"\b(ldrb|strb|st1)\b", text)
    assert len(re.findall(r"\bstr\tq\d+, \[x[0-9]", text)) == tile.pixels
    assert len(re.findall(r"\btb[lx]\b", text)) == 4 * tile.pixels
