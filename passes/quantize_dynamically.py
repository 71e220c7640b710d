"""Products with constant weights whose input, or state, gets its grid at run time: int8 without calibration data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.ir.affine import int8_weights
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.requantize import MOST_TAPS
from qcomp.ir.types import DType
from qcomp.passes.base import NodeRewrite
from qcomp.passes.integer_regions import is_product
from qcomp.passes.matching import plain_name
from qcomp.passes.precision import chosen_float


@dataclass(frozen=True)
class QuantizeDynamically(NodeRewrite):
    """gemm with constant float weights becomes dynamic_qgemm; recurrent weights of lstm and gru become int8.

    Each row of the input gets a grid of its own, so that a result does not depend on what else is in the batch;
    weights are symmetric int8, one scale an output channel (`per_tensor`: one for all).

    before:
        %y: f32[2,4] = gemm(%x, %w, %b) {trans_b = true}
    after:
        %q: i8[2,8], %s: f32[2], %z: i8[2] = dynamic_quantize(%x) {dtype = !i8, per_row = true}
        %y: f32[2,4] = dynamic_qgemm(%q, %s, %z, %w.1, %w.scale, %b)
    """

    name = "quantize-dynamically"
    exact = False
    tolerance = math.inf
    ops = frozenset({"gemm", "lstm", "gru"})

    per_tensor: bool = False

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if chosen_float(graph, node):
            return False
        return self._gemm(graph, node) if node.op.name == "gemm" else quantize_layer(graph, node, self.per_tensor, 0.0)

    def _gemm(self, graph: Graph, node: Node) -> bool:
        x, w, bias = node.input(0), node.input(1), node.optional(2)
        if not is_product(node) or not (bias is None or bias.is_constant) or not may_be_int8(w, x.shape[-1]):
            return False
        by_column = w.array if node.attrs["trans_b"] else w.array.T
        weights, scales = stored_weights(graph, w, by_column, self.per_tensor, node.call.float("alpha"))
        rows = graph.add("dynamic_quantize", [x], {"dtype": DType.I8, "per_row": True}, names=[f"{x.name}.q"])
        added = None
        if bias is not None:
            vector = np.broadcast_to(bias.array.reshape(-1), scales.shape)
            added = graph.constant(np.ascontiguousarray(vector), plain_name(bias))
        operands = [*rows.outputs, weights, scales, added]
        product = graph.add("dynamic_qgemm", operands, names=[node.output.name], node_name=node.name)
        graph.replace(node, product.output)
        return True


def stored_weights(
    graph: Graph, value: Value, weights: np.ndarray, per_tensor: bool, factor: float = 1.0
) -> tuple[Value, Value]:
    """Constants of weights [N, K] as symmetric int8, and of their scales [N] times a factor."""
    integers, scales = int8_weights(weights, per_tensor)
    name = plain_name(value)
    return graph.constant(integers, name), graph.constant(scales * np.float32(factor), f"{name}.scale")


def quantize_layer(graph: Graph, node: Node, per_tensor: bool, state_scale: float) -> bool:
    """Gives lstm or gru int8 weights, where they are float constants; True if it did."""
    r = node.input(1)
    if not may_be_int8(r, r.shape[-1]):
        return False
    weights, scales = stored_weights(graph, r, r.array, per_tensor)
    operands = [node.input(0), weights, node.optional(2), node.optional(3), scales]
    attrs = {**node.attrs, "state_scale": state_scale}
    layer = graph.add(node.op.name, operands, attrs, names=[v.name for v in node.outputs], node_name=node.name)
    graph.replace(node, *layer.outputs)
    return True


def may_be_int8(weights: Value, taps: int) -> bool:
    """Whether float weights are constant, finite, and few enough a sum."""
    known = weights.is_constant and weights.dtype is DType.F32
    return known and taps <= MOST_TAPS and bool(np.isfinite(weights.array).all())
