"""Which float tensor a value of the integer graph stands for, and how its axes are laid out there.

Passes keep the names of values and append what they did: "relu.q.nhwc.i" is "relu", quantized, channels last.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.graph import Value

_APPENDED = re.compile(r"\.(i|q|w|nhwc|pre|rows|raw|signed|back|copy)(\.\d+)?\Z")
_MOST_AXES = 6


def float_name(name: str, known: Callable[[str], bool]) -> str | None:
    """The name in the float graph: the longest known one, after what passes appended is taken off; None if none is."""
    while not known(name):
        match = _APPENDED.search(name)
        if match is None:
            return None
        name = name[: match.start()]
    return name


@dataclass(frozen=True)
class Layout:
    """Float axes other than those of size 1, in the order that the integer value has them."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def apply(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The float tensor's elements in the shape of the integer value."""
        kept = array.reshape([size for size in array.shape if size > 1])
        return kept.transpose(self.axes).reshape(self.shape)


def layouts(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[Layout, ...]:
    """All ways to reorder axes of a tensor of shape `source` that give shape `target`, sizes of 1 aside; the order as
    it is comes first."""
    have, want = [s for s in source if s > 1], [s for s in target if s > 1]
    if math.prod(source) != math.prod(target) or len(have) != len(want) or len(have) > _MOST_AXES:
        return ()
    found = itertools.permutations(range(len(have)))
    return tuple(Layout(axes, target) for axes in found if [have[a] for a in axes] == want)


class Counterpart:
    """The float tensor of one value.  Where axes of equal size allow several layouts, the first arrays decide: the
    right one is by far the closest."""

    def __init__(self, value: Value, name: str, candidates: tuple[Layout, ...]) -> None:
        self.value, self.name = value, name
        self._candidates = candidates

    def aligned(self, reference: NDArray[np.generic], result: NDArray[np.generic]) -> NDArray[np.generic]:
        """The float tensor in the layout of `result`, the value's real numbers."""
        if len(self._candidates) > 1:
            distances = [_distance(way.apply(reference), result) for way in self._candidates]
            least = min(distances)  # a tensor of one value alone decides nothing
            self._candidates = tuple(
                way for way, distance in zip(self._candidates, distances, strict=True) if distance == least
            )
        return self._candidates[0].apply(reference)


def _distance(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.nansum(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))))


def counterpart(value: Value, shape_of: Callable[[str], tuple[int, ...] | None]) -> Counterpart | None:
    """The counterpart of a value among float tensors, whose shapes `shape_of` tells by name; None if there is none."""
    name = float_name(value.name, lambda known: shape_of(known) is not None)
    shape = None if name is None else shape_of(name)
    if name is None or shape is None:
        return None
    ways = layouts(shape, value.shape)
    return Counterpart(value, name, ways) if ways else None
