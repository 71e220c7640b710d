"""Recurrent layers whose state lies between -1 and 1: int8 on a grid that is known before they run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite
from qcomp.passes.precision import chosen_float
from qcomp.passes.quantize_dynamically import quantize_layer

_STEP = float(np.float32(1 / 127))


@dataclass(frozen=True)
class QuantizeState(NodeRewrite):
    """Recurrent weights of lstm and gru become int8, and their state int8 in steps of 1/127.

    What gates give lies between -1 and 1, so this grid fits without a look at data, where the initial state does too:
    layers that are given one as an operand that is computed stay.

    before:
        %y: f32[3,1,2], %h: f32[1,2], %c: f32[1,2] = lstm(%x, %r)
    after:
        %y: f32[3,1,2], %h: f32[1,2], %c: f32[1,2] = lstm(%x, %r.1, %r.scale) {state_scale = 0.007874016}
    """

    name = "quantize-state"
    exact = False
    tolerance = math.inf
    ops = frozenset({"lstm", "gru"})

    per_tensor: bool = False

    def rewrite(self, graph: Graph, node: Node) -> bool:
        initial = node.optional(2 if node.op.name == "lstm" else 3)
        if chosen_float(graph, node):
            return False
        if initial is not None and not (initial.is_constant and np.abs(initial.array).max(initial=0) <= 1):
            return False
        return quantize_layer(graph, node, self.per_tensor, _STEP)
