"""What a mix of precisions costs: milliseconds and bytes, by a model that adds up over the nodes.

A node takes macs / rate of its kind and precision + bytes moved / rate of bytes, with the rates of the target, of one
core (`[rates]` in its file); moved are its operands and its result, in the width of its precision.  What a float layer
takes out of the integer side with it counts too.  The size is that of the constants: int8 weights with a bias and a
multiplier for each channel (of layers that read int16, weights that were widened to that), int8 rows of embeddings, or
float32 weights.  Code comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property

from qcomp.ir.graph import Graph, Node
from qcomp.ir.types import DType
from qcomp.passes.integer_regions import integer_nodes
from qcomp.passes.precision import PRECISIONS, chosen_float, float_names, set_precision
from qcomp.passes.quantize_embeddings import picks_rows
from qcomp.passes.wide_reads import wide_reads
from qcomp.quantize.recurrent import int8_states
from qcomp.targets import Target

INT8, INT16, FLOAT32 = "int8", "int16", "float32"

# For targets without rates: how precisions compare, in no unit of time.
_NO_RATES: Mapping[str, float] = {"int8": 4.0, "int16": 2.0, "float32": 1.0, "bytes": 1.0}
_BYTES_PER_CHANNEL = {INT8: 6, INT16: 8, FLOAT32: 4}


@dataclass(frozen=True)
class Costs:
    """A canonical float graph with the cost of every node in every precision; `timed`: milliseconds are meant;
    `states`: recurrent layers that may be int8."""

    graph: Graph
    timed: bool
    of: Mapping[Node, Mapping[str, tuple[float, int]]]
    states: Set[Node] = frozenset()

    def milliseconds(self, choice: Mapping[str, str]) -> float:
        """Of a mix, given by its layers that are not int8."""
        return sum(cost[0] for cost in self._chosen(choice))

    def bytes(self, choice: Mapping[str, str]) -> int:
        return sum(cost[1] for cost in self._chosen(choice))

    def _chosen(self, choice: Mapping[str, str]) -> list[tuple[float, int]]:
        set_precision(self.graph, choice)
        inside = integer_nodes(self.graph)
        wide = wide_reads(self.graph, inside).nodes
        inside |= {node for node in self.states if not chosen_float(self.graph, node)}
        floats = float_names(self.graph)
        rows = {node for node in self.embeddings if node.name not in floats}
        return [
            costs[INT16 if node in wide else INT8 if node in inside or node in rows else FLOAT32]
            for node, costs in self.of.items()
        ]

    @cached_property
    def embeddings(self) -> tuple[Node, ...]:
        return tuple(node for node in self.of if picks_rows(node))


def modelled_costs(graph: Graph, target: Target) -> Costs:
    """The costs of a canonical float graph by the target's rates."""
    own = graph.clone()
    costs = {node: _costs(node, target.rates or _NO_RATES) for node in own.nodes}
    return Costs(own, bool(target.rates), costs, int8_states(own))


def _costs(node: Node, rates: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    """Precision -> milliseconds and bytes of one node."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    moved = sum(v.type.elements for v in values if not v.is_constant)
    constants = [v.type.elements for v in values if v.is_constant and v.dtype is DType.F32]
    macs = node.op.macs(node.call)
    channels = node.output.shape[1] if macs and len(node.outputs) == 1 and node.output.type.rank > 1 else 0
    found = {}
    for name, dtype in PRECISIONS.items():
        width = dtype.numpy.itemsize
        rate = rates.get(f"{name}_{_kind(node)}") or rates.get(name) or rates[INT8] / 2
        milliseconds = (macs / rate + moved * width / rates["bytes"]) / 1e6
        # Weights are the largest constant; what is per channel is counted by channel.
        size = max(constants, default=0) * width + channels * _BYTES_PER_CHANNEL[name]
        found[name] = milliseconds, size
    return found


def _kind(node: Node) -> str:
    return "grouped" if node.attrs.get("groups", 1) != 1 else node.op.name
