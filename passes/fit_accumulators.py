"""Raises the weight scale of channels whose accumulator might not fit into int32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import Quantization
from qcomp.passes.base import Pass
from qcomp.passes.matching import plain_name
from qcomp.passes.prove_accumulators import INTEGER_PRODUCTS, accumulator_bounds


@dataclass(frozen=True)
class FitAccumulators(Pass):
    """Divides weights and bias of channels that may overflow int32 by a power of two, which their multiplier takes.

    Quantizers give a channel of tiny weights a tiny scale, in which an ordinary bias does not fit into int32; its
    weights lose bits that do not matter next to that bias.  Channels that are proven to fit stay bit for bit.

    before:
        const %bias: i32[2] = [2147483647, 10]
        const %mult: f32[2] = [0.5, 0.5]
        %y: i8[1,2] = qgemm(%x, %w, %bias, %mult)
    after:
        const %bias.1: i32[2] = [1073741824, 10]
        const %mult.1: f32[2] = [1.0, 0.5]
        %y: i8[1,2] = qgemm(%x, %w.1, %bias.1, %mult.1)
    """

    name: ClassVar[str] = "fit-accumulators"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf

    def run(self, graph: Graph) -> Graph:
        products = [node for node in graph.nodes if node.op.name in INTEGER_PRODUCTS]
        for node, bounds in zip(products, accumulator_bounds(graph), strict=True):
            # Only what shrinks with the weights can be helped: the result itself may be what does not fit.
            factors = 2.0 ** np.ceil(np.log2(bounds.weight_scale_factor))
            fitting = np.where(bounds.fits | (bounds.scaled >= 2.0**31), 1.0, factors)
            if (fitting != 1.0).any():
                _shrink(graph, node, fitting)
        graph.prune()
        return graph


def _shrink(graph: Graph, node: Node, factors: np.ndarray) -> None:
    weights, bias, mult = (node.input(index) for index in (1, 2, 3))
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
