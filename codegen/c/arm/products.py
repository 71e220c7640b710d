"""How int8 dot products are made: tiles of pixels times vectors of four channels, by SDOT, SMMLA or SMLAL.

SDOT takes four taps of one pixel for four channels, SMMLA eight taps of two pixels for two channels each, widening
multiplications two taps of one pixel for four channels; a form says how bias and weights lie in memory for it, and how
its accumulators are grouped for the ending.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.arm.ending import Group
from qcomp.codegen.c.vector.shapes import Int8

#: Channels of a vector of accumulators.
LANES = 4


@dataclass(frozen=True)
class Products(ABC):
    """One form; `unit` taps are multiplied and added by an instruction for each output, `loaded` taps of a pixel are
    loaded at once.

    heights: for tiles of one vector of channels, two, ... the most pixels whose accumulators, with what is loaded for
    them, fit in registers.  from_end: loads of a pixel count from the end of the taps that are loaded at once."""

    name: str
    feature: str
    unit: int
    loaded: int
    heights: tuple[int, ...]
    from_end: bool

    @abstractmethod
    def lanes(self, values: np.ndarray) -> np.ndarray:
        """Values of a tile's channels, [4 * vectors], as accumulators hold channels."""

    @abstractmethod
    def weights(self, weights: Int8) -> Int8:
        """A tile's weights [4 * vectors, runs, taps], taps a multiple of `unit`, in the order of reading."""

    @abstractmethod
    def groups(self, pixels: int, vectors: int) -> tuple[Group, ...]:
        """The accumulators of a tile, as the results of whole vectors."""

    def multiplies(self, weights: Int8) -> bool:
        """Whether products with any int8 activations come out right."""
        return True

    @abstractmethod
    def rate(self, taps: int, pixels: int) -> float:
        """Products of a tap and a weight that an instruction adds up, for lines of pixels and runs of taps that leave
        some of it unused."""

    def covered(self, pixels: int, vectors: int) -> list[tuple[int, int]]:
        """(pixels, repeats) of the tiles that cover a line."""
        most = self.heights[vectors - 1]
        full, rest = divmod(pixels, most)
        return [(rows, repeats) for rows, repeats in ((most, full), (rest, 1)) if rows and repeats]


class _ByPixel(Products):
    """A vector of accumulators has four channels of a pixel."""

    def lanes(self, values: np.ndarray) -> np.ndarray:
        return values

    def rate(self, taps: int, pixels: int) -> float:
        return 16 * taps / (taps + -taps % self.unit)

    def groups(self, pixels: int, vectors: int) -> tuple[Group, ...]:
        scales = tuple(f"s{v}" for v in range(vectors))
        return tuple(Group(tuple(f"c{m}_{v}" for v in range(vectors)), scales, (m,)) for m in range(pixels))

    def covered(self, pixels: int, vectors: int) -> list[tuple[int, int]]:
        """As equal as can be."""
        count = -(-pixels // self.heights[vectors - 1])
        rows, more = divmod(pixels, count)
        return [(height, repeats) for height, repeats in ((rows + 1, more), (rows, count - more)) if repeats]


class Sdot(_ByPixel):
    """Four taps a lane; of sixteen taps in a row the pixel is loaded once."""

    def weights(self, weights: Int8) -> Int8:
        channels, runs, taps = weights.shape
        return weights.reshape(channels, runs, taps // 4, 4).transpose(1, 2, 0, 3)


class Smlal(_ByPixel):
    """Two taps a lane, and two more eight taps on: four products add up in 16 bits before they join sums of 32.

    Of the four pairs in eight taps, channel n of four meets pair n ^ t with each t of `turns`."""

    turns = (0, 1, 3, 2)

    def weights(self, weights: Int8) -> Int8:
        channels, runs, taps = weights.shape
        whole = taps // 16 * 16
        parts = [part for run in range(runs) for part in (weights[:, run, :whole], weights[:, run, whole:])]
        return np.concatenate([self._turned(part) for part in parts])

    def _turned(self, weights: Int8) -> Int8:
        """[channels, taps] -> bytes: by sixteen taps (or the last eight) each turn's vectors."""
        channels, taps = weights.shape
        eights = 2 if taps >= 16 else 1
        split = weights.reshape(channels // LANES, LANES, -1, eights, 4, 2)
        turned = [np.stack([split[:, n, :, :, n ^ turn] for n in range(LANES)], axis=3) for turn in self.turns]
        # turns of [vectors, sixteens, eights, n, 2] -> [sixteens, turns, vectors, eights, n, 2]
        return np.stack(turned).transpose(2, 0, 1, 3, 4, 5).reshape(-1)

    def rate(self, taps: int, pixels: int) -> float:
        return super().rate(taps, pixels) / 3  # two multiplications and a sum

    def multiplies(self, weights: Int8) -> bool:
        return int(weights.min(initial=0)) > -128


class Smmla(Products):
    """Eight taps of two pixels (rows) and two channels (columns): accumulators are [r0c0, r0c1, r1c0, r1c1]."""

    def rate(self, taps: int, pixels: int) -> float:
        return 32 * taps / (taps + -taps % self.unit) * pixels / (pixels + pixels % 2)

    def lanes(self, values: np.ndarray) -> np.ndarray:
        pairs = values.reshape(-1, 2)
        return np.concatenate([pairs, pairs], axis=1).reshape(-1)

    def weights(self, weights: Int8) -> Int8:
        channels, runs, taps = weights.shape
        return weights.reshape(channels, runs, taps // 8, 8).transpose(1, 2, 0, 3)

    def groups(self, pixels: int, vectors: int) -> tuple[Group, ...]:
        columns = range(2 * vectors)
        return tuple(
            Group(
                tuple(f"c{p}_{j}" for j in columns), tuple(f"s{j}" for j in columns),
                tuple(range(2 * p, min(2 * p + 2, pixels))), paired=True,
            )
            for p in range(-(-pixels // 2))
        )  # fmt: skip


SDOT = Sdot("sdot", "dotprod", 4, 16, (8, 8, 7, 6), True)
SMLAL = Smlal("smlal", "neon", 8, 16, (6, 6, 6, 5), True)
SMMLA = Smmla("smmla", "i8mm", 8, 8, (8, 8, 6, 6), False)
