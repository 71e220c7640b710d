"""Raises the weight scale of channels whose accumulator might not fit into int32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import Quantization
from qcomp.passes.base import Pass
from qcomp.passes.matching import plain_name
from qcomp.passes.prove_accumulators import INTEGER_PRODUCTS, AccumulatorBounds, accumulator_bounds, node_bounds
from qcomp.passes.range_analysis import analyze_ranges, constant_interval


@dataclass(frozen=True)
class FitAccumulators(Pass):
    """Divides weights and bias of channels that may overflow int32 by what is needed, which their multiplier takes.

    Quantizers give a channel of tiny weights a tiny scale, in which an ordinary bias does not fit into int32; its
    weights lose bits that do not matter next to that bias.  Channels that are proven to fit stay bit for bit.

    before:
        const %bias: i32[2] = [2147483647, 10]
        const %mult: f32[2] = [0.5, 0.5]
        %y: i8[1,2] = qgemm(%x, %w, %bias, %mult)
    after:
        const %bias.1: i32[2] = [2145336164, 10]
        const %mult.1: f32[2] = [0.5005, 0.5]
        %y: i8[1,2] = qgemm(%x, %w.1, %bias.1, %mult.1)
    """

    name: ClassVar[str] = "fit-accumulators"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf

    def run(self, graph: Graph) -> Graph:
        ranges = analyze_ranges(graph)
        products = [node for node in graph.nodes if node.op.name in INTEGER_PRODUCTS]
        for node, bounds in zip(products, accumulator_bounds(graph, ranges), strict=True):
            given, factors = tuple(node.inputs), np.ones(bounds.fits.shape)
            while (needed := _needed(bounds)).any():
                # Rounding may take back a part: then once more.
                factors = np.where(needed, factors * bounds.weight_scale_factor, factors)
                _shrink(graph, node, given, factors)
                ranges.update((v, constant_interval(v)) for v in node.inputs if v is not None and v.is_constant)
                bounds = node_bounds(node, ranges)
        graph.prune()
        return graph


def _needed(bounds: AccumulatorBounds) -> np.ndarray:
    """bool[O]: channels that larger weight scales help.  Only what shrinks with the weights can be helped: the result
    itself may be what does not fit."""
    return np.asarray(~bounds.fits & (bounds.scaled < 2.0**31))


def _shrink(graph: Graph, node: Node, given: Sequence[Value | None], factors: np.ndarray) -> None:
    """Gives the product its operands with weights and bias of each channel divided by a factor."""
    weights, bias, mult = (value for value in given[1:4] if value is not None)
    per_row = factors.reshape(-1, *(1,) * (weights.type.rank - 1))
    replacements = (
        (1, weights, np.rint(weights.array / per_row).astype(np.int8), _widened(weights, factors)),
        (2, bias, np.rint(bias.array / factors).astype(np.int32), None),
        (3, mult, (mult.array * factors).astype(np.float32), None),
    )
    for index, old, array, quant in replacements:
        graph.set_input(node, index, graph.constant(array, plain_name(old), quant))


def _widened(weights: Value, factors: np.ndarray) -> Quantization | None:
    """The quantization of the weights after their integers are divided."""
    quant = weights.quant
    if quant is None:
        return None
    scales = np.broadcast_to(np.asarray(quant.scale), factors.shape) * factors
    return Quantization.per_channel(scales, 0)
