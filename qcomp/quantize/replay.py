"""A graph run over samples piece by piece, so that what comes later can be changed by what was found before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.onnx_export import to_onnx
from qcomp.quantize.onnxruntime_session import Rewrites, Session

Tensors = list[np.ndarray]
"""One array for each sample."""


def copy_nodes(
    part: Graph,
    nodes: Sequence[Node],
    known: Mapping[Value, Value],
    outside: dict[Value, Value],
    *,
    named: bool = False,
) -> dict[Value, Value]:
    """The nodes once more in `part`: what stands there for their operands and results.  What `known` does not have
    comes from outside, a constant or an input, and is kept in `outside` for others.  named: results keep their names.
    """
    local = dict(known)
    for node in nodes:
        operands: list[Value | None] = []
        for v in node.inputs:
            if v is not None and v not in local and v not in outside:
                data = v.data
                outside[v] = part.input(v.name, v.type) if data is None else part.constant(data, v.name, v.quant)
            operands.append(None if v is None else local.get(v) or outside[v])
        names = [v.name for v in node.outputs] if named else []
        twin = part.add(
            node.op.name, operands, node.attrs, names=names, node_name=node.name if named else "",
            quants=[v.quant for v in node.outputs],
        )  # fmt: skip
        local.update(zip(node.outputs, twin.outputs, strict=True))
    return local


def subgraph(graph: Graph, nodes: Sequence[Node], outputs: Iterable[Value]) -> Graph:
    """A graph of its own of these nodes; what they read from outside becomes its inputs, constants stay constants."""
    part = Graph(graph.name)
    copies = copy_nodes(part, nodes, {}, {}, named=True)
    part.outputs = [copies[value] for value in outputs]
    return part


def run_float(graph: Graph, samples: Sequence[Mapping[str, np.ndarray]], threads: int = 2) -> dict[str, Tensors]:
    """Outputs of a graph of float ops and fake quantization for each sample, by name; onnxruntime runs it."""
    names, inputs = [value.name for value in graph.outputs], [value.name for value in graph.inputs]
    session = Session(
        to_onnx(graph), "a part of the model", threads=threads, rewrites=Rewrites.BASIC, as_written=True,
        where=", ".join(f"%{name}" for name in names),
    )  # fmt: skip
    results = [session.run({name: sample[name] for name in inputs}, names) for sample in samples]
    return {name: [np.asarray(result[i]) for result in results] for i, name in enumerate(names)}


class Replay:
    """Values of a graph for some samples, computed as far as asked for; a value goes after its last use.

    The caller may change nodes that were not computed yet, and arrays of values that are held.
    """

    def __init__(self, graph: Graph, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.graph = graph
        self.held: dict[Value, Tensors] = {v: [np.asarray(s[v.name]) for s in samples] for v in graph.inputs}
        self.samples = len(samples)
        self._done: set[Node] = set()
        self._kept: set[Value] = set()

    def keep(self, value: Value) -> None:
        """Holds the value from when it is computed until it is released."""
        self._kept.add(value)

    def release(self, value: Value) -> None:
        self._kept.discard(value)
        if not self._needed(value):
            self.held.pop(value, None)

    def advance(self, node: Node) -> None:
        """Computes the node, and all before it that is still open."""
        nodes = self.open_before(node)
        if nodes:
            self.compute(nodes)

    def compute(self, nodes: Sequence[Node]) -> None:
        """Computes these nodes, whose operands are held or among them."""
        inside = set(nodes)
        self._done |= inside
        kept = [v for n in nodes for v in n.outputs if self._needed(v) or n is nodes[-1]]
        part = subgraph(self.graph, nodes, kept)
        names = [v.name for v in part.inputs]
        feeds = [{n: self.held[self.graph.value(n)][i] for n in names} for i in range(self.samples)]
        found = run_float(part, feeds)
        self.held.update((value, found[value.name]) for value in kept)
        for value in [v for v in self.held if not self._needed(v) and v not in kept]:
            del self.held[value]

    def open_before(self, node: Node) -> list[Node]:
        """What is still to be computed up to the node, in order; the node is the last."""
        wanted: set[Node] = set()
        stack = [node]
        while stack:
            current = stack.pop()
            if current in wanted or current in self._done:
                continue
            wanted.add(current)
            stack.extend(v.producer for v in current.inputs if v is not None and v.producer is not None)
        return [n for n in self.graph.nodes if n in wanted]

    def _needed(self, value: Value) -> bool:
        return value in self._kept or any(user not in self._done for user in self.graph.users(value))
