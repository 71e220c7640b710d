"""How int8 dot products are made: tiles of pixels times vectors of four channels, by SDOT or by SMMLA.

SDOT takes four taps of one pixel for four channels, SMMLA eight taps of two pixels for two channels each; a form says
how bias and weights lie in memory for it, and how its accumulators become rows of four channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.codegen.c.x86.shapes import Int8, Int32

Bytes = NDArray[np.uint8]
#: Channels of a vector of accumulators.
LANES = 4
#: By vectors of channels: the most pixels whose accumulators, with a pixel's and a vector of weights, fit in registers.
HEIGHTS = {4: 6, 3: 8, 2: 8, 1: 8}


@dataclass(frozen=True)
class Products(ABC):
    """One form; `unit` taps are multiplied and added by an instruction for each output."""

    name: str
    feature: str
    unit: int

    @abstractmethod
    def bias(self, bias: Int32) -> Int32:
        """A tile's bias, int32 [4 * vectors], as accumulators start from it."""

    @abstractmethod
    def weights(self, weights: Int8) -> Int8:
        """A tile's weights [4 * vectors, runs, taps], taps a multiple of `unit`, in the order of reading."""


class Sdot(Products):
    """Four taps a lane; of sixteen taps in a row the pixel is loaded once."""

    def bias(self, bias: Int32) -> Int32:
        return bias

    def weights(self, weights: Int8) -> Int8:
        channels, runs, taps = weights.shape
        return weights.reshape(channels, runs, taps // 4, 4).transpose(1, 2, 0, 3)


class Smmla(Products):
    """Eight taps of two pixels (rows) and two channels (columns): accumulators are [r0c0, r0c1, r1c0, r1c1]."""

    def bias(self, bias: Int32) -> Int32:
        pairs = bias.reshape(-1, 2)
        return np.concatenate([pairs, pairs], axis=1).reshape(-1)

    def weights(self, weights: Int8) -> Int8:
        channels, runs, taps = weights.shape
        return weights.reshape(channels, runs, taps // 8, 8).transpose(1, 2, 0, 3)


SDOT = Sdot("sdot", "dotprod", 4)
SMMLA = Smmla("smmla", "i8mm", 8)
