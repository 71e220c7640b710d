"""Kernels that TVM compiled give the interpreter's bits: generated graphs for every target that there are forms for,
every form and tiling, the awkward sizes included."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from amx_modelled import AMX
from amx_trapped import trapped, traps
from codegen_harness import Cases, differences
from emulators import emulated, wrong
from generated_graphs import Batch

from qcomp.codegen.backends import table_of
from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.tune.candidates import network
from qcomp.codegen.tune.file import Choice, Tuning
from qcomp.codegen.tvm.coverage import macs_share
from qcomp.codegen.tvm.tiling import parse_tiling
from qcomp.ir import DType, Graph, Value, run
from qcomp.runtime.features import cpu_features
from qcomp.runtime.loader import load
from qcomp.targets import target

pytest.importorskip("tvm", reason="needs the tvm extra")

VECTORS = target("x86_64-avx512vnni")
BATCH = 40
KINDS = [
    "conv", "gemm", "grouped", "depthwise", "residual", "consumers", "sum", "table", "average", "maximum", "planar",
]  # fmt: skip

x86 = pytest.mark.skipif(not VECTORS.features <= cpu_features(), reason="needs AVX512-VNNI")
arm = emulated("aarch64-dotprod")


def batch(number: int) -> Batch:
    return Batch([((7, number, i), KINDS, 1 + i % 4) for i in range(BATCH)])


@x86
@pytest.mark.parametrize(("number", "threads"), [(0, 1), (1, 2), (2, 1)])
def test_generated_graphs_by_vectors(number: int, threads: int) -> None:
    assert batch(number).wrong(VECTORS.name, threads, backend="tvm") == []


@x86
@pytest.mark.parametrize("number", [3, 4])
def test_generated_graphs_by_tiles(number: int) -> None:
    assert batch(number).wrong(AMX.name, 1, trapped, "tvm") == []


@arm
@pytest.mark.parametrize("number", [5, 6])
def test_generated_graphs_on_arm(number: int, tmp_path: Path) -> None:
    made = batch(number)
    package = generate(made.graph, target("aarch64-dotprod"), table=table_of("tvm"))
    assert wrong(made.graph, made.feeds, build_library(package, tmp_path / "m.so"), 1 + number % 2) == []


def product(cases: Cases, x: Value, outputs: int, kernel: tuple[int, int], groups: int = 1, **attrs: object) -> Value:
    rng = cases.rng
    arrays = (
        rng.integers(-128, 128, (outputs, *kernel, x.shape[3] // groups)).astype(np.int8),
        rng.integers(-3000, 3000, outputs).astype(np.int32), rng.uniform(0.0003, 0.004, outputs).astype(np.float32),
    )  # fmt: skip
    constants: list[Value | None] = [cases.constant(array) for array in arrays]
    return cases.op("qconv2d", [x, *constants], groups=groups, **{"x_zp": 3, "zp": -9, **attrs})


def channels(cases: Cases) -> None:
    """1, primes, vector widths and their neighbours; lines of all lengths up to two tiles of rows."""
    for index, count in enumerate((1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 97, 130)):
        x = cases.i8((1, 1 + index % 3, 2 * index + 1, (index * 7) % 23 + 1), 3)
        product(cases, x, count, (1, 1))
        product(cases, x, count, (1, 1), dtype=DType.F32)


def windows(cases: Cases) -> None:
    for index, kernel in enumerate(((3, 3), (1, 5), (5, 2), (7, 7), (3, 1), (2, 2))):
        x = cases.i8((1 + index % 2, 9, 11, (3, 16, 64, 5, 20, 4)[index]), 3)
        pads = (kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1] // 2)
        product(cases, x, 20, kernel, pads=pads)
        product(cases, x, 37, kernel, pads=(0, 1, 1, 0), strides=(2, 1 + index % 3))
        product(cases, x, 16, kernel, pads=pads, dilations=(1 + index % 2, 2))
        product(cases, x, x.shape[3] * 2, kernel, x.shape[3], pads=pads)


def depthwise(cases: Cases) -> None:
    for index, count in enumerate((1, 5, 16, 24, 63, 64, 65, 130)):
        x = cases.i8((1, 6, 9 + index, count), 3)
        for kernel in ((3, 3), (1, 1), (2, 5), (5, 7)):
            product(cases, x, count, kernel, count, pads=(1, 1, 1, 1), strides=(1, 1 + index % 2))
        product(cases, x, count, (3, 3), count, pads=(2, 2, 2, 2), dilations=(2, 2), lo=-9, hi=100)


def endings(cases: Cases) -> None:
    """Bounds, tables, residuals, the largest multipliers and biases."""
    table = cases.constant(cases.rng.integers(-128, 128, 256).astype(np.int8))
    for channels in (5, 32, 72):
        x, added = cases.i8((1, 7, 7, 24), -100), cases.i8((1, 7, 7, channels), 50)
        rng = cases.rng
        for mult, lo, hi in ((3e-3, -128, 127), (0.9, -5, 80), (1e3, -128, 127)):
            arrays = (
                rng.integers(-127, 128, (channels, 3, 3, 24)).astype(np.int8),
                rng.integers(-(2**28), 2**28, channels).astype(np.int32),
                np.full(channels, mult, np.float32),
            )
            constants: list[Value | None] = [cases.constant(array) for array in arrays]
            attrs = {"x_zp": -100, "zp": 127 if hi == 80 else -128, "lo": lo, "hi": hi, "pads": (1, 1, 1, 1)}
            cases.op("qconv2d", [x, *constants], **attrs)
            cases.op("qconv2d", [x, *constants, table], **attrs)
            factors = {"r_zp": 50, "r_mult": float(np.float32(0.7123))}
            cases.op("qconv2d", [x, *constants, None, added], **attrs, **factors)
            cases.op("qconv2d", [x, *constants, table, added], **attrs, **factors)


def others(cases: Cases) -> None:
    table = cases.constant(cases.rng.integers(-128, 128, 256).astype(np.int8))
    for shape in ((1, 9, 13, 24), (2, 8, 8, 7), (1, 7, 7, 64), (1, 3, 3, 1), (1, 5, 4, 97)):
        x, y = cases.i8(shape, 3), cases.i8(shape, -4)
        padded = {"strides": (2, 2), "pads": (1, 1, 1, 1)}
        cases.op("max_pool", [x], kernel=(3, 3), layout="NHWC", **padded)
        for ratio, lo, hi in ((1.3, -128, 127), (0.37, -20, 90), (700.0, -128, 127)):
            grid = {"x_zp": 3, "zp": 5, "ratio": ratio, "lo": lo, "hi": hi}
            cases.op("qavg_pool", [x], kernel=(2, 3), count_include_pad=lo == -20, **grid, **padded)
            cases.op("qavg_pool", [x], kernel=shape[1:3], **grid)
        for a, b in ((0.37, 0.81), (-1.5, 0.25), (30.1, 29.7)):
            terms = {"a_zp": 3, "b_zp": -4, "a_mult": float(np.float32(a)), "b_mult": float(np.float32(b))}
            cases.op("qadd", [x, y], **terms, zp=11)
            cases.op("qadd", [x, y, table], **terms, zp=-128, lo=-90, hi=100)
        cases.op("table", [x, table])


GROUPS: list[Callable[[Cases], None]] = [channels, windows, depthwise, endings, others]


def cases_of(group: Callable[[Cases], None]) -> Cases:
    cases = Cases(len(group.__name__))
    group(cases)
    return cases


def found_here(graph: Graph, feeds: dict[str, np.ndarray], package: SourcePackage, folder: Path) -> list[str]:
    with load(build_library(package, folder / "m.so"), threads=1 if package.target is AMX else 2) as model:
        return differences(run(graph, feeds), dict(model.run(feeds)))


@x86
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
@pytest.mark.parametrize("name", ["x86_64-avx512vnni", "x86_64-amx"])
def test_awkward_cases(name: str, group: Callable[[Cases], None], tmp_path: Path) -> None:
    cases = cases_of(group)
    package = generate(cases.graph, target(name), table=table_of("tvm"))
    assert group is others or macs_share(package.metadata["steps"]) == 1.0
    if name == AMX.name:
        package = trapped(package)
    assert found_here(cases.graph, cases.feeds, package, tmp_path) == []


@arm
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_awkward_cases_on_arm(group: Callable[[Cases], None], tmp_path: Path) -> None:
    cases = cases_of(group)
    package = generate(cases.graph, target("aarch64-dotprod"), table=table_of("tvm"))
    assert group is others or macs_share(package.metadata["steps"]) == 1.0
    assert wrong(cases.graph, cases.feeds, build_library(package, tmp_path / "m.so")) == []


def small() -> Cases:
    """A dense layer, one of rows of images, and a depthwise one."""
    cases = Cases(2)
    product(cases, cases.i8((1, 5, 19, 72), 3), 88, (1, 1))
    product(cases, cases.i8((1, 5, 19, 20), 3), 40, (3, 3), pads=(1, 1, 1, 1))
    product(cases, cases.i8((1, 5, 19, 80), 3), 80, (3, 3), 80, pads=(1, 1, 1, 1))
    return cases


@x86
@pytest.mark.parametrize("name", ["x86_64-avx512vnni", "x86_64-amx"])
def test_every_tiling_gives_the_same(name: str, tmp_path: Path) -> None:
    cases, machine, table = small(), target(name), table_of("tvm")
    layers = network(cases.graph, machine, table).layers
    from qcomp.codegen.tune.candidates import request_of

    spaces = [table.select(layer.step.node, machine).schedules(request_of(layer, machine)) for layer in layers]
    assert all(len(set(space)) == len(space) > 20 for space in spaces)
    forms = {parse_tiling(text).form.name for space in spaces for text in space if text}
    assert forms == {"vnni", "rows", "words"} | ({"amx"} if name == AMX.name else set())
    for turn in range(6):
        choices = {}
        for layer, space in zip(layers, spaces, strict=True):
            kernel = table.select(layer.step.node, machine).name
            choices[layer.name] = Choice(kernel, space[1 + (turn * 37 + len(space) // 3) % (len(space) - 1)], 1.0)
        package = generate(cases.graph, machine, table=table, tuning=Tuning(name, "", choices))
        assert package.tuned is not None and package.tuned.changed == 3
        assert found_here(cases.graph, cases.feeds, trapped(package) if name == AMX.name else package, tmp_path) == []


@x86
def test_products_are_by_the_instructions_they_shall_be_by() -> None:
    cases = small()
    for name, wanted, unwanted in (
        ("x86_64-avx512vnni", {"vpdpbusd"}, {"vfmadd", "tdpbusd", "vpmulld"}),
        ("x86_64-amx", {"tdpbusd", "tileloadd", "tilestored", "vpdpbusd"}, {"vfmadd"}),
        ("aarch64-dotprod", {"sdot"}, {"fmla", "smmla"}),
    ):
        package = generate(cases.graph, target(name), table=table_of("tvm"))
        text = "".join(content.decode() for file, content in package.files.items() if "_functions" in file)
        assert all(word in text for word in wanted), name
        assert not any(word in text for word in unwanted), name


def test_sums_of_products_are_not_fused() -> None:
    cases = Cases(3)
    x, y = cases.i8((1, 8, 8, 32)), cases.i8((1, 8, 8, 32))
    cases.op("qadd", [x, y], a_mult=0.5, b_mult=0.25)
    for name in ("x86_64-avx512vnni", "aarch64-dotprod"):
        package = generate(cases.graph, target(name), table=table_of("tvm"))
        text = "".join(content.decode() for file, content in package.files.items() if "_functions" in file)
        assert re.search(r"\tv?(mulps|fmul)\s", text) and not re.search(r"fmadd|fmla", text)


@x86
def test_tiles_ran(tmp_path: Path) -> None:
    """The traps, where there are any, saw every product."""
    library = traps()
    if library is None:
        pytest.skip("this machine has AMX")
    cases = Cases(4)
    product(cases, cases.i8((1, 1, 64, 64), 3), 64, (1, 1))
    package = generate(cases.graph, AMX, table=table_of("tvm"))
    before = library.amx_products(), library.amx_loads(), library.amx_stores()
    assert found_here(cases.graph, cases.feeds, trapped(package), tmp_path) == []
    after = library.amx_products(), library.amx_loads(), library.amx_stores()
    # 4 x 4 tiles of one step, in blocks of 2 x 2: each loads two tiles of either operand and stores four.
    assert [b - a for a, b in zip(before, after, strict=True)] == [16, 16, 16]
