"""int16 activations: every kernel that reads or writes them gives the interpreter's integers, on every target."""

from __future__ import annotations

import numpy as np
import pytest
from codegen_harness import PORTABLE, Cases, check

from qcomp.codegen.c.kernel import KernelTable
from qcomp.ir import DType, Value

TARGETS = [
    ("x86_64", PORTABLE), ("generic", PORTABLE), ("x86_64-avx512vbmi", None), ("x86_64-avx512vnni", None),
    ("x86_64-avx2", None),
]  # fmt: skip
# channels of the input and the result of matrix products: one, primes, and around widths of vectors
DEPTHS = [(1, 1), (2, 7), (3, 16), (5, 17), (31, 33), (64, 64), (67, 130), (128, 15), (384, 48)]
RESULTS: list[dict[str, object]] = [
    {"dtype": DType.I16, "lo": -32768, "hi": 32767},
    {"dtype": DType.I16, "zp": -700, "lo": -20000, "hi": 31000},
    {"dtype": DType.F32},
    {},
    {"zp": 9, "lo": -100, "hi": 77},
]


def operands(cases: Cases, x: Value, shape: tuple[int, ...], result: dict[str, object]) -> list[Value | None]:
    """Weights, bias and multipliers under which results spread over their type."""
    wide = {DType.I16: 256.0, DType.F32: 1.0}.get(result.get("dtype"), 1.0)  # type: ignore[arg-type]
    wide /= 256.0 if x.dtype is DType.I16 else 1.0
    depth = int(np.prod(shape[1:]))
    mult = (cases.rng.uniform(0.3, 1.5, shape[0]) * wide / (75 * np.sqrt(depth))).astype(np.float32)
    weights = cases.rng.integers(-127, 128, shape).astype(np.int8)
    bias = cases.rng.integers(-30000, 30000, shape[0]).astype(np.int32)
    return [x, *(cases.constant(a) for a in (weights, bias, mult))]


def x_of(cases: Cases, shape: tuple[int, ...], wide: bool, zp: int = 0) -> Value:
    return cases.i16(shape, zp) if wide else cases.i8(shape, zp)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_matrix_products(target: str, table: KernelTable | None) -> None:
    cases = Cases(71)
    for index, (depth, outputs) in enumerate(DEPTHS):
        for rows in (1, 6, 37):
            for wide in (True, False):
                for shift, result in enumerate(RESULTS if rows == 6 else RESULTS[:2]):
                    zp = (0, 0, 300)[(index + shift) % 3] if wide else -5
                    x = x_of(cases, (rows, depth), wide, zp)
                    cases.op("qgemm", operands(cases, x, (outputs, depth), result), x_zp=zp, **result)
    x = cases.i16((3, 16))
    through = cases.constant(cases.rng.integers(-128, 128, 256).astype(np.int8))
    cases.op("qgemm", [*operands(cases, x, (20, 16), {}), through])
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_convolutions(target: str, table: KernelTable | None) -> None:
    cases = Cases(72)
    shapes = [(1, 1, 1), (1, 3, 17), (1, 16, 16), (1, 5, 33), (2, 3, 4), (8, 1, 1), (19, 1, 1), (4, 8, 5)]
    for index, (groups, inner, outer) in enumerate(shapes):
        for kernel, attrs in (
            ((1, 1), {}),
            ((3, 3), {"pads": (1, 1, 1, 1)}),
            ((3, 2), {"strides": (2, 1), "pads": (0, 1, 2, 0)}),
            ((2, 3), {"dilations": (1, 2), "pads": (0, 2, 1, 2)}),
        ):
            for wide, result in ((True, RESULTS[index % 5]), (True, RESULTS[(index + 3) % 5]), (False, RESULTS[0])):
                zp = (0, -77)[index % 2] if wide else 3
                x = x_of(cases, (2, 7, 9, groups * inner), wide, zp)
                product = operands(cases, x, (groups * outer, *kernel, inner), result)
                cases.op("qconv2d", product, groups=groups, x_zp=zp, **attrs, **result)
        x = cases.i16((1, 4, 5, inner), 11)
        product = operands(cases, x, (outer, 3, 2, inner), RESULTS[1])
        cases.op("qconv_transpose2d", product, strides=(2, 2), x_zp=11, **RESULTS[1])
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_sums_and_changes_of_grid(target: str, table: KernelTable | None) -> None:
    cases = Cases(73)
    sizes = ((1,), (15,), (16,), (3, 5, 7), (2, 9, 4, 33), (130, 67))
    for index, shape in enumerate(sizes):
        for a_wide, b_wide in ((True, True), (True, False), (False, True), (False, False)):
            for result in RESULTS[:2] + RESULTS[3:]:
                a_zp, b_zp = (index * 7, -4) if not a_wide else (-1000 * index, 90 * index)
                finer = 256.0 if result.get("dtype") is DType.I16 else 1.0
                mults = {
                    f"{n}_mult": float(np.float32(cases.rng.uniform(-1.4, 1.4) * finer / (256.0 if wide else 1.0)))
                    for n, wide in (("a", a_wide), ("b", b_wide))
                }
                a, b = x_of(cases, shape, a_wide, a_zp), x_of(cases, shape, b_wide, b_zp if b_wide else 5)
                zeros = {"a_zp": a_zp, "b_zp": b_zp}
                cases.op("qadd", [a, b], **zeros, **mults, **result)
                cases.op("rescale", [a], x_zp=a_zp, mult=mults["a_mult"], **result)
        low = cases.constant(cases.rng.integers(-32768, 32768, shape).astype(np.int16))
        byte = cases.constant(cases.rng.integers(-128, 128, shape).astype(np.int8))
        for fixed, factor in ((low, 0.5), (byte, 200.0)):
            cases.op("qadd", [fixed, cases.i16(shape)], a_mult=factor, b_mult=0.75, a_zp=3, **RESULTS[0])
    row = cases.i16((5,))
    cases.op("qadd", [cases.i16((2, 3, 5)), row], a_mult=0.5, b_mult=0.25, **RESULTS[1])
    cases.op("rescale", [row], mult=float(np.float32(3e38)), **RESULTS[0])
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_rows_are_normalized(target: str, table: KernelTable | None) -> None:
    cases = Cases(74)
    for length in (1, 15, 16, 31, 32, 33, 67, 384, 1000):
        for index, result in enumerate(RESULTS):
            finer = {DType.I16: 5000.0, DType.F32: 1.0}.get(result.get("dtype"), 40.0)  # type: ignore[arg-type]
            sides = [cases.constant((cases.rng.normal(size=length) * finer).astype(np.float32)) for _ in range(2)]
            flat = cases.input((), DType.I16, np.full((2, length), -32768))
            for x in (cases.i16((2, 3, length)), cases.i8((5, length), 4), flat):
                cases.op("qlayer_norm", [x, *sides], epsilon=(0.0, 7.5)[index % 2], **result)
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_what_a_convolution_pads_may_come_from_any_of_them(target: str, table: KernelTable | None) -> None:
    cases = Cases(76)
    for channels in (5, 16, 33):
        x = cases.i16((2, 4, 5, channels))
        sides = [cases.constant((cases.rng.normal(size=channels) * 5000).astype(np.float32)) for _ in range(2)]
        made = [
            cases.op("qlayer_norm", [x, *sides], epsilon=7.5, **RESULTS[0]),
            cases.op("qadd", [x, x], a_mult=0.5, b_mult=0.25, **RESULTS[0]),
            cases.op("rescale", [cases.i8((2, 4, 5, channels))], mult=128.0, **RESULTS[0]),
        ]
        cases.graph.outputs = [v for v in cases.graph.outputs if v not in made]  # so that they carry the padding
        for y in made:
            product = operands(cases, y, (7, 3, 3, channels), RESULTS[0])
            cases.op("qconv2d", product, pads=(1, 1, 1, 1), **RESULTS[0])
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_joint_products_and_softmax_end_in_int16(target: str, table: KernelTable | None) -> None:
    cases = Cases(75)
    for result in RESULTS[:2]:
        cases.op("qmatmul", [cases.i8((2, 5, 19), 3), cases.i8((2, 19, 17), -4)], a_zp=3, b_zp=-4, mult=0.5, **result)
        q, k, v = cases.i8((1, 7, 2, 16)), cases.i8((1, 9, 2, 16)), cases.i8((1, 9, 2, 11))
        cases.op("qattention", [q, k, v], scale=float(np.float32(1e-4)), mult=200.0, **result)
        table_of = cases.constant(np.linspace(65535, 0, 256).astype(np.uint16))
        cases.op("qsoftmax", [cases.i8((3, 21)), table_of], mult=65536.0, **result)
    check(cases, target, table, threads=2)
