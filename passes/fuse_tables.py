"""fuse-tables: tables compose, and the op that feeds a table applies it itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite

# Ops with an optional table as their last operand, and the operand's index.
TABLE_OPERAND = {"qconv2d": 4, "qconv_transpose2d": 4, "qgemm": 4, "qadd": 2, "qmul": 2}


@dataclass(frozen=True)
class FuseTables(NodeRewrite):
    """Applies a table where its operand is made, when nothing else reads that operand.

    Before: %a = qconv2d(%x, %w, %bias, %mult)
            %y = table(%a, %t)
    After:  %y = qconv2d(%x, %w, %bias, %mult, %t)

    A table of a table is one table; a table that maps every integer to itself is nothing.
    """

    name: ClassVar[str] = "fuse-tables"
    ops: ClassVar[frozenset[str]] = frozenset({"table"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x, table = node.input(0), node.input(1)
        if table.data is None:
            return False
        producer = x.producer
        if np.array_equal(table.data, np.arange(-128, 128)) and x.quant == node.output.quant and producer is not None:
            if graph.is_output(node.output) and graph.is_output(x):
                return False
            graph.replace(node, x)
            return True
        if producer is None or graph.sole_user(x) is not node:
            return False
        if producer.op.name == "table" and producer.input(1).data is not None:
            return _fuse(graph, node, producer, 1, producer.input(1).array, table.data)
        index = TABLE_OPERAND.get(producer.op.name)
        if index is None or "dtype" in producer.attrs and x.dtype.is_float:
            return False
        earlier = producer.optional(index)
        if earlier is not None and earlier.data is None:
            return False
        return _fuse(graph, node, producer, index, None if earlier is None else earlier.data, table.data)


def _fuse(graph: Graph, node: Node, producer: Node, index: int, first: np.ndarray | None, second: np.ndarray) -> bool:
    """The producer with `second` after its own table, in place of both nodes."""
    entries = second if first is None else second[first.astype(np.int64) + 128]
    operands = list(producer.inputs[:index]) + [None] * (index - len(producer.inputs))
    operands.append(graph.constant(entries, "table"))
    new = graph.add(
        producer.op.name,
        operands,
        producer.attrs,
        names=[node.output.name],
        node_name=producer.name,
        quants=[node.output.quant],
    )
    graph.replace(node, new.output)
    return True
