"""Packing of weights, biases and multipliers, done once when compiling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcomp.codegen.c.vector.packing import as_bytes, padded
from qcomp.codegen.c.vector.shapes import Float32, Int8, Int32, UInt8
from qcomp.codegen.c.x86.isa import FLOAT_OFFSET, Isa
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
