"""The layers of a float model that int8 would touch, and the model with one or all but one of them in int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node
from qcomp.ir.types import DType, Quantization
from qcomp.passes.choose_precision import ChoosePrecision
from qcomp.passes.insert_fake_quant import node_before_rounding, rounding_of
from qcomp.passes.integer_regions import MOVEMENT, integer_nodes
from qcomp.passes.manager import run_passes
from qcomp.quantize.grids import Ranges, grid_passes

ALONE, WITHOUT = "alone", "without"


@dataclass(frozen=True)
class Layer:
    """A node whose operands are rounded when it computes in int8: `parameters` counts its constants' elements."""

    name: str
    op: str
    macs: int
    parameters: int


@dataclass(frozen=True)
class Study:
    """A canonical float graph with the ranges of all values that int8 needs in some mix of precisions."""

    graph: Graph
    ranges: Ranges
    per_tensor: bool = False

    def mixed(self, precision: Mapping[str, str]) -> Graph:
        """The graph with fake quantization, as it is compiled with that precision."""
        steps = [ChoosePrecision(precision=precision), *grid_passes(self.ranges, self.per_tensor)]
        return run_passes(self.graph, steps, verify=False)  # hundreds of these; the one that is compiled is verified

    @cached_property
    def int8(self) -> Graph:
        return self.mixed({})

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """In the order of the graph; nodes of one name are one layer."""
        grouped: dict[str, list[Node]] = {}
        for node, *_ in self._roundings:
            grouped.setdefault(node.name, [])
            if node not in grouped[node.name]:
                grouped[node.name].append(node)
        return tuple(
            Layer(
                name,
                nodes[0].op.name,
                sum(node.op.macs(node.call) for node in nodes),
                sum(v.type.elements for node in nodes for v in node.inputs if v is not None and v.is_constant),
            )
            for name, nodes in grouped.items()
        )

    def variant(self, kind: str, name: str) -> Graph:
        """"alone": only this layer in int8, that is its operands rounded to the grids that they have when all is int8.
        "without": everything but this layer in int8, as it is compiled."""
        return self._alone(name) if kind == ALONE else self.mixed({name: "float32"})

    @cached_property
    def _roundings(self) -> list[tuple[Node, int, Quantization, DType]]:
        """Nodes of the float graph, operand, and the grid and type that it is rounded to in int8."""
        rounded = self.int8
        inside = integer_nodes(self.graph)
        twins = {node.outputs[0].name: node for node in self.graph.nodes}
        found = []
        for node in rounded.nodes:
            twin = node_before_rounding(node.outputs[0], twins)
            if twin is None or twin not in inside or node.op.name in MOVEMENT or node.op.name == "fake_quant":
                continue
            for index, operand in enumerate(node.inputs):
                rounding = None if operand is None else rounding_of(operand)
                if rounding is not None:
                    call = rounding.call
                    found.append((twin, index, call.quant("quant"), call.dtype("dtype")))
        return found

    def _alone(self, name: str) -> Graph:
        graph = self.graph.clone()
        for node, index, grid, dtype in self._roundings:
            if node.name != name:
                continue
            own = graph.value(node.outputs[0].name).producer
            assert own is not None
            value = own.input(index)
            rounded = graph.add("fake_quant", [value], {"quant": grid, "dtype": dtype}, names=[f"{value.name}.q"])
            graph.set_input(own, index, rounded.output)
        return graph


def check_has_layers(study: Study) -> None:
    """QcompError if nothing of the model would run on integers."""
    if not study.layers:
        raise QcompError("no layer of the model has an int8 form", fix="`qcomp check` tells why")

