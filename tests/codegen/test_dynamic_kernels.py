"""Quantization at run time: compiled code gives the bits of the interpreter, also for what is not finite."""

from __future__ import annotations

import numpy as np
import pytest
from codegen_harness import PORTABLE, Cases, check

from qcomp.codegen.c.table import kernel_table
from qcomp.ir import DType, Value
from qcomp.runtime.features import cpu_features
from qcomp.targets import target as target_named

TARGETS = ("x86_64", "generic")
VECTORS = ("x86_64-avx2", "x86_64-avxvnni", "x86_64-avx512vnni", "x86_64-avx512vbmi", "x86_64-amx")
RUNNABLE = [name for name in VECTORS if target_named(name).features <= cpu_features()]
SPECIAL = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-42, -0.0, 0.0, 5.0], np.float32)


def inputs(cases: Cases, shape: tuple[int, ...]) -> list[Value]:
    """Of a shape: random numbers, positive ones, zeros, denormals, and some that are not finite."""
    x = cases.data(shape)
    special = np.where(cases.rng.random(shape) < 0.3, cases.rng.choice(SPECIAL, shape), x)
    tiny = cases.rng.integers(-3, 200, shape) * np.float32(1e-45)
    arrays = (x, np.abs(x) + 1, np.zeros(shape), tiny, special, np.full(shape, np.nan), np.full(shape, -np.inf))
    return [cases.input(shape, data=a) for a in arrays]


@pytest.mark.parametrize("target", TARGETS)
def test_dynamic_quantize(target: str) -> None:
    cases = Cases(11)
    for shape in ((1,), (17,), (3, 1), (5, 15), (2, 3, 16), (4, 33), (1, 7, 64), (3, 130)):
        for x in inputs(cases, shape):
            for dtype in (DType.U8, DType.I8):
                for per_row in (False, True):
                    cases.op("dynamic_quantize", [x], dtype=dtype, per_row=per_row)
    check(cases, target)


def gemms(target: str) -> Cases:
    """Products of all kinds of rows with sizes around those of vectors."""
    cases = Cases(12)
    kinds = [(per_row, bias, zeros) for per_row in (0, 1) for bias in (0, 1) for zeros in (0, 1)]
    sizes = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 100)
    for index in range(48):
        per_row, bias, zeros = kinds[index % len(kinds)]
        depth, columns = (int(cases.rng.choice(sizes)) for _ in range(2))
        rows = ((), (1,), (5,), (2, 7), (13,), (29,))[index % 6]
        every = inputs(cases, (*rows, depth))
        x = every[0] if index % 3 else every[index % 7]
        q, scale, zero = cases.graph.add("dynamic_quantize", [x], {"dtype": DType.I8, "per_row": bool(per_row)}).outputs
        w = cases.rng.integers(-127, 128, (columns, depth)) if index % 4 else np.full((columns, depth), -127)
        w_scale = np.abs(cases.data((columns,))) * np.float32(0.01)
        operands: list[Value | None] = [
            q, scale, zero, cases.constant(np.int8(w)), cases.constant(w_scale),
            cases.constant(cases.data((columns,))) if bias else None,
            cases.constant(np.int8(cases.rng.integers(-128, 128, columns))) if zeros else None,
        ]  # fmt: skip
        cases.op("dynamic_qgemm", operands)
    return cases


@pytest.mark.parametrize("target", TARGETS)
def test_portable_products(target: str) -> None:
    check(gemms(target), target, PORTABLE)


@pytest.mark.parametrize("target", RUNNABLE)
def test_products_of_every_target(target: str) -> None:
    check(gemms(target), target, kernel_table(), threads=2)


def test_integers_of_the_graph_itself_are_multiplied_too() -> None:
    cases = Cases(13)
    x, zero = cases.input((5, 21), DType.I8), cases.input((5,), DType.I8)
    w, scales = cases.constant(cases.data((19, 21), DType.I8)), cases.constant(np.abs(cases.data((19,))))
    cases.op("dynamic_qgemm", [x, cases.input((5,)), zero, w, scales])
    check(cases, "x86_64", kernel_table())
