"""Puts ONNX nodes in an order in which producers come first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import onnx

from qcomp.errors import QcompError
from qcomp.frontends.onnx.node import describe


def in_order(nodes: Sequence[onnx.NodeProto], known: Set[str]) -> list[onnx.NodeProto]:
    """The nodes, each after those that compute its inputs, otherwise in the order given.

    `known` names what is there already.  Raises QcompError for tensors that two nodes compute or that nothing
    computes, and for cycles.
    """
    producers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and name in producers:
                raise QcompError(
                    f"two nodes compute the tensor {name!r}", where=describe(node), fix="export the model again"
                )
            if name:
                producers[name] = index
    result: list[onnx.NodeProto] = []
    state = [0] * len(nodes)  # 0 new, 1 being visited, 2 done

    for start in range(len(nodes)):
        if state[start]:
            continue
        state[start] = 1
        stack = [(start, _reads(nodes[start]))]
        while stack:
            index, reads = stack[-1]
            for name in reads:
                producer = producers.get(name)
                if producer is None:
                    if name in known:
                        continue
                    raise QcompError(
                        f"nothing computes its input {name!r}",
                        where=describe(nodes[index]),
                        fix="export the model again",
                    )
                if state[producer] == 1:
                    raise QcompError(
                        f"the tensor {name!r} depends on itself",
                        where=describe(nodes[index]),
                        fix="export the model again",
                    )
                if state[producer] == 0:
                    state[producer] = 1
                    stack.append((producer, _reads(nodes[producer])))
                    break
            else:
                state[index] = 2
                result.append(nodes[index])
                stack.pop()
    return result


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node uses, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
            yield from sorted(_free_names(graph))


def _free_names(graph: onnx.GraphProto) -> set[str]:
    local = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    local |= {s.values.name for s in graph.sparse_initializer}
    used: set[str] = {o.name for o in graph.output}
    for node in graph.node:
        used.update(_reads(node))
        local.update(node.output)
    return used - local
