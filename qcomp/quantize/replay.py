"""A graph run over samples piece by piece, so that what comes later can be changed by what was found before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.onnx_export import to_onnx
from qcomp.quantize.onnxruntime_errors import onnxruntime_failures, refused

Tensors = list[np.ndarray]
"""One array for each sample."""


def subgraph(graph: Graph, nodes: Sequence[Node], outputs: Iterable[Value]) -> Graph:
    """A graph of its own of these nodes; what they read from outside becomes its inputs, constants stay constants."""
    part = Graph(graph.name)
    mapped: dict[Value, Value] = {}
    for node in nodes:
        operands: list[Value | None] = []
        for value in node.inputs:
            if value is not None and value not in mapped:
                if value.data is not None:
                    mapped[value] = part.constant(value.data, value.name, value.quant)
                else:
                    mapped[value] = part.input(value.name, value.type)
            operands.append(None if value is None else mapped[value])
        names = [value.name for value in node.outputs]
        twin = part.add(
            node.op.name, operands, node.attrs, names=names, node_name=node.name, quants=[v.quant for v in node.outputs]
        )
        mapped.update(zip(node.outputs, twin.outputs, strict=True))
    part.outputs = [mapped[value] for value in outputs]
    return part


def run_float(graph: Graph, samples: Sequence[Mapping[str, np.ndarray]], threads: int = 2) -> dict[str, Tensors]:
    """Outputs of a graph of float ops and fake quantization for each sample, by name; onnxruntime runs it."""
    import onnxruntime  # slow to import, and only needed here

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # Fake quantization is computed as it is written, not fused into integer kernels of another arithmetic.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    names = [value.name for value in graph.outputs]
    inputs = [value.name for value in graph.inputs]
    try:
        session = onnxruntime.InferenceSession(to_onnx(graph).SerializeToString(), options, ["CPUExecutionProvider"])
        results = [session.run(names, {name: sample[name] for name in inputs}) for sample in samples]
    except onnxruntime_failures() as error:
        raise refused("run a part of the model", error, where=", ".join(f"%{name}" for name in names)) from error
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
