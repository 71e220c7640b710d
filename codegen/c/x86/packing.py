"""Packing of weights, biases and multipliers, done once when compiling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcomp.codegen.c.x86.isa import FLOAT_OFFSET, Isa
from qcomp.codegen.c.x86.shapes import Float32, Int8, Int32, UInt8
from qcomp.errors import QcompError
from qcomp.ir.halves import from_halves, to_halves

#: The bits of FLOAT_OFFSET as an integer.
FLOAT_BITS = int(np.float32(FLOAT_OFFSET).view(np.int32))


@dataclass(frozen=True)
class Multipliers:
    """Multipliers as they are stored: halves times `unit` where all of a node are exact so, else floats."""

    values: Float32 | npt.NDArray[np.float16]
    unit: float = 1.0

    @property
    def short(self) -> bool:
        return self.values.dtype == np.float16


def stored_multipliers(mult: Float32) -> Multipliers:
    halves, unit = to_halves(mult)
    return Multipliers(halves, unit) if np.array_equal(from_halves(halves, unit), mult) else Multipliers(mult)


def tile_order(vectors: int, lanes: int) -> list[int]:
    """Channel of each accumulator element of a tile of `vectors` x `lanes` channels.

    vpackssdw and vpackuswb interleave vectors in 128-bit lanes, so element 4L+i of vector j holds channel
    4*vectors*L + 4j + i, and the packed bytes come out (lane by lane) in channel order."""
    return [4 * vectors * (e // 4) + 4 * j + e % 4 for j in range(vectors) for e in range(lanes)]


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


def needs_guard(reach: npt.NDArray[np.float64], mult: Float32, added: float = 0.0) -> bool:
    """Whether float32(acc) * mult, plus at most `added`, may leave the range where conversion to int32 is exact.

    False is a proof from `accumulator_reach`; then the saturating packs alone clamp the result."""
    return not bool(np.all(reach * np.abs(mult.astype(np.float64)) + added < 2.0**30))


def float_bits_fit(reach: npt.NDArray[np.float64], multipliers: Multipliers) -> bool:
    """Whether fma(FLOAT_OFFSET + acc, m, -FLOAT_OFFSET * m) is float32(acc) * m, to the bit, for all channels.

    It is where the sum in the first operand is exact (|acc| < 2**22: it then shares FLOAT_OFFSET's exponent, and its
    bits are FLOAT_BITS + acc) and the last operand is exact: both then round acc * m once."""
    if not multipliers.short:
        return False
    mult = from_halves(np.asarray(multipliers.values, np.float16), multipliers.unit)
    offsets = mult * np.float32(-FLOAT_OFFSET)
    exact = np.array_equal(offsets.astype(np.float64), mult.astype(np.float64) * -FLOAT_OFFSET)
    return exact and bool(np.all(reach < 2.0**22))


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


def by_column(weights: Int8, columns: int) -> Int8:
    """[O, runs, columns * dwords, 4] of `run_weights` -> the same with the columns of each channel's dword adjacent."""
    outputs, runs, dwords, _ = weights.shape
    return weights.reshape(outputs, runs, columns, dwords // columns, 4).swapaxes(2, 3).reshape(weights.shape)


def tail_lanes(isa: Isa, channels: int, vectors: int, interleaved: bool) -> tuple[int, ...]:
    """For each vector of a tile how many of its 128-bit lanes are packed: where the form of products
    allows it, those that hold any of `channels` channels."""
    if not isa.dot.trims:
        return (isa.quarters,) * vectors
    quads = -(-channels // 4)
    if interleaved:
        return tuple(-(-(quads - j) // vectors) for j in range(vectors))
    return tuple(min(isa.quarters, quads - isa.quarters * j) for j in range(vectors))


def pack_tile(isa: Isa, weights: Int8, bias: Int32, vectors: int, interleaved: bool) -> UInt8:
    """bias | weights [runs][dwords][lanes][4][4] of up to `vectors` vectors of output channels.

    weights: [o, runs, dwords, 4]; bias: stored bias [o]; interleaved: channels in `tile_order`. Of each vector of
    weights there are the lanes of `tail_lanes`; zeros follow up to where a load of the last whole vector ends."""
    width = vectors * isa.lanes
    order = tile_order(vectors, isa.lanes) if interleaved else list(range(width))
    lanes = tail_lanes(isa, weights.shape[0], vectors, interleaved)
    w, b = (padded(a, width)[order] for a in (weights, bias))
    body = np.concatenate([w[isa.lanes * j : isa.lanes * j + 4 * n] for j, n in enumerate(lanes)])
    parts = [as_bytes(b), as_bytes(isa.dot.arrange(np.moveaxis(body, 0, 2), isa.lanes))]
    size = sum(part.size for part in parts)
    end = -(-(size + 16 * (isa.quarters - lanes[-1])) // 64) * 64
    return np.concatenate([*parts, np.zeros(end - size, np.uint8)])


def pack_multipliers(isa: Isa, values: npt.NDArray[np.floating], vectors: int, interleaved: bool) -> UInt8:
    """Multipliers of a tile of up to `vectors` vectors of output channels."""
    width = vectors * isa.lanes
    return as_bytes(padded(values, width)[tile_order(vectors, isa.lanes) if interleaved else list(range(width))])
