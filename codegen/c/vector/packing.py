"""Biases with folded zero points, bounds of accumulators, weights as runs: done once when compiling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qcomp.codegen.c.vector.shapes import Int8, Int32, UInt8
from qcomp.errors import QcompError


def _folded(weights: Int8, bias: Int32, x_zp: int) -> npt.NDArray[np.int64]:
    sums = weights.reshape(weights.shape[0], -1).astype(np.int64).sum(axis=1)
    folded: npt.NDArray[np.int64] = bias.astype(np.int64) - x_zp * sums
    return folded


def bias_fits(weights: Int8, bias: Int32, x_zp: int) -> bool:
    """Whether `stored_bias` has a result."""
    folded = _folded(weights, bias, x_zp)
    return bool(np.all((folded >= -(2**31)) & (folded < 2**31)))


def stored_bias(weights: Int8, bias: Int32, x_zp: int) -> Int32:
    """bias - x_zp * sum(w) per output channel (axis 0 of weights), with x_zp in stored (unsigned) terms.

    Raises QcompError where the result leaves int32."""
    folded = _folded(weights, bias, x_zp)
    if not bias_fits(weights, bias, x_zp):
        wrong = int(np.flatnonzero((folded < -(2**31)) | (folded >= 2**31))[0])
        raise QcompError(
            f"bias with the folded zero point is {folded[wrong]}, outside int32",
            where=f"output channel {wrong}",
            fix="raise that channel's weight scale",
        )
    return folded.astype(np.int32)


def accumulator_reach(weights: Int8, bias: Int32, x_zp: int, words: bool = False) -> npt.NDArray[np.float64]:
    """Bound of |acc| for each output channel, from the weights and any bytes (int16 numbers) that they meet."""
    least, most = (-32768, 32767) if words else (0, 255)
    flat = weights.reshape(weights.shape[0], -1).astype(np.float64)
    folded = bias.astype(np.float64) - x_zp * flat.sum(axis=1)
    negative, positive = np.minimum(flat, 0).sum(axis=1), np.maximum(flat, 0).sum(axis=1)
    low, high = folded + most * negative + least * positive, folded + most * positive + least * negative
    reach: npt.NDArray[np.float64] = np.maximum(np.abs(low), np.abs(high))
    return reach


def padded(values: np.ndarray, length: int) -> np.ndarray:
    """values with zeros appended along axis 0 up to `length`."""
    tail = np.zeros((length - values.shape[0], *values.shape[1:]), values.dtype)
    return np.concatenate([values, tail])


def as_bytes(values: np.ndarray) -> UInt8:
    return np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)


def run_weights(weights: Int8, per_tap: bool) -> Int8:
    """[O, KH, KW, C] -> [O, runs, dwords, 4]: one run per kernel row, or per tap; zeros fill the last dword."""
    outputs, rows, columns, channels = weights.shape
    runs = (rows * columns, channels) if per_tap else (rows, columns * channels)
    flat = weights.reshape(outputs, *runs)
    flat = np.pad(flat, ((0, 0), (0, 0), (0, -runs[1] % 4)))
    return flat.reshape(outputs, runs[0], -1, 4)
