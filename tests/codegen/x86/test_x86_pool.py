"""Generated x86 pooling kernels give the integers of the direct definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_x86_conv import CHANNELS, Case, conv_shape, quantizations
from x86_harness import HERE, Image, Library, every_isa
from x86_reference import requantize, windows

from qcomp.codegen.c.vector.shapes import ConvShape, Requantization
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.pool import avg_pool_code, max_pool_code

pytestmark = pytest.mark.skipif(not HERE, reason="needs AVX2")


@st.composite
def pool_cases(draw: st.DrawFn) -> Case:
    kernel = draw(st.sampled_from([(2, 2), (3, 3), (1, 1), (5, 5), (7, 7), (1, 4), (6, 1), (9, 3)]))
    strides = draw(st.sampled_from([(1, 1), (2, 2), (3, 1), (1, 2)]))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)]))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4)) if draw(st.booleans()) else (0, 0, 0, 0)
    least = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) for i in range(2)]
    size = (least[0] + draw(st.integers(0, 5)), least[1] + draw(st.integers(0, 9)))
    channels = draw(st.sampled_from([*CHANNELS, 200]))
    shape = conv_shape(
        draw(st.integers(1, 2)), size, channels, channels, kernel, strides, dilations, pads, channels,
        (draw(st.sampled_from([0, 1])), draw(st.sampled_from([0, 1]))),
    )  # fmt: skip
    return Case(shape, draw(quantizations()), draw(st.integers(0, 2**16)), draw(st.booleans()))


def multipliers(shape: ConvShape, ratio: float, uniform: bool) -> np.ndarray:
    """float32(ratio / taps inside the image) of each output position."""
    inside = Image(shape.x)
    inside.inner[...] = 1
    taps = [windows(inside.full, shape, i, j) for i in range(shape.kernel[0]) for j in range(shape.kernel[1])]
    counts = np.maximum(np.sum(taps, axis=0, dtype=np.int64)[0, :, :, 0], 1)
    if uniform:
        counts[...] = shape.kernel[0] * shape.kernel[1]
    return (ratio / counts.astype(np.float64)).astype(np.float32)


@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.lists(pool_cases(), min_size=24, max_size=24), st.sampled_from(HERE))
def test_random_pools_equal_the_definition(cases: list[Case], isa: Isa) -> None:
    codes = {}
    mults = [multipliers(c.shape, 1e9 if c.seed % 9 == 0 else 1.0 + c.seed / 65536, c.extreme) for c in cases]
    for i, case in enumerate(cases):
        codes[f"m{i}"] = max_pool_code(case.shape, isa, f"m{i}")
        codes[f"a{i}"] = avg_pool_code(case.shape, mults[i], case.rq, isa, f"a{i}")
    library = Library(codes, isa)
    for i, case in enumerate(cases):
        shape = case.shape
        data = np.random.default_rng(case.seed).integers(0, 256, 10**6, dtype=np.uint8)
        for kind, fill in (("m", 0), ("a", case.rq.x_zp)):
            x, y = Image(shape.x, fill=fill), Image(shape.y)
            x.inner[...] = data[: x.inner.size].reshape(x.inner.shape)
            before = y.outside()
            library.run(f"{kind}{i}", [x.address, y.address])
            taps = [windows(x.full, shape, r, c) for r in range(shape.kernel[0]) for c in range(shape.kernel[1])]
            if kind == "m":
                expected = np.max(taps, axis=0)
            else:
                total = np.sum(taps, axis=0, dtype=np.int64) - len(taps) * case.rq.x_zp
                plain = Requantization(case.rq.x_zp, case.rq.zp, case.rq.lo, case.rq.hi)
                expected = requantize(total, mults[i][None, :, :, None], plain)
            assert np.array_equal(y.inner, expected), (kind, case)
            assert np.array_equal(y.outside(), before), (kind, case)


@every_isa
def test_global_average_of_many_channels(isa: Isa) -> None:
    shape = conv_shape(1, (7, 7), 2048, 2048, (7, 7), groups=2048)
    codes = {"k": avg_pool_code(shape, np.full((1, 1), np.float32(1 / 49)), Requantization(13, 5), isa, "k")}
    x, y = Image(shape.x), Image(shape.y)
    x.inner[...] = np.random.default_rng(1).integers(0, 256, x.inner.shape, dtype=np.uint8)
    Library(codes, isa).run("k", [x.address, y.address])
    total = x.inner.astype(np.int64).sum(axis=(1, 2), keepdims=True) - 49 * 13
    assert np.array_equal(y.inner, requantize(total, np.float32(1 / 49).reshape(1), Requantization(13, 5)))
