"""From a range of real numbers to scale and zero point."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.ir.types import DType

# Smaller ranges count as zero: the product of two scales (a bias scale) stays a normal float32.
MIN_SCALE = 2.0**-60
# A channel's scale is at least this share of the tensor's largest one.
_MIN_CHANNEL_RATIO = 2.0**-24


def integer_limits(
    dtype: DType | str = DType.I8, *, symmetric: bool = False, narrow: bool = False
) -> tuple[int, int]:
    """Smallest and largest integer in use.

    `narrow` or `symmetric` gives up the lowest integer, so that the range is as long on either side of its
    middle: [-127, 127] for i8, [1, 255] around 128 for u8.
    """
    low, high = DType(dtype).limits
    return (low + 1, high) if narrow or symmetric else (low, high)


def affine_parameters(
    lo: float, hi: float, dtype: DType | str = "i8", symmetric: bool = False, narrow: bool = False
) -> tuple[float, int]:
    """Scale and zero point that represent [lo, hi] together with zero; real = scale · (integer − zero_point).

    Zero is exactly representable, the scale is a float32 value (returned as a Python float), at least MIN_SCALE;
    a range too small for that (a constant zero tensor) gets scale 1 and the zero point nearest to 0.  The
    formulas are onnxruntime's (`compute_scale_zp`): scale = (hi − lo)/(qmax − qmin) in float64, zero point =
    round-half-even(qmin − lo/scale), scale then rounded to float32.  A symmetric u8 range is [1, 255] around
    128, the i8 range with the sign bit flipped.  QcompError for NaN, infinity or lo > hi.
    """
    if not (math.isfinite(lo) and math.isfinite(hi)) or lo > hi:
        raise QcompError(f"[{lo}, {hi}] is not a range", fix="calibrate with finite data")
    qmin, qmax = integer_limits(dtype, symmetric=symmetric, narrow=narrow)
    lo, hi = min(float(lo), 0.0), max(float(hi), 0.0)
    if symmetric:
        hi = max(-lo, hi)
        lo = -hi
    scale = (hi - lo) / (qmax - qmin)
    middle = (qmin + qmax) // 2
    if scale < MIN_SCALE:
        return 1.0, middle if symmetric else min(max(0, qmin), qmax)
    zero_point = middle if symmetric else min(max(round(qmin - lo / scale), qmin), qmax)
    return float(np.float32(scale)), zero_point


def weight_scales(weights: NDArray[np.generic], axis: int | None) -> NDArray[np.float32]:
    """Symmetric scales for [-127, 127]: float32 of shape (channels,) along `axis`, or (1,) where it is None.

    An all-zero channel gets the largest scale of the others (1 if all are zero), and a channel smaller than
    2^-24 of the largest gets that share of it: its bias, in units of its scale, would overflow int32 otherwise.
    QcompError for NaN or infinity.
    """
    values = np.asarray(weights, np.float32)
    if axis is None:
        largest = np.abs(values).max(initial=0.0).reshape(1)
    else:
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        largest = np.abs(values).max(axis=others, initial=0.0)
    if not np.isfinite(largest).all():
        raise QcompError("weights hold NaN or infinity", fix="repair the model's weights")
    scales = largest.astype(np.float64) / 127.0
    top = float(scales.max(initial=0.0))
    if top < MIN_SCALE:
        return np.ones(scales.shape, np.float32)
    floor = max(top * _MIN_CHANNEL_RATIO, MIN_SCALE)
    return np.where(scales == 0, top, np.maximum(scales, floor)).astype(np.float32)


def int8_weights(
    weights: NDArray[np.generic], per_tensor: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [N, K] as symmetric int8 in [-127, 127], and their scales float32 [N]; per_tensor: all the same."""
    scales = np.broadcast_to(weight_scales(weights, None if per_tensor else 0), weights.shape[:1])
    steps = np.rint(np.asarray(weights, np.float32) / scales[:, None])
    return np.ascontiguousarray(np.clip(steps, -127, 127).astype(np.int8)), np.ascontiguousarray(scales)
