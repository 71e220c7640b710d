"""fold-fake-quant: fake quantization becomes part of the types; integers travel as far as nothing rounds between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.ops.quantized import dequantize_array, quantize_array
from qcomp.ir.types import DType, Quantization
from qcomp.passes.base import NodeRewrite, may_become
from qcomp.passes.integer_regions import MOVEMENT


@dataclass(frozen=True)
class FoldFakeQuant(NodeRewrite):
    """Turns fake_quant into quantize and dequantize, and moves dequantize down past data movement.

    Before: %a = fake_quant(%x) {quant = q(0.1, 0)}
            %b = reshape(%a) {shape = [4]}
            %c = fake_quant(%b) {quant = q(0.1, 0)}
    After:  %q = quantize(%x) {quant = q(0.1, 0)}
            %r = reshape(%q) {shape = [4]}
            %c = dequantize(%r)

    fake_quant of a constant becomes an int8 constant and a dequantize.  quantize of a dequantize of the same grid
    is nothing, of another grid a table.  quantize of data movement of reals moves up before it.
    """

    name: ClassVar[str] = "fold-fake-quant"

    def rewrite(self, graph: Graph, node: Node) -> bool:
        name = node.op.name
        if name == "fake_quant":
            return _split(graph, node)
        if name == "quantize":
            return _meet(graph, node) or _hoist(graph, node)
        if name in MOVEMENT:
            return _sink(graph, node)
        return False


def _grid(node: Node) -> tuple[Quantization, DType]:
    quant, dtype = node.attrs["quant"], node.attrs["dtype"]
    assert isinstance(quant, Quantization) and isinstance(dtype, DType)
    return quant, dtype


def _split(graph: Graph, node: Node) -> bool:
    quant, dtype = _grid(node)
    x = node.input(0)
    if x.is_constant:
        stored = _quantized(graph, x, node)
    else:
        names = [f"{node.output.name}.i"]
        stored = graph.add("quantize", [x], dict(node.attrs), names=names).output
    real = graph.add("dequantize", [stored], names=[node.output.name])
    graph.replace(node, real.output)
    return True


def _dequantized(value: Value) -> Value | None:
    """The integers that a value is the dequantize of."""
    if value.producer is not None and value.producer.op.name == "dequantize":
        return value.producer.input(0)
    return None


def _meet(graph: Graph, node: Node) -> bool:
    stored = _dequantized(node.input(0))
    quant, dtype = _grid(node)
    if stored is None or not may_become(graph, node.output, stored):
        return False
    if stored.quant == quant and stored.dtype is dtype:
        graph.replace(node, stored)
        return True
    if dtype is not DType.I8 or stored.dtype is not DType.I8 or stored.is_constant:
        return False
    if quant.axis is not None or stored.quant is None or stored.quant.axis is not None:
        return False
    every = np.arange(-128, 128).astype(np.int8)
    entries = quantize_array(dequantize_array(every, stored.quant), quant, dtype)
    table = graph.constant(entries, "table")
    new = graph.add("table", [stored, table], names=[node.output.name], quants=[quant])
    graph.replace(node, new.output)
    return True


def _moved(node: Node) -> list[int]:
    """Operand indices of the tensors that a data movement op moves (not indices or fill values)."""
    return list(range(len(node.inputs))) if node.op.name == "concat" else [0]


def _pads_with_value(node: Node) -> bool:
    """A pad whose fill is a constant other than zero: not the same on integers."""
    return node.op.name == "pad" and (node.optional(1) is not None or node.attrs["value"] != 0.0)


def _rounds(node: Node) -> bool:
    """resize that interpolates computes new values."""
    return node.op.name == "resize" and node.attrs["mode"] != "nearest"


def _sink(graph: Graph, node: Node) -> bool:
    """movement(dequantize(q)...) -> dequantize(movement(q...)) when all grids are the same per-tensor one."""
    if _pads_with_value(node) or _rounds(node):
        return False
    stored = [_dequantized(node.input(i)) for i in _moved(node)]
    found = [s for s in stored if s is not None]
    if len(found) != len(stored) or not found or found[0].is_constant:
        return False
    quant = found[0].quant
    if quant is None or quant.axis is not None or any((s.quant, s.dtype) != (quant, found[0].dtype) for s in found):
        return False
    if node.op.name == "max_pool" and found[0].dtype is not DType.I8:
        return False
    new = _on_integers(graph, node, found, quant)
    graph.replace(
        node,
        *[graph.add("dequantize", [v], names=[o.name]).output for v, o in zip(new.outputs, node.outputs, strict=True)],
    )
    return True


def _on_integers(graph: Graph, node: Node, stored: list[Value], quant: Quantization) -> Node:
    operands: list[Value | None] = list(node.inputs)
    for index, value in zip(_moved(node), stored, strict=True):
        operands[index] = value
    names = [f"{v.name}.i" for v in node.outputs]
    quants = [quant] * len(node.outputs)
    return graph.add(node.op.name, operands, dict(node.attrs), names=names, node_name=node.name, quants=quants)


def _quantized(graph: Graph, value: Value, node: Node) -> Value:
    """A value on the grid of a quantize node: a constant, or what a node of its own computes."""
    quant, dtype = _grid(node)
    if value.is_constant:
        return graph.constant(quantize_array(value.array, quant, dtype), value.name, quant)
    return graph.add("quantize", [value], dict(node.attrs), names=[f"{value.name}.i"]).output


def _hoist(graph: Graph, node: Node) -> bool:
    """quantize(movement(x)) -> movement(quantize(x)): smaller data moves, and the producer can fuse the rounding."""
    mover = node.input(0).producer
    quant, dtype = _grid(node)
    if mover is None or mover.op.name not in MOVEMENT or len(mover.outputs) != 1 or quant.axis is not None:
        return False
    if _pads_with_value(mover) or _rounds(mover) or graph.sole_user(mover.output) is not node:
        return False
    if mover.op.name == "max_pool" and dtype is not DType.I8:
        return False
    operands_are_constant = all(mover.input(i).is_constant for i in _moved(mover))
    if mover.op.name in ("expand", "tile", "gather") or operands_are_constant:
        return False
    stored = [_quantized(graph, mover.input(i), node) for i in _moved(mover)]
    operands: list[Value | None] = list(mover.inputs)
    for index, value in zip(_moved(mover), stored, strict=True):
        operands[index] = value
    new = graph.add(
        mover.op.name,
        operands,
        dict(mover.attrs),
        names=[node.output.name],
        node_name=mover.name,
        quants=[quant],
    )
    graph.replace(node, new.output)
    return True
