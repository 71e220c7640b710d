"""signed-edges: unsigned integers at the model's edges get a signed grid inside, so that integer ops take them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType, Quantization
from qcomp.passes.base import NodeRewrite

_HALF = 128


@dataclass(frozen=True)
class SignedEdges(NodeRewrite):
    """Adds the fake_quant that changes nothing behind dequantize of uint8, and before quantize to uint8.

    Before: %r = dequantize(%x)                                      x: u8 q(0.1, 128)
            %y = quantize(%s) {quant = q(0.2, 130), dtype = !u8}
    After:  %d = dequantize(%x)
            %r = fake_quant(%d) {quant = q(0.1, 0)}
            %f = fake_quant(%s) {quant = q(0.2, 2)}
            %y = quantize(%f) {quant = q(0.2, 130), dtype = !u8}

    Both grids hold the same reals, and a real that a grid holds is its own quantization, so no bit changes.
    """

    name: ClassVar[str] = "signed-edges"
    ops: ClassVar[frozenset[str]] = frozenset({"dequantize", "quantize"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if node.op.name == "dequantize":
            return _after(graph, node)
        return _before(graph, node)


def _signed(quant: Quantization | None, dtype: DType) -> Quantization | None:
    """The int8 grid of the same reals as a per-tensor uint8 one."""
    if quant is None or quant.axis is not None or dtype is not DType.U8:
        return None
    return Quantization(quant.scale, (quant.zero_point[0] - _HALF,))


def _after(graph: Graph, node: Node) -> bool:
    stored, real = node.input(0), node.output
    grid = _signed(stored.quant, stored.dtype)
    uses = [(user, index) for user, index in graph.uses(real) if not _rounds_to(user, grid)]
    if grid is None or stored.is_constant or not uses:
        return False
    same = graph.add("fake_quant", [real], {"quant": grid}, names=[f"{real.name}.signed"]).output
    for user, index in uses:
        graph.set_input(user, index, same)
    return True


def _before(graph: Graph, node: Node) -> bool:
    real, dtype, quant = node.input(0), node.attrs["dtype"], node.attrs["quant"]
    assert isinstance(dtype, DType) and isinstance(quant, Quantization)
    grid = _signed(quant, dtype)
    if grid is None or real.is_constant or _is_on(real, grid):
        return False
    same = graph.add("fake_quant", [real], {"quant": grid}, names=[f"{real.name}.signed"]).output
    graph.set_input(node, 0, same)
    return True


def _rounds_to(node: Node, grid: Quantization | None) -> bool:
    return node.op.name == "fake_quant" and node.attrs["quant"] == grid and node.attrs["dtype"] is DType.I8


def _is_on(value: Value, grid: Quantization) -> bool:
    """Whether the value holds reals of that int8 grid already."""
    producer = value.producer
    return producer is not None and (
        _rounds_to(producer, grid)
        or (producer.op.name == "dequantize" and _signed(producer.input(0).quant, producer.input(0).dtype) == grid)
    )
