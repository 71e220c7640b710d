"""Windows over NHWC tensors: counts, padding, strided views, and the exact integer convolution."""

from __future__ import annotations

import numpy as np

from qcomp.ir.registry import Call


def window_counts(call: Call, size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, int]:
    """Output rows and columns of a window op with attributes strides, pads and (optionally) dilations."""
    strides, pads = call.ints("strides"), call.ints("pads")
    dilations = call.ints("dilations") if "dilations" in call.attrs else (1, 1)
    if len(strides) != 2 or len(dilations) != 2 or len(pads) != 4:
        raise call.fail(f"strides {strides}, dilations {dilations}, pads {pads} are not those of two dimensions")
    if min(strides) < 1 or min(dilations) < 1 or min(pads) < 0 or min(kernel) < 1:
        raise call.fail(f"strides {strides}, dilations {dilations}, pads {pads} or kernel {kernel} are out of range")
    counts = []
    for axis in range(2):
        span = size[axis] + pads[axis] + pads[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1
        if span < 0:
            raise call.fail(f"the window {kernel} is larger than the padded input {size}")
        counts.append(span // strides[axis] + 1)
    return counts[0], counts[1]


def pad_nhwc(x: np.ndarray, pads: tuple[int, ...]) -> np.ndarray:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def windows_nhwc(
    x: np.ndarray, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> np.ndarray:
    """View [N, OH, OW, KH, KW, C] of the windows of x [N, H, W, C]."""
    n, h, w, c = x.shape
    (kh, kw), (sh, sw), (dh, dw) = kernel, strides, dilations
    rows, cols = (h - dh * (kh - 1) - 1) // sh + 1, (w - dw * (kw - 1) - 1) // sw + 1
    s = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (n, rows, cols, kh, kw, c), (s[0], s[1] * sh, s[2] * sw, s[1] * dh, s[2] * dw, s[3]), writeable=False
    )


def convolve_nhwc(
    x: np.ndarray, w: np.ndarray, strides: tuple[int, ...], dilations: tuple[int, ...], groups: int
) -> np.ndarray:
    """Exact integer convolution: x [N,H,W,C] (padded, centred), w [O,KH,KW,C/groups] -> int64 [N,OH,OW,O]."""
    out, kh, kw, inner = w.shape
    if groups == x.shape[3] and inner == 1 and out == groups:  # depthwise: sum tap by tap
        rows = (x.shape[1] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
        cols = (x.shape[2] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
        acc = np.zeros((x.shape[0], rows, cols, out), np.int64)
        for i in range(kh):
            for j in range(kw):
                top, left = i * dilations[0], j * dilations[1]
                tap = x[:, top : top + strides[0] * (rows - 1) + 1 : strides[0]]
                tap = tap[:, :, left : left + strides[1] * (cols - 1) + 1 : strides[1]]
                acc += tap * w[:, i, j, 0].astype(np.int64)
        return acc
    parts = []
    per_group = out // groups
    for group in range(groups):
        part = np.ascontiguousarray(x[..., group * inner : (group + 1) * inner], np.float64)
        view = windows_nhwc(part, (kh, kw), strides, dilations)
        n, rows, cols = view.shape[:3]
        matrix = w[group * per_group : (group + 1) * per_group].reshape(per_group, -1).astype(np.float64).T
        # One image row band at a time keeps the unfolded copy small.
        band = max(1, (1 << 22) // max(1, cols * matrix.shape[0]))
        acc = np.empty((n, rows, cols, per_group), np.int64)
        for image in range(n):
            for row in range(0, rows, band):
                unfolded = view[image, row : row + band].reshape(-1, matrix.shape[0])
                acc[image, row : row + band] = (unfolded @ matrix).reshape(-1, cols, per_group)
        parts.append(acc)
    return parts[0] if groups == 1 else np.concatenate(parts, axis=3)
