"""The compiler keeps every accumulator of the micro-kernels in a register: no stores to the stack in their loops."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from x86_harness import CPUS, INCLUDES, TILE_CPUS, compiler

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.vector.shapes import ConvShape, Plane, Requantization
from qcomp.codegen.c.x86.amx import amx_code, products_helper, rows_helper
from qcomp.codegen.c.x86.amx_tiling import ACCUMULATORS
from qcomp.codegen.c.x86.attention import scores_helper, values_helper
from qcomp.codegen.c.x86.conv import tile_helper
from qcomp.codegen.c.x86.depthwise import row_helper
from qcomp.codegen.c.x86.depthwise_lanes import segment_counts
from qcomp.codegen.c.x86.epilogue import Epilogue, types_helper
from qcomp.codegen.c.x86.isa import AVX2, AVX2_PAIRS, AVX512_VBMI, ISAS, Isa
from qcomp.codegen.c.x86.render import merge_helpers

LABEL = re.compile(r"^(\.L\w+):")
JUMP = re.compile(r"^\s*j\w+\s+(\.L\w+)")
STACK_STORE = re.compile(r"vmov\w+\s+%[yz]mm\d+,\s*-?\w*\(%r[sb]p")
PRODUCTS = ("vpdpbusd", "vpmaddwd")
KINDS: list[dict[str, object]] = [
    {"short": True}, {"guard": True, "table": True, "masked": True}, {"kind": "f32", "short": True},
    {"short": True, "fused": True, "clamped": False, "joined": True},
    {"short": True, "fused": True, "residual": "fused"},
]  # fmt: skip
ASSEMBLED = pytest.mark.parametrize("isa", [*ISAS, AVX2_PAIRS], ids=lambda i: i.name + i.variant + "_vbmi" * i.vbmi)
DEPTHWISE = [(3, 3, 1), (3, 3, 2), (5, 5, 1), (5, 5, 2), (1, 3, 1), (7, 3, 1), (1, 5, 1), (5, 3, 1)]


def assembly(helpers: tuple[CFunction, ...], isa: Isa, folder: Path) -> dict[str, list[str]]:
    """Lines of each function; the functions are made external so that unused ones stay."""
    text = "\n".join(h.text for h in helpers).replace("static __attribute__((noinline))", "__attribute__((noinline))")
    source, output = folder / "kernels.c", folder / "kernels.s"
    source.write_text(INCLUDES + text)
    cpu = CPUS[AVX2 if isa is AVX2_PAIRS else isa]
    compiler(cpu, "-S", "-Wno-unused-command-line-argument", str(source), "-o", str(output))
    functions: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.read_text().splitlines():
        if match := re.match(r"^(qc_\w+):", line):
            current = functions.setdefault(match[1], [])
        current.append(line)
    return functions


def products(line: str) -> bool:
    return any(name in line for name in PRODUCTS)


def loops(lines: list[str]) -> list[list[str]]:
    """Bodies of loops (label to backward jump), innermost only, that multiply."""
    labels = {m[1]: i for i, line in enumerate(lines) if (m := LABEL.match(line))}
    spans = [(labels[m[1]], i) for i, line in enumerate(lines) if (m := JUMP.match(line)) and labels.get(m[1], i) < i]
    inner = [s for s in spans if not any(t != s and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    bodies = [lines[a : b + 1] for a, b in inner]
    return [body for body in bodies if any(products(line) for line in body)]


@ASSEMBLED
@pytest.mark.parametrize("kind", KINDS)
def test_no_tile_spills_in_its_product_loop(isa: Isa, kind: dict[str, object], tmp_path: Path) -> None:
    sizes = [(rows, vectors) for vectors in isa.dot.widths for rows in isa.dot.rows(vectors)]
    tiles = {size: tile_helper(*size, Epilogue(isa, **kind)) for size in sizes}  # type: ignore[arg-type]
    functions = assembly(merge_helpers(*tiles.values()), isa, tmp_path)
    for (rows, vectors), helpers in tiles.items():
        found = loops(functions[helpers[-1].name])
        assert found, (rows, vectors)
        for body in found:
            assert sum(map(products, body)) % (rows * vectors) == 0, (rows, vectors)
            assert not [line for line in body if STACK_STORE.search(line)], (rows, vectors)


@ASSEMBLED
def test_no_tile_of_shared_columns_spills_in_its_product_loop(isa: Isa, tmp_path: Path) -> None:
    kind = Epilogue(isa, short=True, fused=True, residual="fused")
    tiles = {(rows, n): tile_helper(rows, 1, kind, n) for n in isa.dot.shares for rows in isa.dot.rows(1)}
    functions = assembly(merge_helpers(*tiles.values()), isa, tmp_path) if tiles else {}
    for (rows, columns), helpers in tiles.items():
        (body,) = loops(functions[helpers[-1].name])
        assert sum(map(products, body)) % (rows * columns) == 0, (rows, columns)
        assert not [line for line in body if STACK_STORE.search(line)], (rows, columns)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name + "_vbmi" * i.vbmi)
def test_no_product_of_attention_spills_in_its_loop(isa: Isa, tmp_path: Path) -> None:
    sizes = [(rows, vectors) for vectors in (1, 2) for rows in isa.dot.rows(2) if rows <= 8]
    made = {f"{h[-1].name}": (h, rows * vectors) for rows, vectors in sizes for h in
            (scores_helper(isa, rows, vectors, True), values_helper(isa, rows, vectors, False))}  # fmt: skip
    functions = assembly(merge_helpers(*(helpers for helpers, _ in made.values())), isa, tmp_path)
    for name, (_, accumulators) in made.items():
        found = loops(functions[name])
        assert found, name
        for body in found:
            assert sum(map(products, body)) % accumulators == 0, name
            assert not [line for line in body if STACK_STORE.search(line)], name


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name + "_vbmi" * i.vbmi)
def test_no_depthwise_row_spills_in_its_loop(isa: Isa, tmp_path: Path) -> None:
    # A lookup in a table needs most registers, unless two instructions do it (VBMI).
    kinds = [Epilogue(isa, short=True), Epilogue(isa, guard=True), Epilogue(isa, table=isa.vbmi),
             Epilogue(isa, short=True, fused=True, clamped=False)]  # fmt: skip
    # With sixteen registers and taps of 16 bits, the accumulators of 5x5 and the bounds of a guard are too many.
    tight = isa.taps == 2
    every = [(shape, k, n) for shape in DEPTHWISE if not (tight and shape[:2] == (5, 5)) for k in kinds
             if not (tight and k.guard) for n in segment_counts(isa)]  # fmt: skip
    rows = [row_helper(*shape, segments, kind) for shape, kind, segments in every]
    functions = assembly(merge_helpers(*rows), isa, tmp_path)
    for name in (helpers[-1].name for helpers in rows):
        found = loops(functions[name])
        assert found, name
        assert not [line for body in found for line in body if STACK_STORE.search(line)], name


TILE_BLOCKS = [(pixels, vectors) for pixels in range(1, 5) for vectors in range(1, ACCUMULATORS // pixels + 1)]


def tile_assembly(text: str, folder: Path) -> dict[str, list[str]]:
    """As `assembly`, of C that multiplies tiles."""
    source, output = folder / "tiles.c", folder / "tiles.s"
    source.write_text(INCLUDES + text.replace("static __attribute__((noinline))", "__attribute__((noinline))"))
    compiler(*TILE_CPUS["machine"], "-S", "-Wno-unused-command-line-argument", str(source), "-o", str(output))
    functions: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.read_text().splitlines():
        if match := re.match(r"^(qc_\w+|layer\w*):", line):
            current = functions.setdefault(match[1], [])
        current.append(line)
    return functions


def all_loops(lines: list[str]) -> list[list[str]]:
    """Bodies of loops, whether innermost or not."""
    labels = {m[1]: i for i, line in enumerate(lines) if (m := LABEL.match(line))}
    spans = [(labels[m[1]], i) for i, line in enumerate(lines) if (m := JUMP.match(line)) and labels.get(m[1], i) < i]
    return [lines[a : b + 1] for a, b in spans]


def test_tile_products_touch_no_memory_but_their_operands(tmp_path: Path) -> None:
    helpers = {block: products_helper(*block) for block in TILE_BLOCKS}
    texts = [types_helper(AVX512_VBMI).text, *(helper.text for helper in helpers.values())]
    functions = tile_assembly("\n".join(texts), tmp_path)
    for (pixels, vectors), helper in helpers.items():
        lines = functions[helper.name]
        assert sum("tdpbusd" in line for line in lines) % (pixels * vectors) == 0
        found = [body for body in all_loops(lines) if any("tdpbusd" in line for line in body)]
        assert found, helper.name
        for body in found:
            assert not [line for line in body if "tilestored" in line or "ldtilecfg" in line]
            assert not [line for line in body if STACK_STORE.search(line)]
        # Each tile of sums is loaded once, from the bias, and stays where it is.
        sums = [re.search(r"tileloadd.*%tmm([0-3])", line) for line in lines]
        assert [int(m[1]) for m in sums if m] == list(range(pixels * vectors))


def test_tiles_are_configured_once_outside_of_all_loops(tmp_path: Path) -> None:
    shape = ConvShape(Plane(1, 28, 28, 96, (1, 1, 1, 1)), Plane(1, 28, 28, 80), (3, 3), pads=(1, 1, 1, 1))
    weights, ones = np.ones((80, 3, 3, 96), np.int8), np.ones(80, np.float32)
    code = amx_code(shape, weights, np.zeros(80, np.int32), ones, Requantization(3), AVX512_VBMI, "layer")
    text = "\n".join(helper.text for helper in code.helpers) + code.text.replace("static QC_X86_SMALL", "QC_X86_SMALL")
    lines = tile_assembly(text, tmp_path)["layer"]
    assert [sum(name in line for line in lines) for name in ("ldtilecfg", "tilerelease")] == [1, 1]
    loops_of_blocks = [body for body in all_loops(lines) if any("tilestored" in line for line in body)]
    assert loops_of_blocks
    assert not [line for body in loops_of_blocks for line in body if "ldtilecfg" in line or "tilerelease" in line]


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_the_epilogue_of_tiles_keeps_what_pixels_share_in_registers(vectors: int, tmp_path: Path) -> None:
    kinds = [Epilogue(AVX512_VBMI), Epilogue(AVX512_VBMI, guard=True, table=True, masked=True)]
    helpers = [rows_helper(vectors, kind) for kind in kinds]
    shared = merge_helpers(*(kind.helpers for kind in kinds))
    functions = tile_assembly("\n".join(h.text for h in (*shared, *helpers)), tmp_path)
    for helper in helpers:
        bodies = [body for body in all_loops(functions[helper.name]) if any("vcvtdq2ps" in line for line in body)]
        assert bodies
        for body in bodies:
            assert not [line for line in body if STACK_STORE.search(line) or "vpbroadcast" in line]


@pytest.mark.parametrize("register", ["ymm", "zmm"])
def test_the_check_sees_a_spill(register: str) -> None:
    lines = [
        ".LBB0_1:", f"\tvpdpbusd\t(%rax), %{register}1, %{register}2", f"\tvmovdqu\t%{register}2, 64(%rsp)",
        "\tjne\t.LBB0_1",
    ]  # fmt: skip
    (body,) = loops(lines)
    assert STACK_STORE.search(body[2])
