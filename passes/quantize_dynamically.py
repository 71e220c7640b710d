"""Products with constant weights whose input gets its grid at run time: int8 without calibration data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.ir.affine import weight_scales
from qcomp.ir.graph import Graph, Node
from qcomp.ir.ops.dynamic import MOST_TAPS
from qcomp.ir.types import DType
from qcomp.passes.base import NodeRewrite
from qcomp.passes.integer_regions import is_product
from qcomp.passes.matching import plain_name


@dataclass(frozen=True)
class QuantizeDynamically(NodeRewrite):
    """gemm with constant float weights becomes dynamic_qgemm.

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
    ops = frozenset({"gemm"})

    per_tensor: bool = False

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x, w, bias = node.input(0), node.input(1), node.optional(2)
        if not is_product(node) or not w.is_constant or w.dtype is not DType.F32:
            return False
        if bias is not None and not bias.is_constant:
            return False
        weights = w.array if node.attrs["trans_b"] else w.array.T
        columns, depth = weights.shape
        if depth > MOST_TAPS or not np.isfinite(weights).all():
            return False
        scales = np.broadcast_to(weight_scales(weights, None if self.per_tensor else 0), (columns,)).astype(np.float32)
        integers = np.clip(np.rint(weights / scales[:, None]), -127, 127).astype(np.int8)
        name = plain_name(w)
        rows = graph.add("dynamic_quantize", [x], {"dtype": DType.I8, "per_row": True}, names=[f"{x.name}.q"])
        added = None
        if bias is not None:
            vector = np.broadcast_to(bias.array.reshape(-1), (columns,))
            added = graph.constant(np.ascontiguousarray(vector), plain_name(bias))
        operands = [
            *rows.outputs,
            graph.constant(np.ascontiguousarray(integers), name),
            graph.constant(scales * np.float32(node.call.float("alpha")), f"{name}.scale"),
            added,
        ]
        product = graph.add("dynamic_qgemm", operands, names=[node.output.name], node_name=node.name)
        graph.replace(node, product.output)
        return True
