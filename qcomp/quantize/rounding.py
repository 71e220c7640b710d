"""Rounding weights by what the rounding does to the layer's results, not to the nearest step one by one.

The error of a weight that is rounded is passed on to the weights of the same output channel that are still open, by
the second moments of the inputs that the layer really sees (GPTQ: Frantar et al. 2022, after Hassibi's optimal brain
surgeon).  Closed form, no training, no random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.graph import Node
from qcomp.passes.matching import weight_source
from qcomp.quantize.positions import Float64Array, distinct_weights, rows_of

# Share of the mean diagonal that is added to it: inputs unlike the samples must not be at the mercy of a rounding.
_DAMPING = 0.01
# Columns that are rounded before the rest is brought up to date, in one product.
_BLOCK = 64
# Inputs of a result: their moments take this number squared of memory, and its cube of time.
_LARGEST = 4608
_MOST_ROWS = 4096


def second_moments(rows: NDArray[np.floating], weights: Float64Array) -> Float64Array:
    """Weighted covariance [k, k] of rows [n, k], with what it must have to be inverted.

    Means are taken off: what a rounding does to a channel's mean, the bias takes back.
    """
    values = rows.astype(np.float64)
    share = weights / weights.sum()
    values = (values - share @ values) * np.sqrt(share)[:, None]
    moments = values.T @ values
    mean = float(np.trace(moments)) / len(moments)
    return np.asarray(moments + np.eye(len(moments)) * (_DAMPING * mean if mean > 0 else 1.0))


def round_rows(rows: NDArray[np.floating], scales: NDArray[np.floating], moments: Float64Array) -> NDArray[np.int8]:
    """Integers in [-127, 127] for weights [channels, k] on the channels' scales, given moments [k, k] of the inputs.

    Inputs of most power are rounded first, as in the papers: their errors find the most others to make up for them.
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    open_rows = rows.astype(np.float64)[:, order]
    # Upper Cholesky factor of the inverse: its rows say how the error of a column spreads over those after it.
    inverse = np.linalg.inv(moments[np.ix_(order, order)])
    spread = np.linalg.cholesky((inverse + inverse.T) / 2).T
    steps = scales.astype(np.float64)
    integers = np.zeros(open_rows.shape, np.int8)
    for start in range(0, len(order), _BLOCK):
        end = min(start + _BLOCK, len(order))
        errors = np.zeros((len(open_rows), end - start))
        for column in range(start, end):
            exact = open_rows[:, column]
            rounded = np.clip(np.rint(exact / steps), -127, 127)
            integers[:, order[column]] = rounded.astype(np.int8)
            error = (exact - rounded * steps) / spread[column, column]
            errors[:, column - start] = error
            open_rows[:, column + 1 : end] -= np.outer(error, spread[column, column + 1 : end])
        open_rows[:, end:] -= errors @ spread[start:end, end:]
    return integers


def rounded_weights(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """float32 weights on their grid for a product with fake-quantized weights, given its inputs for some samples.

    None where rounding to the nearest has to do: transposed convolutions, more than 4,608 weights a channel, and where
    it would not lower the noise of the results.
    """
    rounding, source = node.input(1).producer, weight_source(node.input(1))
    assert rounding is not None and source is not None
    if node.op.name not in ("conv2d", "gemm"):
        return None
    gemm = node.op.name == "gemm"
    weights = source.array.T if gemm and not node.attrs["trans_b"] else source.array
    groups = 1 if gemm else node.call.int("groups")
    flat = weights.reshape(groups, weights.shape[0] // groups, -1)
    if flat.shape[2] > _LARGEST:
        return None
    columns = _gemm_rows(inputs) if gemm else _conv_columns(node, inputs)
    shares = distinct_weights(columns.reshape(len(columns), -1))
    quant = rounding.call.quant("quant")
    scales = np.broadcast_to(np.asarray(quant.scale, np.float64), weights.shape[:1]).reshape(groups, -1)
    result = np.empty(flat.shape)
    for group in range(groups):
        moments = second_moments(columns[:, group], shares)
        nearest = np.clip(np.rint(flat[group] / scales[group, :, None]), -127, 127)
        better = round_rows(flat[group], scales[group], moments).astype(np.float64)
        noise = [_noise(integers * scales[group, :, None] - flat[group], moments) for integers in (nearest, better)]
        chosen = np.where((noise[1] < noise[0])[:, None], better, nearest)
        result[group] = chosen * scales[group, :, None]
    found = result.reshape(weights.shape).astype(np.float32)
    return np.asarray(found.T if gemm and not node.attrs["trans_b"] else found)


def _noise(errors: Float64Array, moments: Float64Array) -> Float64Array:
    """float64[channels]: the power of what errors [channels, k] of weights do to the results."""
    return np.asarray(((errors @ moments) * errors).sum(axis=1))


def _gemm_rows(inputs: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.concatenate(rows_of(inputs, inputs[0].ndim - 1, _MOST_ROWS))
    return rows[:, None, :]


def _conv_columns(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """[positions, groups, inputs of one result] of a convolution, at about _MOST_ROWS positions in all."""
    call = node.call
    top, left, bottom, right = call.ints("pads")
    (sy, sx), (dy, dx) = call.ints("strides"), call.ints("dilations")
    height, width = node.input(1).shape[2:]
    channels_first = node.attrs["layout"] == "NCHW"
    rows, columns = node.output.shape[2:] if channels_first else node.output.shape[1:3]
    images = [image if channels_first else image.transpose(2, 0, 1) for batch in inputs for image in batch]
    positions = rows * columns
    step = max(1, -(-positions * len(images) // _MOST_ROWS)) | 1 if positions * len(images) > _MOST_ROWS else 1
    oy, ox = np.divmod(np.arange(0, positions, step), columns)
    found = []
    for image in images:
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
        window = ((height - 1) * dy + 1, (width - 1) * dx + 1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(1, 2))[:, ::sy, ::sx, ::dy, ::dx]
        chosen = windows[:, oy, ox]  # [channels, positions, height, width]
        found.append(chosen.transpose(1, 0, 2, 3).reshape(len(oy), call.int("groups"), -1))
    return np.concatenate(found)
