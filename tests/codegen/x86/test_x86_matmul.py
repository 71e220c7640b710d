"""Products of two computed tensors give the interpreter's integers: ragged sizes, broadcast batches, extreme values."""

from __future__ import annotations

import numpy as np
import pytest
from test_x86_attention import check_all
from test_x86_kernels import EXTRA, TABLE, VBMI
from x86_harness import every_isa

from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.plan.buffer import NO_HALO, Halo
from qcomp.ir import DType, Graph, Node, TensorType

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130)
BATCHES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), (3,)), ((1, 4), (2, 1)), ((), (2,)),
]  # fmt: skip


def product(a: tuple[int, ...], b: tuple[int, ...], seed: int, real: bool = False) -> Node:
    rng, graph = np.random.default_rng(seed), Graph()
    operands = [graph.input(n, TensorType(DType.I8, s)) for n, s in (("a", a), ("b", b))]
    low, high = (-128, 127) if seed % 2 else (-77, 101)
    mult = float(np.float32(rng.uniform(0.5, 40) / (5000 * np.sqrt(a[-1]))))
    zeros = {"a_zp": int(rng.integers(-128, 128)), "b_zp": int(rng.integers(-128, 128)) * (seed % 3 > 0)}
    attrs = {**zeros, "mult": mult, "zp": int(rng.integers(-30, 30)), "lo": low, "hi": high,
             "dtype": DType.F32 if real else DType.I8}  # fmt: skip
    return graph.add("qmatmul", operands, attrs)


@every_isa
@pytest.mark.parametrize("extra", [NO_HALO, EXTRA], ids=["dense", "halo"])
def test_ragged_sizes_and_broadcast_batches(isa: Isa, extra: Halo) -> None:
    rng, cases = np.random.default_rng(41), []
    for i, (left, right) in enumerate(BATCHES * 4):
        m, k, n = rng.choice(SIZES, 3).tolist()
        cases.append(product((*left, m, k), (*right, k, n), i, real=i % 5 == 0))
    check_all(cases, isa, extra)


def test_operands_too_large_for_the_stack_are_refused() -> None:
    assert TABLE.find(product((4, 128), (128, 128), 0), VBMI) is not None
    assert TABLE.find(product((4, 1024), (1024, 1024), 0), VBMI) is None
