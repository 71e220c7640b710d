"""Generated x86 elementwise kernels give the integers of the direct definition."""

from __future__ import annotations

import numpy as np
import pytest
from x86_harness import Image, Library, aligned, every_isa

from qcomp.codegen.c.kernel import KernelCode
from qcomp.codegen.c.vector.shapes import Plane
from qcomp.codegen.c.vector.walk import can_walk
from qcomp.codegen.c.x86.elementwise import Scalars, add_code, dequantize_code, mul_code, quantize_code, table_code
from qcomp.codegen.c.x86.interleave import interleave_code, quantize_nchw_code
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType

LENGTHS = [1, 2, 3, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 1000, 8191, 8193, 70001]
TABLE = tuple(int(v) for v in np.random.default_rng(11).permutation(256))
HALOS = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0)]


def every_pair() -> tuple[np.ndarray, np.ndarray]:
    a, b = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    return a.ravel(), b.ravel()


def random_scalars(rng: np.random.Generator, big: bool) -> Scalars:
    lo, hi = sorted(rng.integers(0, 256, 2).tolist()) if rng.integers(2) else (0, 255)
    scale = 16000.0 if big else 1.5
    mults = rng.uniform(-0.1 * scale, scale, 2).astype(np.float32)
    if rng.integers(3) == 0:
        mults[:] = 0.5  # ties
    zps = rng.integers(0, 256, 3)
    zero = float(rng.integers(-128, 128)) if rng.integers(2) else 0.0
    return Scalars(int(zps[0]), int(zps[1]), float(mults[0]), float(mults[1]), int(zps[2]), int(lo), int(hi), zero)


def finish(value: np.ndarray, s: Scalars, table: tuple[int, ...] | None) -> np.ndarray:
    assert value.dtype == np.float32
    stored = np.clip(np.rint(value).astype(np.float64) + s.zp, s.lo, s.hi).astype(np.uint8)
    return stored if table is None else np.array(table, np.uint8)[stored]


def add(a: np.ndarray, b: np.ndarray, s: Scalars, table: tuple[int, ...] | None) -> np.ndarray:
    left = (a.astype(np.int32) - s.a_zp).astype(np.float32) * np.float32(s.a_mult)
    right = (b.astype(np.int32) - s.b_zp).astype(np.float32) * np.float32(s.b_mult)
    return finish(left + right + np.float32(s.zero), s, table)


def mul(a: np.ndarray, b: np.ndarray, s: Scalars, table: tuple[int, ...] | None) -> np.ndarray:
    product = (a.astype(np.int32) - s.a_zp) * (b.astype(np.int32) - s.b_zp)
    with np.errstate(over="ignore"):
        return finish(product.astype(np.float32) * np.float32(s.a_mult), s, table)


@every_isa
@pytest.mark.parametrize(("generate", "define"), [(add_code, add), (mul_code, mul)])
def test_every_pair_of_bytes_gives_the_defined_result(generate, define, isa) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    a, b = every_pair()
    cases = [(random_scalars(rng, i % 3 == 2), TABLE if i % 4 == 1 else None) for i in range(12)]
    if define is mul:
        cases.append((Scalars(0, 0, 3e38, 0.0, 7, 0, 255), None))
    shape = Buffer(DType.I8, (a.size,))
    codes = {f"k{i}": generate(shape, shape, shape, s, t, isa, f"k{i}") for i, (s, t) in enumerate(cases)}
    library = Library(codes, isa)
    for i, (s, t) in enumerate(cases):
        x, other, y = aligned(a), aligned(b), aligned(np.zeros_like(a))
        library.run(f"k{i}", [x.ctypes.data, other.ctypes.data, y.ctypes.data])
        assert np.array_equal(y, define(a, b, s, t)), s
        library.run(f"k{i}", [x.ctypes.data, other.ctypes.data, x.ctypes.data])  # in place
        assert np.array_equal(x, y), s


def plane_of(buffer: Buffer) -> Plane:
    n, h, w, c = (1,) * (4 - len(buffer.shape)) + buffer.shape
    return Plane(n, h, w, c, buffer.halo)


@every_isa
def test_operands_broadcast_over_pixels_and_lie_in_halos(isa: Isa) -> None:
    rng = np.random.default_rng(4)
    shapes = [(2, 3, 5, 7), (1, 4, 4, 64), (2, 2, 3, 65), (1, 1, 1, 1), (3, 1, 9, 130)]
    codes: dict[str, KernelCode] = {}
    cases = []
    for shape in shapes:
        n, h, w, c = shape
        for other in (shape, (n, 1, 1, c), (1, h, 1, c), (c,), (1, 1, w, c)):
            for halo in HALOS:
                s = random_scalars(rng, False)
                a, y = Buffer(DType.I8, shape, halo), Buffer(DType.I8, shape, HALOS[(HALOS.index(halo) + 1) % 3])
                b = Buffer(DType.I8, other, halo if len(other) == 4 else HALOS[0])
                assert can_walk((a.shape, b.shape, y.shape))
                fixed = {1: rng.integers(0, 256, other, dtype=np.uint8)} if b.dense and len(cases) % 2 else {}
                swap = len(cases) % 3 == 1 and not fixed
                i = f"k{len(cases)}"
                codes[i] = add_code(b if swap else a, a if swap else b, y, s, None, isa, i, fixed)
                cases.append((a, b, y, s, fixed, swap))
    library = Library(codes, isa)
    for i, (a, b, y, s, fixed, swap) in enumerate(cases):
        images = [Image(plane_of(v)) for v in (a, b, y)]
        for image in images[:2]:
            image.inner[...] = rng.integers(0, 256, image.inner.shape, dtype=np.uint8)
        if fixed:
            images[1].inner[...] = fixed[1]
        before = images[2].outside()
        operands = [images[1], images[0]] if swap else images[:2]
        moving = [image.address for image in operands if not (fixed and image is images[1])]
        library.run(f"k{i}", [*moving, images[2].address])
        left, right = (image.inner for image in operands)
        assert np.array_equal(images[2].inner, add(left, right, s, None)), (a, b, y)
        assert np.array_equal(images[2].outside(), before), (a, b, y)


@every_isa
def test_tables_quantize_and_dequantize_of_every_length(isa: Isa) -> None:
    rng = np.random.default_rng(5)
    codes: dict[str, KernelCode] = {}
    scale = float(np.float32(0.037))
    for n in LENGTHS:
        i8, f32 = Buffer(DType.I8, (n,)), Buffer(DType.F32, (n,), external=True)
        codes[f"t{n}"] = table_code(i8, i8, TABLE, isa, f"t{n}")
        codes[f"q{n}"] = quantize_code(f32, i8, scale, 117, isa, f"q{n}")
        codes[f"d{n}"] = dequantize_code(i8, f32, scale, 117, isa, f"d{n}")
    library = Library(codes, isa)
    for n in LENGTHS:
        x = aligned(rng.integers(0, 256, n, dtype=np.uint8))
        y = aligned(np.full(n + 64, 9, np.uint8))
        library.run(f"t{n}", [x.ctypes.data, y.ctypes.data])
        assert np.array_equal(y[:n], np.array(TABLE, np.uint8)[x]) and np.all(y[n:] == 9)
        real = aligned(reals(rng, n, scale))
        library.run(f"q{n}", [real.ctypes.data, y.ctypes.data])
        assert np.array_equal(y[:n], quantized(real, scale, 117)) and np.all(y[n:] == 9)
        out = aligned(np.full(n + 16, -1, np.float32))
        library.run(f"d{n}", [x.ctypes.data, out.ctypes.data])
        expected = (x.astype(np.int32) - 117).astype(np.float32) * np.float32(scale)
        assert np.array_equal(out[:n], expected) and np.all(out[n:] == -1)


def reals(rng: np.random.Generator, n: int, scale: float) -> np.ndarray:
    values = rng.normal(0, 3, n).astype(np.float32)
    ties = (rng.integers(-300, 300, n) + 0.5).astype(np.float32) * np.float32(scale)
    values = np.where(rng.integers(0, 2, n) > 0, ties, values).astype(np.float32)
    special = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, -0.0, 1e-45], np.float32)
    return np.where(rng.integers(0, 8, n) == 0, rng.choice(special, n), values).astype(np.float32)


def quantized(x: np.ndarray, scale: float, zp: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        real = np.rint(x / np.float32(scale)).astype(np.float64)
    return np.clip(np.where(np.isnan(real), 0.0, real) + zp, 0, 255).astype(np.uint8)


@every_isa
def test_planar_images_become_interleaved_bytes(isa: Isa) -> None:
    rng = np.random.default_rng(6)
    scale = float(np.float32(0.037))
    sizes = [(1, 1, 1), (2, 3, 5), (1, 4, 16), (2, 3, 17), (1, 7, 33), (1, 20, 224)]
    cases = [(n, h, w, c, halo) for n, h, w in sizes for c in (1, 2, 3, 4) for halo in HALOS]
    codes = {}
    for i, (n, h, w, c, halo) in enumerate(cases):
        x, y = Buffer(DType.F32, (n, c, h, w), external=True), Buffer(DType.I8, (n, h, w, c), halo)
        codes[f"k{i}"] = quantize_nchw_code(x, y, scale, 3, isa, f"k{i}")
        codes[f"t{i}"] = interleave_code(Buffer(DType.I8, (n, c, h, w)), y, isa, f"t{i}")
    library = Library(codes, isa)
    for i, (n, h, w, c, halo) in enumerate(cases):
        x = reals(rng, n * h * w * c, scale).reshape(n, c, h, w)
        image = Image(Plane(n, h, w, c, halo))
        before = image.outside()
        library.run(f"k{i}", [x.ctypes.data, image.address])
        assert np.array_equal(image.inner, quantized(x, scale, 3).transpose(0, 2, 3, 1)), cases[i]
        assert np.array_equal(image.outside(), before), cases[i]
        stored = aligned(rng.integers(0, 256, (n, c, h, w), dtype=np.uint8))
        library.run(f"t{i}", [stored.ctypes.data, image.address])
        assert np.array_equal(image.inner, stored.transpose(0, 2, 3, 1)), cases[i]
        assert np.array_equal(image.outside(), before), cases[i]


@every_isa
@pytest.mark.parametrize("zp", [0, 3])
def test_rows_leave_what_follows_them(isa: Isa, zp: int) -> None:
    """Where the compiler knows how many elements of the last vector a row has: all of them are constants to it."""
    rng = np.random.default_rng(7)
    scale, codes = float(np.float32(0.037)), {}
    cases = [(width, c, kind) for width in (1, 2, 3, 17, 18, 33) for c in (1, 2, 3, 4) for kind in ("q", "n", "t")]
    for i, (width, c, kind) in enumerate(cases):
        x, y = Buffer(DType.F32, (1, 3, width, c), external=True), Buffer(DType.I8, (1, 3, width, c), (1, 1, 1, 1))
        if kind == "q":
            codes[f"k{i}"] = quantize_code(x, y, scale, zp, isa, f"k{i}")
        elif kind == "n":
            x = Buffer(DType.F32, (1, c, 3, width), external=True)
            codes[f"k{i}"] = quantize_nchw_code(x, y, scale, zp, isa, f"k{i}")
        else:
            codes[f"k{i}"] = interleave_code(Buffer(DType.I8, (1, c, 3, width)), y, isa, f"k{i}")
    library = Library(codes, isa, inlined=True)
    for i, (width, c, kind) in enumerate(cases):
        image = Image(Plane(1, 3, width, c, (1, 1, 1, 1)), fill=77)
        before = image.outside()
        real, stored = reals(rng, 3 * width * c, scale), rng.integers(0, 256, 3 * width * c, dtype=np.uint8)
        expected = stored if kind == "t" else quantized(real, scale, zp)
        given = aligned(stored if kind == "t" else real)
        library.run(f"k{i}", [given.ctypes.data, image.address])
        planar = expected.reshape(1, c, 3, width).transpose(0, 2, 3, 1)
        assert np.array_equal(image.inner, expected.reshape(1, 3, width, c) if kind == "q" else planar), cases[i]
        assert np.array_equal(image.outside(), before), cases[i]
