"""Attention, products of two computed tensors, integer softmax and layer norm: the interpreter's bits, compiled."""

from __future__ import annotations

import re

import numpy as np
import pytest
from codegen_harness import PORTABLE, Cases, check

from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.kernel import KernelTable
from qcomp.ir import DType
from qcomp.ir.ops.qnormalize import exponentials
from qcomp.targets import target as target_named

TARGETS = [("x86_64", PORTABLE), ("generic", PORTABLE), ("x86_64-avx512vnni", None), ("x86_64-avx2", None)]
# batch, heads, queries, keys, features, features of the result
ATTENTION = [
    (1, 12, 17, 17, 32, 32), (2, 3, 1, 40, 15, 15), (1, 1, 33, 1, 1, 7), (1, 2, 5, 65, 64, 16), (1, 8, 40, 40, 15, 15),
]  # fmt: skip
ZEROS = ((-7, 11, 3), (0, 0, 0), (127, -128, -128))
MATRICES = [
    ((3, 5), (5, 16)), ((2, 4, 7, 33), (2, 4, 33, 19)), ((4, 1, 3), (4, 3, 1)), ((2, 1, 5, 8), (3, 8, 65)),
    ((1, 64), (64, 1)),
]  # fmt: skip
RESULTS = [{}, {"zp": -20, "lo": -100, "hi": 90}, {"dtype": DType.F32}, {"zp": 127}, {"zp": 5}]


def float32(value: float) -> float:
    return float(np.float32(value))


@pytest.mark.parametrize(("target", "table"), TARGETS)
@pytest.mark.parametrize("form", ["none", "keys", "full"])
def test_attention(target: str, table: KernelTable | None, form: str) -> None:
    cases = Cases(61)
    for index, ((batch, heads, rows, keys, depth, width), result) in enumerate(zip(ATTENTION, RESULTS, strict=True)):
        zeros = {f"{n}_zp": zp for n, zp in zip("qkv", ZEROS[index % 3], strict=True)}
        operands = [
            cases.i8((batch, rows, heads, depth), zeros["q_zp"]),
            cases.i8((batch, keys, heads, depth), zeros["k_zp"]),
            cases.i8((batch, keys, heads, width), zeros["v_zp"]),
        ]
        if form != "none":
            shape = (batch, 1, 1, keys) if form == "keys" else (1, heads, rows, keys)
            mask = cases.data(shape, spread=1.0)
            mask[np.random.default_rng(5).random(shape) < 0.3] = -10000.0
            if form == "full":
                mask[0, 0, 0] = -np.inf  # a query that sees nothing
                mask[0, heads - 1, rows - 1, 0] = np.nan
            operands.append(cases.input((), data=mask))
        for scale in (2e-5 / np.sqrt(depth), 2e-3 / np.sqrt(depth)):
            cases.op("qattention", operands, **zeros, scale=float32(scale), mult=float32(0.9), **result)
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
@pytest.mark.parametrize("keys", [8192, 8193, 20_000])
def test_attention_over_thousands_of_keys(target: str, table: KernelTable | None, keys: int) -> None:
    cases = Cases(65)
    operands = [cases.i8((1, rows, 2, depth), zp) for rows, depth, zp in ((2, 3, 4), (keys, 3, -9), (keys, 5, 0))]
    mask = cases.input((), data=np.where(np.arange(keys) % 5, 0.0, -np.inf).astype(np.float32).reshape(1, 1, 1, keys))
    for of in (operands, [*operands, mask]):
        cases.op("qattention", of, q_zp=4, k_zp=-9, scale=float32(3e-4), mult=float32(20.0))
    check(cases, target, table)


def test_portable_attention_keeps_few_scores_on_the_stack() -> None:
    cases = Cases(66)
    operands = [cases.i8((1, rows, 1, 4), 0) for rows in (1, 30_000, 30_000)]
    cases.op("qattention", operands, scale=float32(1e-3), mult=1.0)
    for name, most in (("generic", 32 * 1024), ("cortex-m4", 512)):
        files = generate(cases.graph, target_named(name), table=PORTABLE).files
        text = b"".join(files.values()).decode(errors="ignore")
        (kept,) = re.findall(r"float score\[(\d+)\]", text)
        assert int(kept) * 4 <= most


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_products_of_two_tensors(target: str, table: KernelTable | None) -> None:
    cases = Cases(62)
    for (left, right), result in zip(MATRICES, RESULTS, strict=True):
        for a_zp, b_zp in ((0, 0), (-128, 127), (9, -31)):
            mult = float32(0.3 / np.sqrt(left[-1]) / 80)
            operands = [cases.i8(left, a_zp), cases.i8(right, b_zp)]
            cases.op("qmatmul", operands, a_zp=a_zp, b_zp=b_zp, mult=mult, **result)
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_rows_are_normalized(target: str, table: KernelTable | None) -> None:
    cases = Cases(63)
    rng = np.random.default_rng(64)
    for length, result in zip((1, 16, 17, 127, 384), RESULTS, strict=True):
        x = cases.i8((2, 3, length), 0)
        table_of = cases.constant(exponentials(0.07))
        cases.op("qsoftmax", [x, table_of], mult=1.0 if "dtype" in result else 256.0, **result)
        sides = [cases.constant((rng.normal(size=length) * 30).astype(np.float32)) for _ in range(2)]
        wide = cases.input((), DType.I16, rng.integers(-32768, 32768, (4, length)))
        flat = cases.input((), DType.I16, np.full((2, length), 32767))
        for rows in (x, wide, flat):
            for epsilon in (0.0, 7.5):
                cases.op("qlayer_norm", [rows, *sides], epsilon=epsilon, **result)
    check(cases, target, table, threads=2)
