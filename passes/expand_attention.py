"""expand-attention: attention that stays float32 is computed by the ops that it is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite


@dataclass(frozen=True)
class ExpandAttention(NodeRewrite):
    """attention becomes two products, a softmax, and the scale and mask between.

    before:
        %y: f32[1,4,2,3] = attention(%q, %k, %v, %mask) {scale = 0.125}
    after:
        %q.h: f32[1,2,4,5] = transpose(%q) {perm = [0, 2, 1, 3]}
        %k.h: f32[1,2,5,4] = transpose(%k) {perm = [0, 2, 3, 1]}
        %v.h: f32[1,2,4,3] = transpose(%v) {perm = [0, 2, 1, 3]}
        %y.scores: f32[1,2,4,4] = matmul(%q.h, %k.h)
        %y.scaled: f32[1,2,4,4] = mul(%y.scores, %scale)
        %y.masked: f32[1,2,4,4] = add(%y.scaled, %mask)
        %y.weights: f32[1,2,4,4] = softmax(%y.masked) {axis = 3}
        %y.h: f32[1,2,4,3] = matmul(%y.weights, %v.h)
        %y: f32[1,4,2,3] = transpose(%y.h) {perm = [0, 2, 1, 3]}
    """

    name = "expand-attention"
    ops = frozenset({"attention"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        name = node.output.name
        q, k, v = (
            graph.add("transpose", [node.input(i)], {"perm": perm}, names=[f"{node.input(i).name}.h"]).output
            for i, perm in enumerate(((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)))
        )
        scores = graph.add("matmul", [q, k], names=[f"{name}.scores"], node_name=node.name).output
        if node.call.float("scale") != 1.0:
            scale = graph.constant(np.asarray(node.call.float("scale"), np.float32), f"{name}.scale")
            scores = graph.add("mul", [scores, scale], names=[f"{name}.scaled"]).output
        mask = node.optional(3)
        if mask is not None:
            scores = graph.add("add", [scores, mask], names=[f"{name}.masked"]).output
        weights = graph.add("softmax", [scores], {"axis": 3}, names=[f"{name}.weights"]).output
        mean = graph.add("matmul", [weights, v], names=[f"{name}.h"], node_name=node.name).output
        graph.replace(node, graph.add("transpose", [mean], {"perm": (0, 2, 1, 3)}).output)
        return True
