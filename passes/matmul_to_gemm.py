"""Writes products with a weight matrix as gemm, the form that becomes integer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import is_float32, rebuild_weight, weight_source


@dataclass(frozen=True)
class MatmulToGemm(NodeRewrite):
    """matmul of activations [..., K] with a weight [K, N], and an addition of N numbers after it, becomes gemm.

    Leading dimensions are flattened.  The weight may be a constant, or what fake_quant or dequantize makes of one.

    before:
        %m: f32[2,5,8] = matmul(%x, %w)
        %y: f32[2,5,8] = add(%m, %b)
    after:
        %x.rows: f32[10,4] = reshape(%x) {shape = [10, 4]}
        %y.rows: f32[10,8] = gemm(%x.rows, %w.1, %b) {trans_b = true}
        %y: f32[2,5,8] = reshape(%y.rows) {shape = [2, 5, 8]}
    """

    name = "matmul-to-gemm"
    exact = True
    ops = frozenset({"matmul"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x, w = node.input(0), node.input(1)
        if w.type.rank != 2 or weight_source(w) is None or weight_source(x) is not None or not is_float32(x):
            return False
        last, bias = node, None
        addition = graph.sole_user(node.output)
        if addition is not None and addition.op.name == "add":
            other = addition.input(1) if addition.input(0) is node.output else addition.input(0)
            bias = _row_vector(graph, other, w.shape[1]) if addition.output.shape == node.output.shape else None
            last = addition if bias is not None else node
        rows = math.prod(x.shape[:-1])
        if x.type.rank != 2:
            x = graph.add("reshape", [x], {"shape": (rows, w.shape[0])}, names=[f"{x.name}.rows"]).output
        weight = rebuild_weight(graph, w, np.transpose, lambda axis: 1 - axis)
        hint = last.name if last.output.type.rank == 2 else f"{last.name}.rows"
        result = graph.add("gemm", [x, weight, bias], {"trans_b": True}, names=[hint], node_name=node.name).output
        if last.output.type.rank != 2:
            result = graph.add("reshape", [result], {"shape": last.output.shape}).output
        graph.replace(last, result)
        return True


def _row_vector(graph: Graph, value: Value, size: int) -> Value | None:
    """A parameter of `size` numbers along its last axis, as a vector."""
    source = weight_source(value)
    if source is None or value.type.elements != size or value.shape[-1:] != (size,):
        return None
    if value.type.rank == 1:
        return value
    return rebuild_weight(graph, value, np.ravel, lambda axis: 0)
