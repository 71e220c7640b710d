"""Each op alone on 64-bit ARM, in generated forms and awkward shapes: the interpreter's bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from arm_harness import LEVELS, arm, compiled_wrong
from codegen_harness import Cases
from generated_graphs import Batch

from qcomp.codegen.c.emit import generate
from qcomp.ir import DType, Quantization, TensorType, Value
from qcomp.targets import target

PRODUCTS = ("conv", "gemm", "grouped", "depthwise", "residual")
ELEMENTWISE = ("sum", "scale", "table", "average", "maximum")
WIDTHS = (1, 2, 3, 5, 7, 12, 15, 16, 17, 31, 33)
QUANT = Quantization.per_tensor(0.5, 3)


@arm
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("kinds", "each"), [(PRODUCTS, 20), (ELEMENTWISE, 16)])
def test_one_op(level: str, kinds: tuple[str, ...], each: int, tmp_path: Path) -> None:
    batch = Batch([((9, LEVELS.index(level), PRODUCTS is kinds, i), [kinds[i % 5]], 1) for i in range(5 * each)])
    bad, used = compiled_wrong(batch.graph, batch.feeds, level, tmp_path, 2)
    assert bad == [], f"{bad}; the first of them is an output of\n{batch.text(bad[0])}"
    if kinds is ELEMENTWISE:
        assert {"neon add", "neon mul", "neon table", "neon avg_pool", "neon max_pool", "neon quantize"} <= used


def external(cases: Cases, shape: tuple[int, ...]) -> Value:
    """An int8 input of the caller, behind which nothing may be read."""
    name = f"e{len(cases.feeds)}"
    cases.feeds[name] = cases.rng.integers(-128, 128, shape).astype(np.int8)
    return cases.graph.input(name, TensorType(DType.I8, shape, QUANT))


@arm
def test_elementwise_tails_and_broadcasts(tmp_path: Path) -> None:
    cases = Cases(3)
    table = cases.constant(cases.rng.integers(-128, 128, 256).astype(np.int8))
    limits = [{"zp": -128, "lo": -128, "hi": 127}, {"zp": 7, "lo": -100, "hi": 90}, {"zp": 127, "lo": 0, "hi": 127}]
    for i, width in enumerate(WIDTHS):
        for inside in (False, True):
            image = cases.i8((1, 2, 3, width)) if inside else external(cases, (1, 2, 3, width))
            pixel = cases.i8((1, 1, 1, width)) if inside else external(cases, (1, 1, 1, width))
            fixed = cases.graph.constant(cases.rng.integers(-128, 128, (1, 2, 1, width)).astype(np.int8), "k", QUANT)
            end = limits[i % 3]
            zps = {"a_zp": 5 - i, "b_zp": -128}
            extra: list[Value | None] = [table] if i % 2 else []
            for other in (image, pixel, fixed):
                mults = {"a_mult": 0.5 - 0.25 * (i % 3), "b_mult": 1.5 if i % 4 else 1000.0}
                cases.op("qadd", [image, other, *extra], **zps, **mults, **end)
                cases.op("qmul", [other, image, *extra], **zps, mult=2.0**-7 if i % 3 else 3.0, **end)
            cases.op("table", [image, table])
            cases.op("dequantize", [image])
    bad, used = compiled_wrong(cases.graph, cases.feeds, "aarch64", tmp_path)
    assert bad == []
    assert not [kernel for kernel in used if kernel.startswith("portable")]


@arm
def test_quantization_of_any_float(tmp_path: Path) -> None:
    cases = Cases(4)
    odd = [np.nan, np.inf, -np.inf, 1e38, -1e38, 0.25, -0.25, 0.75, -0.75, 63.25, 63.75, -64.25, 1e-40, -0.0, 16383.5]
    for i, width in enumerate((*WIDTHS, 100)):
        x = np.resize(np.array(odd, np.float32), width)
        quant = Quantization.per_tensor(0.5 if i % 2 else 0.3, (-128, 127, 0, 5)[i % 4])
        cases.op("quantize", [cases.input((width,), data=x)], quant=quant)
    for channels in range(1, 6):
        for size in (1, 5, 16, 19):
            shape = (2, channels, 3, size)
            planar = cases.input(shape, data=cases.rng.uniform(-90, 90, shape))
            y = cases.op("quantize", [planar], quant=QUANT, perm=(0, 2, 3, 1))
            weights = cases.rng.integers(-127, 128, (3, 3, 3, channels)).astype(np.int8)
            bias, mult = np.zeros(3, np.int32), np.full(3, 0.001, np.float32)
            operands = [y, *map(cases.constant, (weights, bias, mult))]
            cases.op("qconv2d", operands, pads=(1, 1, 1, 1), x_zp=3)  # the image then has a halo
    bad, used = compiled_wrong(cases.graph, cases.feeds, "aarch64", tmp_path)
    assert bad == []
    assert {"neon quantize", "neon quantize nchw"} <= used


@arm
@pytest.mark.parametrize("level", LEVELS)
def test_channels_and_taps_around_vectors(level: str, tmp_path: Path) -> None:
    """Products of 1 to 33 taps for 1 to 33 channels, of arena and external inputs, with every kind of ending."""
    cases = Cases(5)
    for i, taps in enumerate(WIDTHS):
        for j, channels in enumerate(WIDTHS):
            if (i + j) % 2:
                continue
            shape = (1, 1, 3 + (i * j) % 11, taps)
            x = external(cases, shape) if (i + j) % 4 else cases.i8(shape)
            weights = cases.rng.integers(-127, 128, (channels, 1, 1, taps)).astype(np.int8)
            bias = cases.rng.integers(-3000, 3000, channels).astype(np.int32)
            mult = cases.rng.uniform(-0.01, 0.02, channels).astype(np.float32)
            if (i + j) % 3 == 0:
                mult *= np.float32(1000.0)  # results beyond int16
            operands: list[Value | None] = [x, *map(cases.constant, (weights, bias, mult))]
            end: dict[str, object] = {"x_zp": 4 - i, "zp": 2 * j - 9 + i % 2, "lo": -128 + 9 * (j % 2), "hi": 127}
            kind = (i * 7 + j) % 5
            if kind == 0:
                cases.op("qconv2d", operands, **end, dtype=DType.F32)
            elif kind == 1:
                cases.op("qconv2d", operands, **{**end, "zp": 300, "lo": -20000, "hi": 30000}, dtype=DType.I16)
            else:
                table = cases.rng.integers(-128, 128, 256).astype(np.int8)
                operands.append(cases.constant(table) if kind == 2 else None)
                if kind == 3:
                    like = (*shape[:3], channels)
                    operands.append(external(cases, like) if j % 2 else cases.i8(like))
                    end |= {"r_zp": 3 - j, "r_mult": float(np.float32(0.3 * (1 + i % 2)))}
                cases.op("qconv2d", operands, **end)
    bad, _ = compiled_wrong(cases.graph, cases.feeds, level, tmp_path)
    assert bad == []


@arm
@pytest.mark.parametrize("level", LEVELS)
def test_results_at_the_edges_of_int16(level: str, tmp_path: Path) -> None:
    """Sums as large as weights, activations and zero points allow, times multipliers around what fits."""
    cases = Cases(7)
    for x_zp in (-128, 0, 127):
        for sign in (-1, 1):
            for most in (20000.0, 31900.0, 32100.0, 50000.0):
                ends = np.repeat(np.array([-128, 127], np.int8), 64).reshape(1, 1, 2, 64)
                x = cases.graph.input(f"x{len(cases.feeds)}", TensorType(DType.I8, ends.shape, QUANT))
                cases.feeds[x.name] = ends
                bias = np.full(16, sign * 1000, np.int32)
                mult = np.full(16, most / (255 * 127 * 64), np.float32)
                weights = np.full((16, 1, 1, 64), sign * 127, np.int8)
                cases.op("qconv2d", [x, *map(cases.constant, (weights, bias, mult))], x_zp=x_zp, zp=sign)
                taps = np.full((64, 1, 2, 1), sign * 127, np.int8)
                bias, mult = np.full(64, sign * 9, np.int32), np.full(64, most / (255 * 127 * 2), np.float32)
                operands = [x, *map(cases.constant, (taps, bias, mult))]
                cases.op("qconv2d", operands, groups=64, pads=(0, 0, 0, 1), x_zp=x_zp, zp=2 * sign)
    bad, _ = compiled_wrong(cases.graph, cases.feeds, level, tmp_path)
    assert bad == []


@arm
@pytest.mark.parametrize("level", LEVELS[1:])
def test_depthwise_of_odd_and_even_images(level: str, tmp_path: Path) -> None:
    cases = Cases(6)
    for i, channels in enumerate((2, 8, 15, 16, 17, 40)):
        for j, (height, width) in enumerate([(1, 1), (1, 4), (2, 3), (3, 2), (5, 5)]):
            shape = (1 + j % 2, height, width, channels)
            padded = (i + j) % 3 > 0 or min(height, width) < 3
            x = cases.i8(shape) if padded else external(cases, shape)
            weights = cases.rng.integers(-128 + (level == "aarch64"), 128, (channels, 3, 3, 1)).astype(np.int8)
            bias = cases.rng.integers(-3000, 3000, channels).astype(np.int32)
            mult = cases.rng.uniform(-0.01, 0.02, channels).astype(np.float32)
            pads = (1, 1, 1, 1) if padded else (0, 0, 0, 0)
            table = cases.constant(cases.rng.integers(-128, 128, 256).astype(np.int8))
            operands = [x, *map(cases.constant, (weights, bias, mult)), *([table] if j == 2 else [])]
            end = {"x_zp": 3, "zp": i - 2, "lo": -128 + 20 * (j % 2), "dtype": DType.F32 if j == 3 else DType.I8}
            cases.op("qconv2d", operands, groups=channels, pads=pads, **end)
    bad, used = compiled_wrong(cases.graph, cases.feeds, level, tmp_path, 2)
    assert bad == []
    assert used & {"sdot depthwise 2x2x16", "neon depthwise 2x16"}


def test_arm_of_32_bits_has_other_vectors() -> None:
    batch = Batch([((10, i), [*PRODUCTS, *ELEMENTWISE], 2) for i in range(20)])
    package = generate(batch.graph, target("armv7-neon"))
    assert all(step["kernel"].startswith("portable") for step in package.metadata["steps"])
    assert not any(b"arm_neon.h" in content for content in package.files.values())
