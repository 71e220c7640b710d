"""Gives an addition after a product to the product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.affine import PRODUCTS
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import channel_axis, is_float32, rebuild_weight, sole_producer, weight_source


@dataclass(frozen=True)
class FuseBias(NodeRewrite):
    """An addition of one number a channel to a product without bias becomes its bias.

    Unlike fold-affine-chains it does so for quantized weights and biases too.

    before:
        %m: f32[2,3] = gemm(%x, %w) {trans_b = true}
        %y: f32[2,3] = add(%m, %b)
    after:
        %y: f32[2,3] = gemm(%x, %w, %b) {trans_b = true}
    """

    name = "fuse-bias"
    exact = True
    ops = frozenset({"add"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if not is_float32(node.output):
            return False
        for index in (0, 1):
            product = sole_producer(graph, node.input(index), *PRODUCTS)
            if product is None or product.optional(2) is not None or product.output.shape != node.output.shape:
                continue
            bias = _channel_parameter(graph, node.input(1 - index), product)
            if bias is None:
                continue
            operands = [product.input(0), product.input(1), bias]
            fused = graph.add(product.op.name, operands, product.attrs, node_name=product.name)
            graph.replace(node, fused.output)
            return True
        return False


def _channel_parameter(graph: Graph, value: Value, product: Node) -> Value | None:
    """A parameter that holds one number for each output channel, as a vector."""
    axis = channel_axis(product)
    shape = product.output.shape
    if weight_source(value) is None or value.type.elements != shape[axis]:
        return None
    aligned = (1,) * (len(shape) - value.type.rank) + value.shape
    if len(aligned) != len(shape) or aligned[axis] != shape[axis]:
        return None
    if value.type.rank == 1:
        return value
    return rebuild_weight(graph, value, np.ravel, lambda _: 0)
