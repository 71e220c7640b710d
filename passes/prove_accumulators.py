"""Proves that the int32 arithmetic of integer products cannot overflow, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node
from qcomp.ir.types import DType
from qcomp.passes.base import Pass
from qcomp.passes.range_analysis import Ranges, analyze_ranges

INTEGER_PRODUCTS = frozenset({"qconv2d", "qconv_transpose2d", "qgemm"})
_LIMIT = float(2**31)


@dataclass(frozen=True)
class AccumulatorBounds:
    """What bounds one product's arithmetic, per output channel; float64 arrays of exact integers of length O.

    `accumulator`: largest |partial sum of Σ(x − x_zp)·w|, with and without the bias.  `folded_bias`: largest
    |bias − zero point · Σw| for int8 and, of an int8 x, for uint8 storage: the bias that code adds to
    uncentred products.  `stored`: largest partial sum of these uncentred products.  `scaled`: largest
    |float32(acc) · mult|, zero where the results are float32 and nothing rounds it to an integer.
    """

    node: str
    accumulator: np.ndarray
    folded_bias: np.ndarray
    stored: np.ndarray
    scaled: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """The largest magnitude of anything that must fit into int32."""
        return np.asarray(np.maximum.reduce([self.accumulator, self.folded_bias, self.stored, self.scaled]))

    @property
    def fits(self) -> np.ndarray:
        """bool[O]: proven to stay below 2^31."""
        return np.asarray(self.largest < _LIMIT)

    @property
    def weight_scale_factor(self) -> np.ndarray:
        """float64[O], at least 1: by how much to raise a channel's weight scale (and shrink its integers) to fit."""
        return np.maximum(1.0, self.largest / (_LIMIT * 0.999))

    @property
    def bits(self) -> int:
        """Bits that the widest accumulator needs, sign included."""
        return int(self.accumulator.max(initial=0.0)).bit_length() + 1


def accumulator_bounds(graph: Graph, ranges: Ranges | None = None) -> tuple[AccumulatorBounds, ...]:
    """Bounds for every integer product with constant weights, bias and multipliers, in graph order.

    Raises QcompError for a product whose weights are computed: nothing can be proven of it.
    """
    ranges = analyze_ranges(graph) if ranges is None else ranges
    return tuple(node_bounds(n, ranges) for n in graph.nodes if n.op.name in INTEGER_PRODUCTS)


def node_bounds(node: Node, ranges: Ranges) -> AccumulatorBounds:
    """Bounds for one such product."""
    arrays = [node.input(i).data for i in (1, 2, 3)]
    if any(a is None for a in arrays):
        raise QcompError("weights, bias and multipliers must be constants", where=repr(node))
    w, bias, mult = (np.asarray(a, np.float64) for a in arrays)
    x_zp = node.call.int("x_zp")
    shift = 128 if node.input(0).dtype is DType.I8 else 0
    low, high = ranges[node.input(0)].span
    flat = w.reshape(w.shape[0], -1)
    positive, negative = np.maximum(flat, 0.0).sum(1), np.minimum(flat, 0.0).sum(1)

    def reach(lo: float, hi: float, start: np.ndarray) -> np.ndarray:
        """Largest |start + partial sum| for terms x·w with x in [lo, hi]; any term may be missing."""
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        most, least = positive * hi + negative * lo, positive * lo + negative * hi
        return np.asarray(np.maximum(np.abs(start + most), np.abs(start + least)))

    nothing = np.zeros_like(bias)
    centred = np.maximum(reach(low - x_zp, high - x_zp, bias), reach(low - x_zp, high - x_zp, nothing))
    sums = positive + negative
    folded = np.maximum(np.abs(bias - x_zp * sums), np.abs(bias - (x_zp + shift) * sums))
    stored = np.maximum.reduce(
        [
            reach(low, high, bias - x_zp * sums),
            reach(low + shift, high + shift, bias - (x_zp + shift) * sums),
            reach(low + shift, high + shift, nothing),
        ]
    )
    scaled = reach(low - x_zp, high - x_zp, bias) * np.abs(mult) * (1 + 2.0**-22)
    if node.output.dtype.is_float:
        scaled = nothing
    return AccumulatorBounds(node.name, np.maximum(centred, np.abs(bias)), folded, stored, scaled)


@dataclass(frozen=True)
class ProveAccumulators(Pass):
    """Refuses a graph with an integer product that could overflow int32; else leaves it as it is.

    before and after:
        %y: i8[1,4,4,8] = qconv2d(%x, %w, %bias, %mult)
    """

    name = "prove-accumulators"

    def run(self, graph: Graph) -> Graph:
        for bounds in accumulator_bounds(graph):
            bad = np.flatnonzero(~bounds.fits)
            if bad.size:
                worst = int(bad[np.argmax(bounds.largest[bad])])
                raise QcompError(
                    f"{bad.size} of {bounds.fits.size} channels can exceed int32 (channel {worst} reaches "
                    f"{bounds.largest[worst]:.3g})",
                    where=bounds.node,
                    fix=f"raise the weight scale of channel {worst} {bounds.weight_scale_factor[worst]:.3g} times",
                )
        return graph


def accumulator_report(graph: Graph, ranges: Ranges | None = None) -> str:
    """One line a product: accumulator bits, headroom below 2^31, and the channels that are not proven."""
    lines = []
    for b in accumulator_bounds(graph, ranges):
        bad = np.flatnonzero(~b.fits)
        verdict = "proven" if not bad.size else f"NOT proven for channels {', '.join(map(str, bad[:8]))}"
        used = b.largest.max(initial=0.0) / _LIMIT
        lines.append(f"{b.node}: {b.fits.size} channels, {b.bits} bits, {used:.2%} of int32 used, {verdict}")
    return "\n".join(lines) + "\n" if lines else ""
