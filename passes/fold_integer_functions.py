"""Makes one table of what computes a function of one int8 tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.registry import Call
from qcomp.ir.types import DType, TensorType
from qcomp.passes.base import NodeRewrite


@dataclass(frozen=True)
class FoldIntegerFunctions(NodeRewrite):
    """qadd or qmul of tables of the same tensor, or of a tensor and one number, becomes a table of that tensor.

    A quantized x · sigmoid(x), which some tools write as two nodes with a grid between them, is one table then, bit for
    bit.

    before:
        %s: i8[1,4] q(0.0078125, -128) = table(%x, %sigmoid)
        %y: i8[1,4] q(0.5, 0) = qmul(%x, %s) {mult = 0.0078125, b_zp = -128}
    after:
        %y: i8[1,4] q(0.5, 0) = table(%x, %table)
    """

    name = "fold-integer-functions"
    exact = True
    ops = frozenset({"qadd", "qmul"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        origins = [_origins(node.input(index)) for index in (0, 1)]
        shared = _shared_origin(*origins)
        table = node.optional(2)
        if shared is None or shared.shape != node.output.shape or (table is not None and table.data is None):
            return False
        if not shared.dtype is node.output.dtype is DType.I8:
            return False
        arrays = [_entries(node.input(i), origins[i], shared) for i in (0, 1)]
        type = TensorType(node.output.dtype, (256,))
        operands = arrays if table is None else [*arrays, table.array]
        call = Call(tuple(TensorType.of(a) for a in operands), node.attrs, tuple(operands), (type,), node.name)
        (entries,) = node.op.evaluate(call, *operands)
        constant = graph.constant(entries, "table")
        folded = graph.add("table", [shared, constant], node_name=node.name, quants=[node.output.quant])
        graph.replace(node, folded.output)
        return True


def _origins(value: Value) -> list[tuple[Value, np.ndarray]]:
    """The value and what it is a table of, nearest first, each with the 256 entries that lead from it to the value."""
    found = [(value, np.arange(-128, 128).astype(np.int8))]
    while value.producer is not None and value.producer.op.name == "table":
        table = value.producer.input(1).data
        if table is None:
            break
        value = value.producer.input(0)
        found.append((value, found[-1][1][table.astype(np.int64) + 128]))
    return found


def _shared_origin(a: list[tuple[Value, np.ndarray]], b: list[tuple[Value, np.ndarray]]) -> Value | None:
    """The nearest value that both operands are functions of; a constant of one element is a function of anything."""
    for one, other in ((a, b), (b, a)):
        if one[0][0].is_constant:
            single = one[0][0].type.elements == 1 and not other[0][0].is_constant
            return other[0][0] if single else None
    known = {value for value, _ in b}
    return next((value for value, _ in a if value in known), None)


def _entries(value: Value, origins: list[tuple[Value, np.ndarray]], shared: Value) -> np.ndarray:
    if value.data is not None:
        return np.full(256, value.data.reshape(-1)[0])
    return next(entries for origin, entries in origins if origin is shared)
