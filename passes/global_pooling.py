"""Writes means over whole images as average pools."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import is_float32


@dataclass(frozen=True)
class GlobalPooling(NodeRewrite):
    """reduce_mean (reduce_max) over the rows and columns of an NCHW tensor becomes avg_pool (max_pool).

    before:
        %y: f32[1,8] = reduce_mean(%x) {axes = [2, 3], keepdims = false}
    after:
        %y.pool: f32[1,8,1,1] = avg_pool(%x) {kernel = [4, 4]}
        %y: f32[1,8] = reshape(%y.pool) {shape = [1, 8]}
    """

    name = "global-pooling"
    exact = False
    tolerance = 1e-4  # a pool adds its pixels one after another
    ops = frozenset({"reduce_mean", "reduce_max"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x = node.input(0)
        if x.type.rank != 4 or not is_float32(x):
            return False
        if {axis % 4 for axis in node.call.ints("axes")} != {2, 3}:
            return False
        op = "avg_pool" if node.op.name == "reduce_mean" else "max_pool"
        pool = graph.add(op, [x], {"kernel": x.shape[2:]}, names=[f"{node.name}.pool"], node_name=node.name).output
        if pool.shape != node.output.shape:
            pool = graph.add("reshape", [pool], {"shape": node.output.shape}).output
        graph.replace(node, pool)
        return True
