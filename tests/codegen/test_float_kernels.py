"""Portable float and data movement kernels give the interpreter's bits."""

from __future__ import annotations

import numpy as np
import pytest
from codegen_harness import Cases, check

from qcomp.codegen.c.portable.floats import BINARY_ROWS, UNARY_ROWS
from qcomp.ir import DType

TARGETS = ("x86_64", "generic")
INTEGERS = (DType.I8, DType.U8, DType.I16, DType.I32, DType.I64)
SPECIAL = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 3e38, -3e38, 0.5, -0.5, 1.5, 2.5, 8388609.0,
                      -8388607.5, 88.8, -103.9, 1e9, 0.92, 0.625, -4.0, 20.0, 64.0, 2.0**30])  # fmt: skip


def _wide(cases: Cases) -> np.ndarray:
    """Values of every magnitude, and the special ones."""
    spread = cases.rng.normal(0, 1, 700) * np.exp2(cases.rng.integers(-20, 12, 700))
    return np.concatenate([SPECIAL, spread.astype(np.float32)])


def test_float_functions_of_one_operand() -> None:
    cases = Cases(1)
    for row in UNARY_ROWS:
        cases.op(row.op, [cases.input((), data=_wide(cases))])
    cases.op("gelu", [cases.input((), data=_wide(cases))], approximate="tanh")
    for op in ("relu", "abs", "neg", "sign"):
        cases.op(op, [cases.input((), data=_wide(cases))])
        for dtype in INTEGERS:
            cases.op(op, [cases.input((5, 30), dtype)])
    cases.op("clip", [cases.input((), data=_wide(cases))], lo=-1.25, hi=6.0)
    for dtype in INTEGERS:
        cases.op("clip", [cases.input((5, 30), dtype)], lo=-7.5, hi=60.2)
    cases.op("logical_not", [cases.input((40,), DType.BOOL)])
    check(cases, "x86_64")


def two_operands() -> Cases:
    cases = Cases(2)
    shapes = (((2, 3, 4, 5), (2, 3, 4, 5)), ((2, 3, 4, 5), (4, 1)), ((3, 1, 7), (2, 1, 5, 1)), ((), (6,)))
    for row in BINARY_ROWS:
        for a, b in shapes:
            if row.real is not None:
                cases.op(row.op, [cases.input(a), cases.input(b)])
            if row.boolean:
                cases.op(row.op, [cases.input(a, DType.BOOL), cases.input(b, DType.BOOL)])
        if row.integer is not None and not row.op.startswith("logical"):
            for dtype in INTEGERS:
                cases.op(row.op, [cases.input((3, 1, 33), dtype), cases.input((4, 33), dtype)])
                cases.op(row.op, [cases.input((40,), dtype), cases.constant(cases.data((1,), dtype))])
    powers = np.float32([0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 64.0, 65.0, 2.5, -1.75])
    cases.op("pow", [cases.input((), data=_wide(cases).reshape(-1, 1)), cases.constant(powers)])
    cases.op("where", [cases.input((4, 1), DType.BOOL), cases.input((3, 4, 5)), cases.input((5,))])
    cases.op("where", [cases.input((4, 5), DType.BOOL), cases.input((4, 5), DType.I8), cases.input((5,), DType.I8)])
    cases.op("prelu", [cases.input((2, 3, 4, 5)), cases.constant(cases.data((3, 1, 1)))])
    vectors = [cases.constant(np.abs(cases.data((6,))) + np.float32(0.1)) for _ in range(4)]
    cases.op("batch_norm", [cases.input((2, 6, 3, 5)), *vectors])
    return cases


@pytest.mark.parametrize("target", TARGETS)
def test_functions_of_two_operands_broadcast(target: str) -> None:
    check(two_operands(), target)


def casts() -> Cases:
    cases = Cases(3)
    kinds = (DType.F32, DType.BOOL, *INTEGERS, DType.U16, DType.U32, DType.U64)
    for source in kinds:
        for result in kinds:
            real = np.clip(_wide(cases), -6e36, 6e36) * np.float32(50)
            data = real if source is DType.F32 else cases.data((50,), source)
            cases.op("cast", [cases.input((), source, data)], f"{source.value}_{result.value}", dtype=result)
    return cases


@pytest.mark.parametrize("target", TARGETS)
def test_casts(target: str) -> None:
    check(casts(), target)


def movement() -> Cases:
    cases = Cases(4)
    for dtype in (DType.F32, DType.I8, DType.I64, DType.BOOL):
        x = cases.input((2, 6, 4, 5), dtype)
        for perm in ((0, 2, 3, 1), (3, 2, 1, 0), (0, 3, 1, 2), (1, 0, 2, 3)):
            cases.op("transpose", [x], perm=perm)
        cases.op("slice", [x], starts=(0, 1, 3, 4), ends=(2, 6, -1, 1), steps=(1, 2, -1, -1))
        cases.op("slice", [x], starts=(1, 0, 0, 0), ends=(2, 6, 4, 5), steps=(1, 1, 1, 1))
        cases.op("expand", [cases.input((3, 1, 5), dtype)], shape=(2, 3, 4, 5))
        cases.op("tile", [x], repeats=(1, 2, 3, 1))
        fixed = cases.constant(cases.data((2, 3, 4, 5), dtype))
        cases.op("concat", [x, cases.input((2, 1, 4, 5), dtype), fixed], axis=1)
        cases.op("concat", [x, x], axis=3)
        cases.op("split", [x], axis=1, sizes=(1, 3, 2))
        cases.op("split", [x], axis=0, sizes=(1, 1))
        for layout in ("NCHW", "NHWC"):
            image = cases.input((2, 8, 4, 6) if layout == "NCHW" else (2, 4, 6, 8), dtype)
            for mode in ("DCR", "CRD"):
                cases.op("depth_to_space", [image], block=2, mode=mode, layout=layout)
            cases.op("space_to_depth", [image], block=2, layout=layout)
        cases.op("pad", [x], pads=(0, 1, 2, 0, 1, 0, 2, -1), value=3.0)
        for mode in ("reflect", "edge", "wrap"):
            cases.op("pad", [x], pads=(0, 1, 2, 0, 0, 2, 3, 1), mode=mode)
        scales = (1.0, 1.0, 2.0, 7 / 5)
        cases.op("resize", [x], sizes=(2, 6, 8, 7), scales=scales, mode="nearest")
        indices = cases.constant(np.asarray([[0, -1], [3, 2]]))
        cases.op("gather", [x, indices], axis=1)
        cases.op("gather", [x, cases.input((3,), data=np.asarray([1, -9, 7]), dtype=DType.I64)], axis=2)
        cases.op("reshape", [x], shape=(12, 20))
        cases.op("identity", [x])
    for dtype in (DType.F32, DType.I32):
        cases.op("one_hot", [cases.input((4, 3), DType.I64, cases.rng.integers(-6, 6, (4, 3)))],
                 depth=5, axis=1, on=2.0, off=-1.0, dtype=dtype)  # fmt: skip
    return cases


@pytest.mark.parametrize("target", TARGETS)
def test_data_movement(target: str) -> None:
    check(movement(), target)


def reductions() -> Cases:
    cases = Cases(5)
    x = cases.input((2, 5, 7, 19))
    for op in ("sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square"):
        for axes in ((3,), (1,), (1, 3), (0, 1, 2, 3), (2, 3)):
            cases.op(f"reduce_{op}", [x], axes=axes, keepdims=len(axes) == 1)
    for op in ("sum", "max", "min", "prod"):
        for dtype in (DType.I32, DType.I64):
            cases.op(f"reduce_{op}", [cases.input((3, 40), dtype)], axes=(1,))
    for op in ("max", "min"):
        cases.op(f"reduce_{op}", [cases.input((3, 40), DType.I8)], axes=(1,))
    for op in ("argmax", "argmin"):
        cases.op(op, [x], axis=2)
        cases.op(op, [cases.input((6, 33), DType.I8)], axis=1, keepdims=False)
    for op in ("softmax", "log_softmax"):
        for axis in (1, 3):
            cases.op(op, [x], axis=axis)
    for axis, shape in ((3, (19,)), (2, (7, 19)), (1, (5, 1, 19))):
        cases.op("layer_norm", [x, cases.constant(cases.data(shape)), cases.constant(cases.data(shape))], axis=axis)
    cases.op("layer_norm", [x, cases.input((19,))], axis=3, epsilon=1e-3)
    cases.op("instance_norm", [x, cases.constant(cases.data((5,))), cases.constant(cases.data((5,)))])
    cases.op("lrn", [x], size=3, alpha=0.3)
    for dtype in (DType.F32, DType.I32):
        cases.op("cumsum", [cases.input((3, 9, 4), dtype)], axis=1)
    cases.op("dynamic_quantize", [x])
    return cases


@pytest.mark.parametrize("target", TARGETS)
def test_reductions_and_normalizations(target: str) -> None:
    check(reductions(), target)


def products() -> Cases:
    cases = Cases(6)
    for layout in ("NCHW", "NHWC"):
        x = cases.input((2, 6, 9, 8) if layout == "NCHW" else (2, 9, 8, 6))
        for groups, outputs in ((1, 20), (2, 6), (6, 12)):
            w, b = cases.constant(cases.data((outputs, 6 // groups, 3, 2))), cases.constant(cases.data((outputs,)))
            cases.op("conv2d", [x, w, b], groups=groups, layout=layout, pads=(1, 0, 2, 1), strides=(2, 1))
            cases.op("conv2d", [x, w], groups=groups, layout=layout, dilations=(2, 1))
        for groups in (1, 3):
            w = cases.constant(cases.data((6, 5, 3, 2)))
            b = cases.constant(cases.data((5 * groups,)))
            cases.op("conv_transpose2d", [x, w, b], groups=groups, layout=layout, strides=(2, 3), pads=(1, 0, 1, 1),
                     output_pads=(1, 2))  # fmt: skip
        for op in ("max_pool", "avg_pool"):
            cases.op(op, [x], kernel=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1), layout=layout)
        cases.op("avg_pool", [x], kernel=(3, 3), pads=(1, 1, 1, 1), count_include_pad=True, layout=layout)
        cases.op("max_pool", [x], kernel=(3, 2), dilations=(2, 2), layout=layout)
    for a, b in (((5, 7), (7, 20)), ((2, 1, 5, 7), (3, 7, 33)), ((7,), (7, 4)), ((4, 7), (7,)), ((7,), (7,))):
        cases.op("matmul", [cases.input(a), cases.input(b)])
        cases.op("matmul", [cases.input(a), cases.constant(cases.data(b))])
        cases.op("matmul", [cases.input(a, DType.I32), cases.input(b, DType.I32)])
        cases.op("matmul_integer", [cases.input(a, DType.U8), cases.input(b, DType.I8)])
    zero = cases.constant(np.uint8(130))
    cases.op("matmul_integer", [cases.input((5, 7), DType.U8), cases.input((7, 4), DType.I8), zero,
                                cases.constant(np.int8([1, -2, 3, 4]))])  # fmt: skip
    cases.op("conv_integer", [cases.input((2, 4, 6, 5), DType.I8), cases.constant(cases.data((6, 2, 3, 3), DType.I8)),
                              cases.constant(np.int8(5)), cases.constant(np.int8(-3))],
             groups=2, pads=(1, 1, 0, 1), strides=(1, 2))  # fmt: skip
    for dtype in (DType.I8, DType.U8):
        cases.op("conv_integer", [cases.input((1, 2, 6, 5), dtype), cases.constant(cases.data((3, 2, 3, 3), DType.I8)),
                                  cases.input((), dtype)], pads=(1, 1, 0, 1))  # fmt: skip
    for ta in (False, True):
        a, b = cases.input((7, 5) if ta else (5, 7)), cases.constant(cases.data((18, 7)))
        cases.op("gemm", [a, b, cases.constant(cases.data((18,)))], trans_a=ta, trans_b=True, alpha=0.7, beta=1.3)
        cases.op("gemm", [a, b], trans_a=ta, trans_b=True)
    for mode in ("linear", "cubic"):
        for coordinates in ("half_pixel", "align_corners"):
            cases.op("resize", [cases.input((1, 3, 5, 6))], sizes=(1, 3, 9, 15), scales=(1.0, 1.0, 9 / 5, 2.5),
                     mode=mode, coordinates=coordinates)  # fmt: skip
    return cases


@pytest.mark.parametrize("target", TARGETS)
def test_float_products_pools_and_resizes(target: str) -> None:
    check(products(), target, threads=2)
