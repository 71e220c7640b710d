"""Moves the transposes and reshapes of quantized weights into the constants."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node
from qcomp.ir.types import Quantization
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import rebuild_weight, weight_source


@dataclass(frozen=True)
class HoistWeightMovement(NodeRewrite):
    """transpose or reshape of a dequantized or fake-quantized constant becomes one of the constant itself.

    A reshape keeps a per-channel grid only if the channel's dimension and all before it stay.

    before:
        const %w: i8[2,3] q([0.5, 0.25], [], axis=0) = [1, 2, 3, 4, 5, 6]
        %d: f32[2,3] = dequantize(%w)
        %t: f32[3,2] = transpose(%d) {perm = [1, 0]}
    after:
        const %w.1: i8[3,2] q([0.5, 0.25], [], axis=1) = [1, 4, 2, 5, 3, 6]
        %t: f32[3,2] = dequantize(%w.1)
    """

    name = "hoist-weight-movement"
    exact = True
    ops = frozenset({"transpose", "reshape"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x, shape = node.input(0), node.output.shape
        source = weight_source(x)
        if x.is_constant or source is None or graph.is_output(node.output):
            return False
        if node.op.name == "transpose":
            perm = node.call.ints("perm")
            moved = rebuild_weight(graph, x, lambda w: w.transpose(perm), perm.index)
        else:
            assert x.producer is not None
            quant = source.quant or x.producer.attrs.get("quant")
            if isinstance(quant, Quantization) and quant.axis is not None and not _keeps(x.shape, shape, quant.axis):
                return False
            moved = rebuild_weight(graph, x, lambda w: w.reshape(shape), lambda axis: axis)
        graph.replace(node, moved)
        return True


def _keeps(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> bool:
    """Whether dimension `axis` means the same in both shapes."""
    if axis >= len(after) or before[axis] != after[axis]:
        return False
    return math.prod(before[:axis]) == math.prod(after[:axis])
