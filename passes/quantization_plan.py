"""Where fake quantization goes in a float graph, and which values must share a grid.

    product ─ clamps ─► point ─ movement ─► (same grid) ─ table chain ─► point ─► product

A *point* is a value that gets a grid of its own.  Clamps right behind a product become its clamp; a chain of functions
of one element becomes one table between two points; movement keeps the grid of its operand.  What is read in int16
(`wide_reads`) is a point of its own kind: a value may have a grid of either width, for different readers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.integer_regions import MOVEMENT, activations, gives_integers, integer_nodes, is_clamp, is_unary
from qcomp.passes.wide_reads import WideReads, wide_reads


@dataclass
class Points:
    """Values that get grids of one width, in order, and the groups that share a grid."""

    points: list[Value] = field(default_factory=list)
    parent: dict[Value, Value] = field(default_factory=dict)

    def group(self, value: Value) -> Value:
        """Representative of the values that share a grid with this one."""
        while self.parent.get(value, value) is not value:
            value = self.parent[value]
        return value

    def tie(self, a: Value, b: Value) -> None:
        first, second = self.group(a), self.group(b)
        if first is not second:
            self.parent[second] = first

    def members(self) -> dict[Value, list[Value]]:
        """Groups of points by representative."""
        groups: dict[Value, list[Value]] = {}
        for value in self.points:
            groups.setdefault(self.group(value), []).append(value)
        return groups


@dataclass
class QuantizationPlan(Points):
    """What `insert-fake-quant` will do: int8 points, int16 points (`wide`), and the tables that read a point."""

    integer: set[Node] = field(default_factory=set)
    chain_end: dict[Value, Value] = field(default_factory=dict)  # a point read by one table chain -> the chain's result
    wide: Points = field(default_factory=Points)
    reads: WideReads = field(default_factory=WideReads)

    @property
    def observed(self) -> list[Value]:
        """The values whose ranges are needed."""
        return list(dict.fromkeys([*self.points, *self.wide.points]))


def plan_quantization(graph: Graph) -> QuantizationPlan:
    """The plan for a float graph; values that fake_quant already produces count as quantized.

    Outputs of integer nodes are points too where the model is to give integers."""
    integer = integer_nodes(graph)
    plan = QuantizationPlan(integer=integer, reads=wide_reads(graph, integer))
    # "raw": product or sum, clamped at most; "table": function of a point; "grid", "wide": on a grid of int8, int16
    state: dict[Value, str] = {}
    seen: set[Value] = set()

    def quantized(value: Value, wide: bool) -> None:
        """Makes the value a point unless it is on a grid of that width already."""
        producer = value.producer
        on_grid = producer is not None and producer.op.name in ("fake_quant", "dequantize")
        points = plan.wide if wide else plan
        if state.get(value) != ("wide" if wide else "grid") and value not in points.points and not on_grid:
            seen.add(value)
            points.points.append(value)

    for node in graph.nodes:
        if node not in plan.integer:
            continue
        operands = activations(node)
        if is_unary(node):
            (x,) = operands
            alone = graph.sole_user(x) is node and x not in seen
            before = state.get(x)
            if alone and before == "raw" and is_clamp(node):
                state[node.output] = "raw"
            elif alone and before == "table":
                state[node.output] = "table"
            else:
                quantized(x, plan.reads.is_wide(node, x))
                state[node.output] = "table"
            continue
        for x in operands:
            quantized(x, plan.reads.is_wide(node, x))
        if node.op.name in MOVEMENT:
            wide = node in plan.reads.nodes
            for value in node.outputs:
                state[value] = "wide" if wide else "grid"
                for x in operands:
                    if node.op.name != "concat" or _may_share(graph, x):
                        (plan.wide if wide else plan).tie(x, value)
        else:
            for value in node.outputs:
                state[value] = "raw"
    for value in graph.outputs if gives_integers(graph) else ():
        if value.producer in plan.integer:
            quantized(value, False)
    for value in plan.points:
        end = _table_end(graph, plan, value)
        if end is not None:
            plan.chain_end[value] = end
    return plan


def _may_share(graph: Graph, value: Value) -> bool:
    """Whether a concat's operand takes the concat's grid: it has no other use that would lose precision."""
    return len(graph.users(value)) == 1 and not graph.is_output(value)


def _table_end(graph: Graph, plan: QuantizationPlan, value: Value) -> Value | None:
    """Result of the chain of unary functions that is the only reader of a point, if there is one."""
    end: Value | None = None
    current = value
    points = set(plan.observed)
    while True:
        user = graph.sole_user(current)
        if user is None or user not in plan.integer or not is_unary(user):
            return end
        current = end = user.output
        if current in points:
            return end
