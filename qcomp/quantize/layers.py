"""The layers of a float model that int8 would touch, and the model with one or all but one of them in int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node
from qcomp.ir.registry import Attribute
from qcomp.passes.choose_precision import ChoosePrecision
from qcomp.passes.insert_fake_quant import node_before_rounding, rounding_of
from qcomp.passes.integer_regions import MOVEMENT, integer_nodes
from qcomp.passes.manager import run_passes
from qcomp.passes.quantize_embeddings import QuantizeEmbeddings, picks_rows
from qcomp.passes.quantize_state import QuantizeState
from qcomp.passes.wide_reads import may_read_wide, wide_reads
from qcomp.quantize.grids import Ranges, grid_passes
from qcomp.quantize.recurrent import int8_states

ALONE, WEIGHTS, WITHOUT = "alone", "weights", "without"


@dataclass(frozen=True)
class Layer:
    """A node whose operands, or whose state, are rounded when it computes in int8, or an embedding whose rows are:
    `parameters` counts its constants' elements."""

    name: str
    op: str
    macs: int
    parameters: int


@dataclass(frozen=True)
class Rounding:
    """A node of the float graph, the index of an operand, and the fake_quant that rounds it in int8."""

    node: Node
    index: int
    attrs: Mapping[str, Attribute]


@dataclass(frozen=True)
class Study:
    """A canonical float graph with the ranges of all values that int8 needs in some mix of precisions.

    `extremes`: the smallest and largest number seen of them.
    """

    graph: Graph
    ranges: Ranges
    per_tensor: bool = False
    extremes: Ranges = field(default_factory=dict)

    def mixed(self, precision: Mapping[str, str]) -> Graph:
        """The graph with fake quantization, as it is compiled with that precision."""
        grids = grid_passes(self.ranges, self.per_tensor, self.extremes)
        passes = [ChoosePrecision(precision=precision), *grids, QuantizeState(self.per_tensor)]
        # hundreds of these; the one that is compiled is verified
        return run_passes(self.graph, passes, verify=False)

    @cached_property
    def int8(self) -> Graph:
        return self.mixed({})

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """In the order of the graph; nodes of one name are one layer."""
        touched = self.recurrent | {rounding.node for rounding in self.roundings}
        grouped: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            if node in touched or picks_rows(node):
                grouped.setdefault(node.name, []).append(node)
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
        "weights": only its constants rounded, which is what remains of that in int16, next to nothing.
        "without": everything but this layer in int8, as it is compiled."""
        return self.mixed({name: "float32"}) if kind == WITHOUT else self._alone(name, kind == WEIGHTS)

    @cached_property
    def recurrent(self) -> set[Node]:
        """The layers whose state is rounded."""
        return int8_states(self.graph)

    @cached_property
    def wider(self) -> tuple[str, ...]:
        """The layers that int16 may be chosen for and that do not read it anyway, in the order of the graph."""
        inside = integer_nodes(self.graph)
        already = wide_reads(self.graph, inside).nodes
        names = {node.name for node in inside if may_read_wide(node) and node not in already}
        return tuple(layer.name for layer in self.layers if layer.name in names)

    @cached_property
    def roundings(self) -> list[Rounding]:
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
                    found.append(Rounding(twin, index, rounding.attrs))
        return found

    def _alone(self, name: str, weights: bool) -> Graph:
        graph = self.graph.clone()
        for rounding in self.roundings:
            if rounding.node.name != name:
                continue
            own = graph.value(rounding.node.outputs[0].name).producer
            assert own is not None
            value = own.input(rounding.index)
            if weights and not value.is_constant:
                continue
            rounded = graph.add("fake_quant", [value], rounding.attrs, names=[f"{value.name}.q"])
            graph.set_input(own, rounding.index, rounded.output)
        for node in self.recurrent:
            if node.name == name:  # in int16 too
                own = graph.value(node.outputs[0].name).producer
                assert own is not None
                QuantizeState(self.per_tensor).rewrite(graph, own)
        for node in graph.nodes:
            if node.name == name and picks_rows(node):
                QuantizeEmbeddings().rewrite(graph, node)
        return graph


def check_has_layers(study: Study) -> None:
    """QcompError if nothing of the model would run on integers."""
    if not study.roundings:
        raise QcompError("no layer of the model has an int8 form", fix="`qcomp check` tells why")

