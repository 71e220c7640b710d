from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization.quant_utils import compute_scale_zp

from qcomp.errors import QcompError
from qcomp.ir.types import DType, Quantization
from qcomp.quantize.parameters import MIN_SCALE, affine_parameters, integer_limits, weight_scales

ends = st.floats(-1e6, 1e6, width=32)
ranges = st.tuples(ends, ends).map(sorted)


@given(ranges, st.sampled_from(["i8", "u8", "i16", "u16"]))
def test_asymmetric_parameters_are_onnxruntimes(range_, dtype: str) -> None:
    lo, hi = range_
    qmin, qmax = integer_limits(dtype)
    if (max(hi, 0) - min(lo, 0)) / (qmax - qmin) < MIN_SCALE:
        return
    kind = DType(dtype).numpy
    # In float64: with float32 ends, onnxruntime rounds lo/scale to float32 on the way.
    zero, scale = compute_scale_zp(
        np.array(lo, np.float64), np.array(hi, np.float64), np.array(qmin, kind), np.array(qmax, kind)
    )
    assert affine_parameters(lo, hi, dtype) == (float(np.float32(scale)), int(zero))


@given(ranges, st.sampled_from(["i8", "u8", "i16"]), st.booleans(), st.booleans())
def test_zero_is_exact_and_the_range_is_covered(range_, dtype: str, symmetric: bool, narrow: bool) -> None:
    lo, hi = range_
    scale, zero = affine_parameters(lo, hi, dtype, symmetric, narrow)
    qmin, qmax = integer_limits(dtype, symmetric=symmetric, narrow=narrow)
    assert qmin <= zero <= qmax
    assert scale == float(np.float32(scale)) >= MIN_SCALE
    # Rounding of the zero point may cost half a step at either end.
    assert (qmin - zero) * scale <= min(lo, 0.0) + scale * 0.51
    assert (qmax - zero) * scale >= max(hi, 0.0) - scale * 0.51
    assert Quantization((scale,), (zero,)).scale == (scale,)


@given(ranges)
def test_u8_is_i8_with_the_sign_bit_flipped(range_) -> None:
    for symmetric in (False, True):
        scale, zero = affine_parameters(*range_, "i8", symmetric)
        stored_scale, stored_zero = affine_parameters(*range_, "u8", symmetric)
        assert stored_scale == scale
        if scale != 1.0:
            # Half-way cases round to even on either side of an even offset alike.
            assert stored_zero == zero + 128


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_a_zero_range_has_scale_one(dtype: str) -> None:
    for tiny in (0.0, 1e-45, 1e-30):
        assert affine_parameters(-tiny, tiny, dtype) == (1.0, 0)
    assert affine_parameters(0.0, 0.0, "u8", symmetric=True) == (1.0, 128)


def test_known_parameters() -> None:
    assert affine_parameters(0.0, 255.0) == (1.0, -128)
    assert affine_parameters(0.0, 255.0, DType.U8) == (1.0, 0)
    assert affine_parameters(-1.0, 1.0, "i8", symmetric=True) == (float(np.float32(1 / 127)), 0)
    assert affine_parameters(-3.0, 254.0 - 3.0, "i8", narrow=True) == (1.0, -124)
    assert affine_parameters(5.0, 10.0) == affine_parameters(0.0, 10.0)


def test_the_widest_range_has_a_finite_scale() -> None:
    scale, zero = affine_parameters(-3.4e38, 3.4e38)
    assert np.isfinite(scale)
    assert zero == 0


@pytest.mark.parametrize("bad", [(1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)])
def test_what_is_no_range_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(QcompError, match="is not a range"):
        affine_parameters(*bad)


def test_weight_scales_per_channel_cover_each_channel() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weights *= np.array([1, 10, 0.1, 3], np.float32).reshape(4, 1, 1, 1)
    scales = weight_scales(weights, 0)
    assert scales.dtype == np.float32
    assert np.array_equal(scales, (np.abs(weights).reshape(4, -1).max(1).astype(np.float64) / 127).astype(np.float32))
    quantized = np.rint(weights / scales.reshape(4, 1, 1, 1))
    assert np.abs(quantized).max() == 127
    assert np.array_equal(weight_scales(weights.transpose(1, 2, 3, 0), -1), scales)
    assert weight_scales(weights, None).tolist() == [float(scales.max())]


def test_dead_and_tiny_channels_get_sane_scales() -> None:
    weights = np.array([[127.0, 1], [0, 0], [1e-30, 0], [1e-3, 0]], np.float32)
    assert weight_scales(weights, 0).tolist() == [1.0, 1.0, 2.0**-24, float(np.float32(np.float32(1e-3) / 127.0))]
    assert weight_scales(np.zeros((3, 2)), 0).tolist() == [1.0, 1.0, 1.0]
    assert weight_scales(np.full((2, 2), 1e-40), 0).tolist() == [1.0, 1.0]
    assert weight_scales(np.zeros((0, 2)), 0).shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(QcompError, match="weights hold NaN or infinity"):
        weight_scales(np.array([[1.0, bad]]), 0)
