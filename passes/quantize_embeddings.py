"""quantize-embeddings: tables that indices pick rows from are stored as int8, each row with a scale of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.affine import int8_weights
from qcomp.ir.graph import Graph, Node
from qcomp.ir.types import DType
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import plain_name
from qcomp.passes.precision import chosen_float

LEAST = 4096


def picks_rows(node: Node, least: int = LEAST) -> bool:
    """Whether a node picks rows, by computed indices, from a constant table that is worth int8."""
    if node.op.name != "gather" or node.call.int("axis") != 0:
        return False
    table, picked = node.input(0), node.input(1)
    if table.data is None or table.dtype is not DType.F32 or table.type.rank != 2 or picked.is_constant:
        return False
    return table.type.elements >= least and table.shape[1] >= 2 and bool(np.isfinite(table.array).all())


@dataclass(frozen=True)
class QuantizeEmbeddings(NodeRewrite):
    """The rows that a gather picks from a constant are dequantized after they are picked.

    Before: %y: f32[1,6,384] = gather(%table, %ids) {axis = 0}                          table: f32[30522,384]
    After:  %y.rows: i8[1,6,384] = gather(%table.1, %ids) {axis = 0}
            %y.steps: f32[1,6,384] = cast(%y.rows) {dtype = !f32}
            %y.scale: f32[1,6,1] = gather(%table.scale, %ids) {axis = 0}
            %y: f32[1,6,384] = mul(%y.steps, %y.scale)

    Scales are largest magnitude / 127 of a row.  Tables of fewer than `least` elements stay: they save nothing.  So do
    those of gathers that were chosen to stay float32.
    """

    name: ClassVar[str] = "quantize-embeddings"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf
    ops: ClassVar[frozenset[str]] = frozenset({"gather"})

    least: int = LEAST

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if not picks_rows(node, self.least) or chosen_float(graph, node):
            return False
        table, picked = node.input(0), node.input(1)
        steps, scales = int8_weights(table.array)
        name = plain_name(table)
        attrs, result = {"axis": 0}, node.output.name
        stored, factors = graph.constant(steps, name), graph.constant(scales.reshape(-1, 1), f"{name}.scale")
        rows = graph.add("gather", [stored, picked], attrs, names=[f"{result}.rows"], node_name=node.name)
        real = graph.add("cast", [rows.output], {"dtype": DType.F32}, names=[f"{result}.steps"])
        scale = graph.add("gather", [factors, picked], attrs, names=[f"{result}.scale"])
        graph.replace(node, graph.add("mul", [real.output, scale.output]).output)
        return True
