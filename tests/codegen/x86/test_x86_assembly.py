"""The compiler keeps every accumulator of the micro-kernels in a register: no stores to the stack in their loops."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from x86_harness import CPU, INCLUDES, compiler

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.x86.conv import tile_helper
from qcomp.codegen.c.x86.depthwise import row_helper
from qcomp.codegen.c.x86.epilogue import Epilogue
from qcomp.codegen.c.x86.render import merge_helpers
from qcomp.codegen.c.x86.tiling import ROWS

LABEL = re.compile(r"^(\.L\w+):")
JUMP = re.compile(r"^\s*j\w+\s+(\.L\w+)")
STACK_STORE = re.compile(r"vmov\w+\s+%zmm\d+,\s*-?\w*\(%r[sb]p")
GEMM = [(rows, vectors) for vectors, heights in ROWS.items() for rows in heights]
KINDS = [Epilogue(), Epilogue(guard=True, table=True, vbmi=True, masked=True), Epilogue(kind="f32")]
DEPTHWISE = [(3, 3, 1), (3, 3, 2), (5, 5, 1), (5, 5, 2), (1, 3, 1), (7, 3, 1), (1, 5, 1), (5, 3, 1)]


def assembly(helpers: tuple[CFunction, ...], folder: Path) -> dict[str, list[str]]:
    """Lines of each function; the functions are made external so that unused ones stay."""
    text = "\n".join(h.text for h in helpers).replace("static __attribute__((noinline))", "__attribute__((noinline))")
    source, output = folder / "kernels.c", folder / "kernels.s"
    source.write_text(INCLUDES + text)
    compiler(f"{CPU}+avx512vbmi", "-S", "-Wno-unused-command-line-argument", str(source), "-o", str(output))
    functions: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.read_text().splitlines():
        if match := re.match(r"^(qc_\w+):", line):
            current = functions.setdefault(match[1], [])
        current.append(line)
    return functions


def loops(lines: list[str]) -> list[list[str]]:
    """Bodies of loops (label to backward jump), innermost only, that multiply."""
    labels = {m[1]: i for i, line in enumerate(lines) if (m := LABEL.match(line))}
    spans = [(labels[m[1]], i) for i, line in enumerate(lines) if (m := JUMP.match(line)) and labels.get(m[1], i) < i]
    inner = [s for s in spans if not any(t != s and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    bodies = [lines[a : b + 1] for a, b in inner]
    return [body for body in bodies if any("vpdpbusd" in line for line in body)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_tile_spills_in_its_product_loop(kind: Epilogue, tmp_path: Path) -> None:
    tiles = {tile: tile_helper(*tile, kind) for tile in GEMM}
    functions = assembly(merge_helpers(*tiles.values()), tmp_path)
    for (rows, vectors), helpers in tiles.items():
        found = loops(functions[helpers[-1].name])
        assert found, (rows, vectors)
        for body in found:
            assert sum("vpdpbusd" in line for line in body) % (rows * vectors) == 0, (rows, vectors)
            assert not [line for line in body if STACK_STORE.search(line)], (rows, vectors)


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_no_depthwise_row_spills_in_its_loop(segments: int, tmp_path: Path) -> None:
    kinds = [Epilogue(), Epilogue(guard=True), Epilogue(table=True, vbmi=True)]
    rows = {(*shape, k.suffix): row_helper(*shape, segments, k) for shape in DEPTHWISE for k in kinds}
    functions = assembly(merge_helpers(*rows.values()), tmp_path)
    for name in (helpers[-1].name for helpers in rows.values()):
        found = loops(functions[name])
        assert found, name
        assert not [line for body in found for line in body if STACK_STORE.search(line)], name


def test_the_check_sees_a_spill() -> None:
    lines = [".LBB0_1:", "\tvpdpbusd\t(%rax), %zmm1, %zmm2", "\tvmovdqu64\t%zmm2, 64(%rsp)", "\tjne\t.LBB0_1"]
    (body,) = loops(lines)
    assert STACK_STORE.search(body[2])
