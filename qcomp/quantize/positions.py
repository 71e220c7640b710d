"""Positions of a layer's results as rows of channels, each distinct one counting once.

A picture's padding, or the blank page around a text, is the same column of numbers thousands of times.  What it does to
a mean says nothing about the rest, and what is true of it hardly matters: so equal rows share the weight of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

# Rows whose projections differ by less than this share of the largest one count as equal.
_SAME = 1e-5
_MOST_ROWS = 1 << 15


def rows_of(tensors: Sequence[np.ndarray], axis: int, most: int = _MOST_ROWS) -> list[np.ndarray]:
    """[positions, channels] of each tensor, `axis` counting its channels; about `most` rows in all, evenly spread."""
    positions = tensors[0].size // max(tensors[0].shape[axis], 1)
    # An odd step does not stay in one column of a picture of even width.
    step = max(1, -(-positions * len(tensors) // most)) | 1 if positions * len(tensors) > most else 1
    return [np.moveaxis(t, axis, -1).reshape(-1, t.shape[axis])[::step] for t in tensors]


def distinct_weights(rows: np.ndarray) -> Float64Array:
    """float64[n] for rows [n, channels]: 1 / how many rows are equal to this one."""
    # Any fixed direction that no structure of channels lies across.
    direction = np.sin(1.0 + 12.9898 * np.arange(rows.shape[1]))
    projected = rows.astype(np.float64) @ direction
    step = max(float(np.abs(projected).max(initial=0.0)) * _SAME, 1e-30)
    _, inverse, counts = np.unique(np.rint(projected / step), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[inverse])


def noise_shares(
    exact: Sequence[np.ndarray], candidates: Sequence[Sequence[np.ndarray]], axis: int, most: int = _MOST_ROWS
) -> list[float]:
    """Noise of each candidate for the results `exact`, one array a sample, in shares of what varies in these; means
    are taken off: those of errors are bias correction's to mend.  `axis` counts channels."""
    rows = np.concatenate(rows_of(exact, axis, most)).astype(np.float64)
    weights = distinct_weights(rows)
    weights /= weights.sum()
    power = max(_variance(weights, rows), 1e-30)
    return [_variance(weights, np.concatenate(rows_of(c, axis, most)) - rows) / power for c in candidates]


def _variance(weights: Float64Array, rows: Float64Array) -> float:
    """The sum over channels of the weighted variances of rows [positions, channels]."""
    return float((weights @ (rows - weights @ rows) ** 2).sum())
