"""The order of execution: a topological order with a low peak of live bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from qcomp.codegen.plan.requirements import activation_values
from qcomp.codegen.plan.storage import Storage, Storages
from qcomp.ir import Node


def touched(storages: Storages, node: Node) -> list[Storage]:
    """Arena memory that a node reads or writes, each once."""
    values = (*activation_values(node), *node.outputs)
    found = {id(s): s for s in (storages.of(v) for v in values) if not s.external}
    return list(found.values())


def live_bytes(order: Sequence[Node], storages: Storages) -> list[int]:
    """Bytes of arena memory in use during each step."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    size: dict[int, int] = {}
    for step, node in enumerate(order):
        for storage in touched(storages, node):
            first.setdefault(id(storage), step)
            last[id(storage)] = step
            size[id(storage)] = storage.bytes
    change = [0] * (len(order) + 1)
    for key, start in first.items():
        change[start] += size[key]
        change[last[key] + 1] -= size[key]
    totals, total = [], 0
    for delta in change[:-1]:
        total += delta
        totals.append(total)
    return totals


def schedule(storages: Storages) -> list[Node]:
    """Nodes that execute (views do not), in the best of a few orders; the graph's own order wins ties."""
    nodes = [n for n in storages.graph.nodes if n not in storages.views]
    orders = [nodes, _greedy(nodes, storages, _least_growth), _greedy(nodes, storages, _depth_first)]
    return min(orders, key=lambda order: max(live_bytes(order, storages), default=0))


Choice = Callable[[int, int, Node], tuple[int, int]]


def _least_growth(delta: int, age: int, node: Node) -> tuple[int, int]:
    return delta, node.serial


def _depth_first(delta: int, age: int, node: Node) -> tuple[int, int]:
    return (-age if delta > 0 else -(1 << 30)), node.serial


def _greedy(nodes: Sequence[Node], storages: Storages, choice: Choice) -> list[Node]:
    """List scheduling: of the nodes whose operands exist, the one that `choice` ranks first."""
    executed = set(nodes)
    waits = {n: _producers(n, executed) for n in nodes}
    users: dict[Node, list[Node]] = {n: [] for n in nodes}
    for node in nodes:
        for producer in waits[node]:
            users[producer].append(node)
    missing = {n: len(waits[n]) for n in nodes}
    remaining: dict[int, int] = {}
    for node in nodes:
        for storage in touched(storages, node):
            remaining[id(storage)] = remaining.get(id(storage), 0) + 1
    live: set[int] = set()
    ready = {n: 0 for n in nodes if not missing[n]}
    order: list[Node] = []
    while ready:
        best = min(ready, key=lambda n: choice(_growth(n, storages, live, remaining), ready[n], n))
        del ready[best]
        order.append(best)
        for storage in touched(storages, best):
            remaining[id(storage)] -= 1
            (live.add if remaining[id(storage)] else live.discard)(id(storage))
        for user in users[best]:
            missing[user] -= 1
            if not missing[user]:
                ready[user] = len(order)
    return order


def _producers(node: Node, executed: Iterable[Node]) -> list[Node]:
    """Executing nodes whose results a node reads, looking through views."""
    found: dict[Node, None] = {}
    pending = [v.producer for v in activation_values(node)]
    while pending:
        producer = pending.pop()
        if producer is None:
            continue
        if producer in executed:
            found[producer] = None
        else:
            pending += [v.producer for v in activation_values(producer)]
    return list(found)


def _growth(node: Node, storages: Storages, live: set[int], remaining: dict[int, int]) -> int:
    delta = 0
    for storage in touched(storages, node):
        if id(storage) not in live:
            delta += storage.bytes
        if remaining[id(storage)] == 1:
            delta -= storage.bytes
    return delta
