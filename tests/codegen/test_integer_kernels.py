"""Portable integer kernels give the interpreter's integers on generated shapes, strides, padding and zero points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from codegen_harness import PORTABLE, Cases, check
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qcomp.codegen.c.kernel import KernelTable
from qcomp.ir import DType, Quantization, Value

Draw = Callable[..., int]
SETTINGS = settings(
    max_examples=3, derandomize=True, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
ZERO = st.integers(-128, 127)
TARGETS = [("x86_64", PORTABLE), ("generic", PORTABLE), ("x86_64-avx512vnni", None)]


@st.composite
def output_range(draw: st.DrawFn) -> dict[str, int]:
    low, high = sorted((draw(ZERO), draw(ZERO)))
    wide = draw(st.booleans())
    return {"zp": draw(ZERO), "lo": -128 if wide else low, "hi": 127 if wide else high}


@st.composite
def window(draw: st.DrawFn) -> dict[str, object]:
    return {
        "shape": (draw(st.integers(1, 2)), draw(st.integers(4, 9)), draw(st.integers(4, 9))),
        "kernel": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "strides": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "dilations": draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)])),
        "pads": tuple(draw(st.integers(0, 2)) for _ in range(4)),
        "x_zp": draw(ZERO),
        "range": draw(output_range()),
        "table": draw(st.booleans()),
        "real": draw(st.integers(0, 5)) == 0,
        "seed": draw(st.integers(0, 2**31)),
    }


def _fits(case: dict[str, object]) -> bool:
    (_, h, w), k, d, p = case["shape"], case["kernel"], case["dilations"], case["pads"]  # type: ignore[misc]
    return h + p[0] + p[2] > d[0] * (k[0] - 1) and w + p[1] + p[3] > d[1] * (k[1] - 1)  # type: ignore[index,operator]


def _product_operands(cases: Cases, rng: np.random.Generator, shape: tuple[int, ...], depth: int) -> list[Value]:
    outputs = shape[0]
    mult = (rng.random(outputs) * 0.02 / np.sqrt(depth)).astype(np.float32)
    return [
        cases.constant(rng.integers(-127, 128, shape).astype(np.int8)),
        cases.constant(rng.integers(-20000, 20000, outputs).astype(np.int32)),
        cases.constant(mult),
    ]


def _finish(cases: Cases, rng: np.random.Generator, case: dict[str, object], operands: list) -> dict:  # type: ignore[type-arg]
    attrs = {"x_zp": case["x_zp"], **case["range"], "dtype": DType.F32 if case["real"] else DType.I8}  # type: ignore[dict-item]
    if case["table"] and not case["real"]:
        operands.append(cases.constant(rng.integers(-128, 128, 256).astype(np.int8)))
    return attrs


def _conv(cases: Cases, case: dict[str, object], groups: int, inner: int, per_group: int) -> None:
    rng = np.random.default_rng(case["seed"])  # type: ignore[arg-type]
    x = cases.i8((*case["shape"], groups * inner), case["x_zp"])  # type: ignore[misc,arg-type]
    shape = (groups * per_group, *case["kernel"], inner)  # type: ignore[misc]
    operands: list[Value | None] = [x, *_product_operands(cases, rng, shape, int(np.prod(shape[1:])))]
    attrs = _finish(cases, rng, case, operands)
    names = ("strides", "dilations", "pads")
    cases.op("qconv2d", operands, groups=groups, **{n: case[n] for n in names}, **attrs)


@pytest.mark.parametrize(("target", "table"), TARGETS)
@SETTINGS
@given(
    st.lists(
        st.tuples(
            window().filter(_fits),
            st.sampled_from([(1, 3, 20), (1, 16, 5), (1, 40, 17), (4, 1, 1), (33, 1, 1), (2, 5, 3), (5, 1, 2)]),
        ),
        min_size=20,
        max_size=20,
    )
)
def test_convolutions(target: str, table: KernelTable | None, drawn: list) -> None:  # type: ignore[type-arg]
    cases = Cases(len(drawn))
    for case, (groups, inner, per_group) in drawn:
        _conv(cases, case, groups, inner, per_group)
    check(cases, target, table, threads=2)


@pytest.mark.parametrize(("target", "table"), TARGETS)
@SETTINGS
@given(st.lists(st.tuples(window().filter(_fits), st.integers(0, 2), st.integers(1, 40)), min_size=20, max_size=20))
def test_pools_and_transposed_convolutions(target: str, table: KernelTable | None, drawn: list) -> None:  # type: ignore[type-arg]
    cases = Cases(len(drawn))
    for case, kind, channels in drawn:
        x = cases.i8((*case["shape"], channels), case["x_zp"])
        rng = np.random.default_rng(case["seed"])
        common = {n: case[n] for n in ("kernel", "strides", "pads")}
        if kind == 0:
            cases.op("max_pool", [x], **common, dilations=case["dilations"], layout="NHWC")
        elif kind == 1:
            cases.op("qavg_pool", [x], **common, x_zp=case["x_zp"], **case["range"], ratio=0.37,
                     count_include_pad=bool(case["table"]))  # fmt: skip
        else:
            shape = (channels, *case["kernel"], channels)
            operands = [x, *_product_operands(cases, rng, shape, int(np.prod(shape[1:])))]
            attrs = _finish(cases, rng, case, operands)
            cases.op("qconv_transpose2d", operands, strides=case["strides"], dilations=case["dilations"],
                     pads=(0, 0, 0, 0), output_pads=(1, 2), **attrs)  # fmt: skip
    check(cases, target, table)


@pytest.mark.parametrize(("target", "table"), TARGETS)
@SETTINGS
@given(st.lists(st.tuples(ZERO, ZERO, output_range(), st.booleans(), st.integers(0, 2**31)), min_size=8, max_size=8))
def test_elementwise_and_matrix_products(target: str, table: KernelTable | None, drawn: list) -> None:  # type: ignore[type-arg]
    cases = Cases(len(drawn))
    shapes = [((2, 4, 5, 7), (2, 4, 5, 7)), ((2, 4, 5, 7), (2, 1, 1, 7)), ((1, 6, 1), (3, 1, 5)), ((200,), (1,))]
    for position, (a_zp, b_zp, limits, with_table, seed) in enumerate(drawn):
        rng = np.random.default_rng(seed)
        left, right = shapes[position % len(shapes)]
        extra = [cases.constant(rng.integers(-128, 128, 256).astype(np.int8))] if with_table else []
        a, b = cases.i8(left, a_zp), cases.i8(right, b_zp)
        mults = {f"{n}_mult": float(np.float32(rng.random())) for n in "ab"}
        zeros = {"a_zp": a_zp, "b_zp": b_zp}
        cases.op("qadd", [a, b, *extra], **zeros, **mults, **limits)
        fixed = cases.constant(rng.integers(-128, 128, right).astype(np.int8))
        cases.op("qadd", [a, fixed], **zeros, **mults, **limits)
        cases.op("qmul", [a, b, *extra], **zeros, mult=float(np.float32(rng.random() / 64)), **limits)
        cases.op("table", [a, cases.constant(rng.integers(-128, 128, 256).astype(np.int8))])
        for shape, outputs in (((3, 40), 21), ((2, 2, 5), 6), ((130,), 3)):
            x = cases.i8(shape, a_zp)
            operands = [x, *_product_operands(cases, rng, (outputs, shape[-1]), shape[-1]), *extra]
            cases.op("qgemm", operands, x_zp=a_zp, **limits)
        cases.op("qgemm", operands[:4], x_zp=a_zp, dtype=DType.F32)
    check(cases, target, table)


@pytest.mark.parametrize(("target", "table"), TARGETS)
def test_conversions_between_real_and_integer(target: str, table: KernelTable | None) -> None:
    cases = Cases(9)
    special = np.float32([np.nan, np.inf, -np.inf, -0.0, 0.5, 1.5, -0.5, 2.5, 126.5, -127.5, 1e30, -1e30, 1e-40])
    data = np.concatenate([special, cases.data((800,), spread=90.0)])
    for dtype in (DType.I8, DType.U8, DType.I16, DType.U16):
        low, high = dtype.limits
        for scale, zero in ((1.0, 0), (0.37, low), (1e-3, high), (3e30, 3)):
            quant = Quantization.per_tensor(scale, zero)
            q = cases.op("quantize", [cases.input((), data=data)], quant=quant, dtype=dtype)
            cases.op("dequantize", [q])
            cases.op("fake_quant", [cases.input((), data=data)], quant=quant, dtype=dtype)
        for shape in ((2, 3, 7, 30), (1, 1, 5, 5), (2, 4, 9, 16), (1, 5, 3, 4)):  # images, channels last
            x = cases.input((), data=cases.data(shape, spread=90.0))
            q = cases.op("quantize", [x], quant=Quantization.per_tensor(0.9, 3), dtype=dtype, perm=(0, 2, 3, 1))
            cases.op("dequantize", [q])
        channels = Quantization.per_channel(np.float32([0.3, 0.7, 1.5]), 1, np.asarray([0, 3, low or 9]))
        rows = cases.input((4, 3, 30))
        cases.op("dequantize", [cases.op("quantize", [rows], quant=channels, dtype=dtype)])
        cases.op("fake_quant", [rows], quant=channels, dtype=dtype)
    check(cases, target, table)
