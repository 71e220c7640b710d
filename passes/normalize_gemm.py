"""Brings gemm to its one form: x [M, K], weight [N, K] transposed, bias [N], no factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import along_axis, float32, plain_name, rebuild_weight, weight_source


@dataclass(frozen=True)
class NormalizeGemm(NodeRewrite):
    """gemm with a weight becomes trans_b = true, alpha = beta = 1, with a bias of one number a column.

    Factors go into constants; a quantized weight keeps its grid, so its gemm keeps alpha.

    before:
        %y: f32[2,3] = gemm(%x, %w, %c) {alpha = 2.0, beta = 0.5}
    after:
        %y: f32[2,3] = gemm(%x, %w.1, %c.1) {trans_b = true}
    """

    name = "normalize-gemm"
    exact = False
    tolerance = 1e-5
    ops = frozenset({"gemm"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x, w, c = node.input(0), node.input(1), node.optional(2)
        if weight_source(w) is None or weight_source(x) is not None:
            return False
        attrs = dict(node.attrs)
        alpha, beta = node.call.float("alpha"), node.call.float("beta")
        if attrs["trans_a"]:
            x = graph.add("transpose", [x], {"perm": (1, 0)}, names=[f"{x.name}.t"]).output
            attrs["trans_a"] = False
        if not attrs["trans_b"]:
            w = rebuild_weight(graph, w, np.transpose, lambda axis: 1 - axis)
            attrs["trans_b"] = True
        if alpha != 1.0 and w.data is not None:
            w = graph.constant(float32(w.data.astype(np.float64) * alpha), plain_name(w))
            attrs["alpha"] = 1.0
        bias = _bias_vector(graph, c, beta, node) if c is not None else None
        if bias is not None or c is None:
            attrs["beta"] = 1.0
            c = bias
        if attrs == node.attrs and c is node.optional(2):
            return False
        graph.replace(node, graph.add("gemm", [x, w, c], attrs, names=[node.name], node_name=node.name).output)
        return True


def _bias_vector(graph: Graph, c: Value, beta: float, node: Node) -> Value | None:
    """beta · c as one number a column; c itself where it is that already; None where it cannot be."""
    columns = node.output.shape[1]
    if beta == 1.0 and c.shape == (columns,):
        return c
    if c.data is None:
        return None
    vector = along_axis(c.data, node.output.shape, 1)
    return None if vector is None else graph.constant(float32(vector * beta), plain_name(c))
