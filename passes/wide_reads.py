"""Which nodes read int16: those that were chosen to, and the residual streams that a layer norm ends.

A residual stream is the sum of what layers add up.  A few of its channels are often far larger than the rest: on one
int8 grid they would blur all others, on one of int16 they do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType
from qcomp.passes.integer_regions import MOVEMENT, activations, is_clamp, is_product, is_unary, sums_residual
from qcomp.passes.precision import PRECISIONS, chosen_precision

# What computes such values from int16 operands, or from others with a result in int16.
_WIDE_SUMS = frozenset({"add", "sub"})
_WIDE_RESULTS = _WIDE_SUMS | {
    "conv2d", "conv_transpose2d", "gemm", "attention", "matmul", "softmax", "layer_norm",
}  # fmt: skip


@dataclass(frozen=True)
class WideReads:
    """`nodes` read those of their operands in int16 that are among `values`."""

    nodes: frozenset[Node] = frozenset()
    values: frozenset[Value] = frozenset()

    def is_wide(self, node: Node, value: Value) -> bool:
        return node in self.nodes and value in self.values


def may_read_wide(node: Node) -> bool:
    """Whether int16 may be chosen for a node: products with constant weights, sums, and layer norms have that form."""
    return is_product(node) or _takes_either(node)


def wide_reads(graph: Graph, integer: set[Node]) -> WideReads:
    """The nodes of a float graph, of those that compute on integers, that read int16."""
    chosen = {name for name, precision in chosen_precision(graph).items() if PRECISIONS[precision] is DType.I16}
    nodes = {n for n in graph.nodes if n in integer and may_read_wide(n) and (n.name in chosen or sums_residual(n))}
    values: set[Value] = set()
    open_values = [v for node in nodes for v in activations(node) if node.name in chosen or _keeps_width(v, integer)]
    while open_values:
        value = open_values.pop()
        if value in values:
            continue
        values.add(value)
        producer = value.producer
        if producer is None or producer not in integer:
            continue
        # On one grid is all that is moved; a function of int8 would have 256 results at most.
        whole = producer.op.name in MOVEMENT or is_unary(producer)
        if whole or producer.op.name in _WIDE_SUMS:
            nodes.add(producer)
            open_values.extend(v for v in activations(producer) if whole or _keeps_width(v, integer))
    # Sums and norms of what is there in int16 anyway take that: it costs them nothing.
    nodes |= {user for value in values for user in graph.users(value) if user in integer and _takes_either(user)}
    return WideReads(frozenset(nodes), frozenset(values))


def _takes_either(node: Node) -> bool:
    return node.op.name == "layer_norm" or (node.op.name in _WIDE_SUMS and not is_unary(node))


def _keeps_width(value: Value, integer: set[Node]) -> bool:
    """Whether a value has more than 8 bits to tell: a float, or what an integer op computes in 32 bits."""
    producer = value.producer
    while producer is not None and producer in integer and is_clamp(producer):
        producer = producer.input(0).producer
    if producer is None or producer not in integer:
        return True
    if producer.op.name in MOVEMENT:
        return producer.op.name != "max_pool" and all(_keeps_width(v, integer) for v in activations(producer))
    return producer.op.name in _WIDE_RESULTS
