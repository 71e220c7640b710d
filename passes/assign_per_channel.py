"""assign-per-channel: one symmetric weight scale for each output channel, wide enough for bias and accumulator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.affine import MIN_SCALE, weight_scales
from qcomp.ir.graph import Graph, Node
from qcomp.ir.types import Quantization
from qcomp.passes.base import NodeRewrite
from qcomp.passes.insert_fake_quant import grid_of
from qcomp.passes.integer_regions import PRODUCTS, is_product
from qcomp.passes.matching import weight_axis
from qcomp.passes.precision import chosen_float

# |bias| and |Σ| share the accumulator: each may take a bit less than half of int32.
_BIAS_LIMIT = 2.0**30


def _any_weight(weights: np.ndarray, axis: int | None) -> np.ndarray:
    """bool[channels] (or [1] without an axis): whether a channel has a weight other than zero."""
    flat = weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    return np.asarray(flat.any(axis=1))


@dataclass(frozen=True)
class AssignPerChannel(NodeRewrite):
    """Rounds constant weights of products to int8 grids.

    Before: %y = conv2d(%xq, %w)
    After:  %wq = fake_quant(%w) {quant = q([0.011, 0.02], [], axis=0)}
            %y = conv2d(%xq, %wq)

    Scales are largest magnitude / 127.  Where a bias would not fit int32 in units of s_x·s_w[c], that channel's
    scale is raised until it does; a channel without weights gets the scale that resolves its bias best.
    `per_tensor` gives one scale for all channels.  Products that were chosen to stay float32 keep their weights.
    """

    name: ClassVar[str] = "assign-per-channel"
    ops: ClassVar[frozenset[str]] = PRODUCTS
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf

    per_tensor: bool = False

    def rewrite(self, graph: Graph, node: Node) -> bool:
        weights = node.input(1)
        if not is_product(node) or not weights.is_constant or chosen_float(graph, node):
            return False
        axis = weight_axis(node)
        scales = weight_scales(weights.array, None if self.per_tensor else axis)
        grid = grid_of(node.input(0))
        bias = node.optional(2)
        if bias is not None and bias.is_constant and grid is not None:
            least = np.abs(bias.array.astype(np.float64)).reshape(-1) / (grid.scale[0] * _BIAS_LIMIT)
            needed = least.max() if self.per_tensor else np.broadcast_to(least, scales.shape)
            # Any scale does for weights that are all zero, but the bias is rounded to steps of it.
            dead = ~_any_weight(weights.array, None if self.per_tensor else axis) & (needed >= MIN_SCALE)
            # A hair above, so that rounding to float32 does not undo it.
            scales = np.where((needed > scales) | dead, needed * 1.000001, scales).astype(np.float32)
        quant = Quantization.per_tensor(float(scales[0])) if self.per_tensor else Quantization.per_channel(scales, axis)
        rounded = graph.add("fake_quant", [weights], {"quant": quant}, names=[f"{weights.name}.q"])
        graph.set_input(node, 1, rounded.output)
        return True
