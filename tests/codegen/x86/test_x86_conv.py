"""Generated x86 convolutions give the integers of the direct definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from x86_harness import HERE, Image, Library, every_isa
from x86_reference import conv_acc, requantize

from qcomp.codegen.c.kernel import KernelCode
from qcomp.codegen.c.vector.packing import accumulator_reach
from qcomp.codegen.c.vector.shapes import ConvShape, Plane, Requantization, Residual
from qcomp.codegen.c.vector.views import is_depthwise
from qcomp.codegen.c.x86.conv import conv_code
from qcomp.codegen.c.x86.depthwise import depthwise_code
from qcomp.codegen.c.x86.isa import AVX2, Isa
from qcomp.codegen.c.x86.packing import float_bits_fit, stored_multipliers
from qcomp.codegen.c.x86.schedule import parse_schedule
from qcomp.codegen.c.x86.search import conv_schedules, depthwise_schedules
from qcomp.errors import QcompError
from qcomp.ir.halves import from_halves, to_halves

needs_cpu = pytest.mark.skipif(not HERE, reason="needs AVX2")
CHANNELS = [1, 2, 3, 4, 5, 7, 8, 13, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 67, 96, 127, 129]


@dataclass(frozen=True)
class Case:
    shape: ConvShape
    rq: Requantization
    seed: int
    extreme: bool = False
    pick: int = 0
    """Which of the schedules, counted round and round; 0 is the cost model's choice."""


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """weights, bias, multipliers, interior of x."""
    rng, shape = np.random.default_rng(case.seed), case.shape
    dims = (shape.y.channels, *shape.kernel, shape.x.channels // shape.groups)
    size = (shape.x.batch, shape.x.height, shape.x.width, shape.x.channels)
    taps = int(np.prod(dims[1:]))
    if case.extreme:
        sign = rng.choice([-127, 127], (dims[0], 1, 1, 1)).astype(np.int8)
        weights = np.broadcast_to(sign, dims).copy()
        x = np.full(size, 255 if case.rq.x_zp < 128 else 0, np.uint8)
        bias = rng.integers(-(2**20), 2**20, dims[0], dtype=np.int32)
        mult = rng.uniform(0.5, 3000.0, dims[0]).astype(np.float32)
    else:
        weights = rng.integers(-127, 128, dims, dtype=np.int8)
        x = rng.integers(0, 256, size, dtype=np.uint8)
        bias = rng.integers(-20000, 20000, dims[0], dtype=np.int32)
        mult = (rng.uniform(0.3, 1.5, dims[0]) / (60 * np.sqrt(taps) * 127)).astype(np.float32)
        mult[::3] = np.float32(2.0**-9)  # exact halves, so that ties are rounded
    if case.seed % 2:
        mult = from_halves(*to_halves(mult))
    return weights, bias, mult, x


def by_rows(shape: ConvShape, rq: Requantization) -> bool:
    return is_depthwise(shape) and rq.dtype == "u8" and rq.residual is None


def vector_code(shape: ConvShape, *rest: Any) -> KernelCode:
    depthwise = by_rows(shape, rest[3]) and rest[-1].form != "dense"
    return (depthwise_code if depthwise else conv_code)(shape, *rest)


def vector_schedules(case: Case, isa: Isa) -> tuple[str, ...]:
    if by_rows(case.shape, case.rq):
        return depthwise_schedules(case.shape)
    return conv_schedules(case.shape, arrays(case)[0], isa, case.rq.residual)


def check(
    cases: list[Case],
    isa: Isa,
    generate: Callable[..., KernelCode] = vector_code,
    tiles: str = "",
    schedules: Callable[[Case, Isa], tuple[str, ...]] = vector_schedules,
) -> Library:
    codes = {}
    for i, case in enumerate(cases):
        weights, bias, mult, _ = arrays(case)
        listed = schedules(case, isa)
        schedule = parse_schedule(listed[case.pick % len(listed)])
        codes[f"k{i}"] = generate(case.shape, weights, bias, mult, case.rq, isa, f"k{i}", schedule)
    library = Library(codes, isa, tiles)
    for i, case in enumerate(cases):
        weights, bias, mult, data = arrays(case)
        x = Image(case.shape.x, fill=case.rq.x_zp)
        x.inner[...] = data
        y = Image(case.shape.y, np.float32 if case.rq.dtype == "f32" else np.uint8, fill=77)
        untouched = y.outside()
        added = []
        if case.rq.residual is not None:
            added.append(Image(case.rq.residual.plane, fill=13))
            added[0].inner[...] = np.random.default_rng(case.seed).integers(0, 256, y.inner.shape)
        library.run(f"k{i}", [x.address, *(r.address for r in added), y.address])
        acc = conv_acc(x.full, weights, bias, case.rq.x_zp, case.shape)
        expected = requantize(acc, mult, case.rq, *(r.inner for r in added))
        assert np.array_equal(y.inner, expected), case
        assert np.array_equal(y.outside(), untouched), case
    return library


def conv_shape(
    batch: int, size: tuple[int, int], channels: int, outputs: int, kernel: tuple[int, int],
    strides: tuple[int, int] = (1, 1), dilations: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0), groups: int = 1,
    extra: tuple[int, int] = (0, 0),
) -> ConvShape:  # fmt: skip
    """A shape whose x has the halo it needs plus extra[0] pixels on each side, and whose y has extra[1]."""
    out = [(size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(2)]
    y = Plane(batch, out[0], out[1], outputs, (extra[1],) * 4)
    shape = ConvShape(Plane(batch, *size, channels), y, kernel, strides, dilations, pads, groups)
    top, left, bottom, right = (p + extra[0] for p in shape.halo)
    return replace(shape, x=replace(shape.x, halo=(top, left, bottom, right)))


@st.composite
def quantizations(draw: st.DrawFn) -> Requantization:
    lo, hi = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
    if draw(st.booleans()):
        lo, hi = 0, 255
    table = None
    if draw(st.integers(0, 3)) == 0:
        table = tuple(np.random.default_rng(draw(st.integers(0, 99))).permutation(256).tolist())
    return Requantization(
        draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)), draw(st.integers(0, 255)), lo, hi, table,
        "f32" if draw(st.integers(0, 5)) == 0 else "u8",
    )  # fmt: skip


@st.composite
def conv_cases(draw: st.DrawFn) -> Case:
    kernel = draw(st.sampled_from([(1, 1), (1, 1), (3, 3), (2, 2), (5, 5), (1, 3), (3, 1), (7, 7), (10, 4), (2, 5)]))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 2), (1, 3), (3, 1)]))
    strides = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 2), (3, 3)]))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4)) if draw(st.booleans()) else (0, 0, 0, 0)
    least = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) for i in range(2)]
    size = (least[0] + draw(st.integers(0, 9)), least[1] + draw(st.integers(0, 40)))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 8]))
    channels = draw(st.sampled_from(CHANNELS if groups == 1 else [1, 2, 3, 4, 5, 16, 17]))
    outputs = draw(st.sampled_from(CHANNELS if groups == 1 else [1, 2, 3, 8, 16, 17]))
    shape = conv_shape(
        draw(st.integers(1, 3)), size, channels * groups, outputs * groups, kernel, strides, dilations, pads, groups,
        (draw(st.sampled_from([0, 0, 1])), draw(st.sampled_from([0, 0, 1, 2]))),
    )  # fmt: skip
    rq = draw(quantizations())
    if rq.dtype == "u8" and draw(st.booleans()):
        rq = replace(rq, residual=draw(residuals(shape.y)))
    return Case(shape, rq, draw(st.integers(0, 2**16)), draw(st.integers(0, 4)) == 0)


@st.composite
def residuals(draw: st.DrawFn, y: Plane) -> Residual:
    """Planes with y's halo or another, factors with exact and with rounded products."""
    plane = replace(y, halo=draw(st.sampled_from([y.halo, (0, 0, 0, 0), (1, 0, 2, 1)])))
    mult = draw(st.sampled_from([0.5, 0.75, -0.25]) | st.floats(-2, 2, width=32) | st.floats(-1, 1, width=16))
    return Residual(plane, draw(st.integers(0, 255)), mult)


@needs_cpu
@settings(
    max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(st.lists(conv_cases(), min_size=16, max_size=16), st.sampled_from(HERE))
def test_random_convolutions_equal_the_definition(cases: list[Case], isa: Isa) -> None:
    check(cases, isa)


# Kernels whose last row has dwords of its own, of one to two columns more or less than four.
SINGLE_ROWS = [(5, 5), (5, 1), (1, 2), (5, 3), (1, 4), (1, 5), (5, 6), (5, 9)]


@st.composite
def depthwise_cases(draw: st.DrawFn) -> Case:
    several_rows = [(3, 3), (3, 3), (1, 3), (2, 2), (4, 1), (3, 7), (7, 7), (6, 4), (9, 2)]
    kernel = draw(st.sampled_from(several_rows + SINGLE_ROWS))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1), (1, 2), (3, 3)]))
    strides = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 3), (1, 8)]))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    least = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) for i in range(2)]
    size = (least[0] + draw(st.integers(0, 5)), least[1] + draw(st.integers(0, 30)))
    channels = draw(st.sampled_from([c for c in CHANNELS if c > 1] + [80, 112, 144]))
    shape = conv_shape(
        draw(st.integers(1, 2)), size, channels, channels, kernel, strides, dilations, pads, channels,
        (draw(st.sampled_from([0, 1])), draw(st.sampled_from([0, 1]))),
    )  # fmt: skip
    return Case(shape, draw(quantizations()), draw(st.integers(0, 2**16)), draw(st.integers(0, 4)) == 0)


@needs_cpu
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.lists(depthwise_cases(), min_size=16, max_size=16), st.sampled_from(HERE))
def test_random_depthwise_convolutions_equal_the_definition(cases: list[Case], isa: Isa) -> None:
    check(cases, isa)


@every_isa
def test_every_output_channel_count_and_line_length_is_covered(isa: Isa) -> None:
    table = tuple(int(v) for v in np.random.default_rng(5).permutation(256))
    cases = [
        Case(conv_shape(1, (1, 1 + 3 * i), 9, outputs, (1, 1)), Requantization(3, 120, 4, 250, table), i)
        for i, outputs in enumerate(CHANNELS)
    ]
    check(cases, isa)


@every_isa
def test_few_channels_share_loaded_pixels_and_join_their_stores(isa: Isa) -> None:
    cases = []
    for i, (outputs, kernel) in enumerate([(16, (3, 3)), (16, (1, 2)), (9, (5, 5)), (8, (3, 3)), (13, (2, 7))]):
        for width in (1, 15, 16, 17, 40):
            pads = tuple(k // 2 for k in (*kernel, *kernel))
            shape = conv_shape(2, (3, width), 4 * (i + 1), outputs, kernel, pads=pads, extra=(0, width % 2))
            residual = Residual(replace(shape.y, halo=(0, 0, 0, 1)), 40, 0.5) if width % 3 else None
            rq = Requantization(9, 100, 0, 255, residual=residual)
            cases.append(Case(shape, rq, 2 * i + width))
    check(cases, isa)


@every_isa
def test_accumulators_next_to_the_bound_of_float_bits_are_exact(isa: Isa) -> None:
    # x = 255 throughout: accumulators next to 2**22 on either side of it, so that both forms of the epilogue occur.
    for total, fits in ((2**22 - 1, True), (2**22, False), (1 - 2**22, True)):
        shape = conv_shape(1, (1, 5), 64, 16, (1, 1))
        weights = np.full((16, 1, 1, 64), 127 if total > 0 else -127, np.int8)
        bias = np.full(16, total - 64 * 255 * int(weights.flat[0]), np.int32)
        mult = from_halves(*to_halves(np.linspace(2**-15, 2**-14, 16).astype(np.float32)))
        multipliers = stored_multipliers(mult)
        assert float_bits_fit(accumulator_reach(weights, bias, 0), multipliers) == fits
        rq = Requantization(0, 100)
        library = Library({"k": conv_code(shape, weights, bias, mult, rq, isa, "k")}, isa)
        x, y = Image(shape.x, fill=255), Image(shape.y)
        library.run("k", [x.address, y.address])
        assert np.array_equal(y.inner, requantize(conv_acc(x.full, weights, bias, 0, shape), mult, rq))


def test_only_residual_factors_of_sixteen_bits_have_exact_products() -> None:
    plane = Plane(1, 1, 1, 1)
    for bits, exact in ((15, True), (16, True), (17, False), (24, False)):
        factor = float(np.float32(2.0 - 2.0 ** (1 - bits)))
        assert Residual(plane, 0, factor).exact == exact
        products = np.arange(-255, 256) * factor  # exact in float64
        assert np.array_equal(products.astype(np.float32).astype(np.float64), products) == exact


@every_isa
def test_residuals_next_to_ties_round_as_product_and_sum(isa: Isa) -> None:
    cases = []
    for seed, mult in enumerate((2.0 - 2.0**-15, 2.0 - 2.0**-16, 2.0 - 2.0**-23, 1.5, 0.5 + 2.0**-17)):
        shape = conv_shape(1, (4, 37), 7, 33, (1, 1))
        residual = Residual(shape.y, 77, float(np.float32(mult)))
        cases.append(Case(shape, Requantization(3, 100, residual=residual), 2 * seed + 1))
    check(cases, isa)


def test_float_bits_need_short_multipliers() -> None:
    reach = np.full(2, 100.0)
    assert float_bits_fit(reach, stored_multipliers(np.float32([0.5, 0.75])))
    assert not float_bits_fit(reach, stored_multipliers(np.float32([0.5, 0.1])))


@every_isa
def test_worst_case_products_neither_saturate_nor_wrap(isa: Isa) -> None:
    shapes = [conv_shape(1, (1, 9), 2048, 70, (1, 1)), conv_shape(1, (4, 4), 512, 33, (3, 3), pads=(1, 1, 1, 1))]
    check([Case(s, Requantization(zp, 100), zp, True) for s in shapes for zp in (0, 255)], isa)


@every_isa
def test_resnet_stem_and_a_fully_connected_layer(isa: Isa) -> None:
    stem = conv_shape(2, (64, 64), 3, 64, (7, 7), (2, 2), pads=(3, 3, 3, 3))
    check([
        Case(stem, Requantization(114, 0, 0, 255), 1),
        Case(conv_shape(1, (1, 1), 2048, 1000, (1, 1)), Requantization(7, dtype="f32"), 2),
        Case(conv_shape(5, (1, 197), 64, 48, (1, 1)), Requantization(128, 128, 0, 255), 3),
    ], isa)  # fmt: skip


def test_a_bias_that_leaves_int32_is_refused() -> None:
    shape = conv_shape(1, (1, 1), 4, 1, (1, 1))
    with pytest.raises(QcompError, match="outside int32"):
        conv_code(
            shape, np.full((1, 1, 1, 4), -127, np.int8), np.full(1, 2**31 - 1, np.int32), np.ones(1, np.float32),
            Requantization(255), AVX2, "k",
        )  # fmt: skip
