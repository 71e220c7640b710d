"""Chains of elementwise nodes, each the only user of the one before."""

from __future__ import annotations

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import Quantization
from qcomp.passes.matching import BINARY, UNARY, constant_operand


def chain_operand(node: Node) -> Value | None:
    """The operand of a node that treats all elements alike (so it does not care about shapes); else None."""
    name = node.op.name
    if name in UNARY:
        return node.input(0)
    if name in ("fake_quant", "quantize"):
        quant = node.attrs["quant"]
        return node.input(0) if isinstance(quant, Quantization) and quant.axis is None else None
    if name == "dequantize":
        grid = node.input(0).quant
        return node.input(0) if grid is not None and grid.axis is None else None
    if name in BINARY:
        pair = constant_operand(node)
        if pair is not None and pair[1].type.elements == 1 and pair[0].type.rank >= pair[1].type.rank:
            return pair[0]
    return None


def repeat_on(graph: Graph, node: Node, x: Value) -> Value:
    """The same elementwise node with its chain operand replaced by `x`."""
    operand = chain_operand(node)
    flat: list[Value | None] = []
    for value in node.inputs:
        if value is operand:
            flat.append(x)
        elif value is not None and value.data is not None and value.type.rank > 0:
            flat.append(graph.constant(value.data.reshape(()), value.name))
        else:
            flat.append(value)
    hint = f"{node.name}.moved"
    return graph.add(
        node.op.name, flat, node.attrs, names=[hint], node_name=node.name, quants=[node.output.quant]
    ).output
