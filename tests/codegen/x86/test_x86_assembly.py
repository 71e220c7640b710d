"""The compiler keeps every accumulator of the micro-kernels in a register: no stores to the stack in their loops."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from x86_harness import CPUS, INCLUDES, compiler

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.x86.conv import tile_helper
from qcomp.codegen.c.x86.depthwise import row_helper
from qcomp.codegen.c.x86.depthwise_lanes import segment_counts
from qcomp.codegen.c.x86.epilogue import Epilogue
from qcomp.codegen.c.x86.isa import AVX2, AVX2_PAIRS, ISAS, Isa
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


@pytest.mark.parametrize("register", ["ymm", "zmm"])
def test_the_check_sees_a_spill(register: str) -> None:
    lines = [
        ".LBB0_1:", f"\tvpdpbusd\t(%rax), %{register}1, %{register}2", f"\tvmovdqu\t%{register}2, 64(%rsp)",
        "\tjne\t.LBB0_1",
    ]  # fmt: skip
    (body,) = loops(lines)
    assert STACK_STORE.search(body[2])
