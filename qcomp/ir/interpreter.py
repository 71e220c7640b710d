"""The interpreter: executes any graph with numpy, op by op.  It is the definition of right for every back end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.verify import check_array


def evaluate_node(node: Node, operands: Iterable[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    """Results of one node, checked against its inferred types."""
    with np.errstate(all="ignore"):  # overflow, division by zero and NaN follow IEEE; ops define what they mean
        results = tuple(np.asarray(r) for r in node.op.evaluate(node.call, *operands))
    for value, array in zip(node.outputs, results, strict=True):
        try:
            check_array(value, array)
        except QcompError as error:
            raise QcompError(f"{node!r} computed something else than its type: {error}") from None
    return results


def run(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    *,
    keep: Iterable[str] = (),
    observe: Callable[[Value, np.ndarray], None] | None = None,
) -> dict[str, np.ndarray]:
    """Executes the graph; the arrays of its outputs, and of the values named in `keep`, by name.

    Intermediate arrays are freed after their last use.  `observe` is called with every computed value.
    Raises QcompError for a missing or unknown input, or one of another dtype or shape.
    """
    wanted = {v.name for v in graph.outputs} | set(keep)
    known = {v.name for v in graph.inputs}
    for name in inputs:
        if name not in known:
            raise QcompError(f"the model has no input {name!r}", fix=f"its inputs are {', '.join(sorted(known))}")
    live: dict[Value, np.ndarray] = {}
    for value in graph.inputs:
        if value.name not in inputs:
            raise QcompError(f"input {value.name!r} is missing")
        array = np.asarray(inputs[value.name])
        check_array(value, array)
        live[value] = array
    remaining = {v: len(graph.uses(v)) for v in graph.values}
    kept: dict[str, np.ndarray] = {}

    def fetch(value: Value) -> np.ndarray:
        return live[value] if value.data is None else value.data

    for value in graph.values:
        if value.name in wanted and (value.is_constant or value in live):
            kept[value.name] = fetch(value)
    for node in graph.nodes:
        results = evaluate_node(node, [None if v is None else fetch(v) for v in node.inputs])
        for value, array in zip(node.outputs, results, strict=True):
            if remaining[value]:
                live[value] = array
            if value.name in wanted:
                kept[value.name] = array
            if observe is not None:
                observe(value, array)
        for operand in node.inputs:
            if operand is None or operand.is_constant:
                continue
            remaining[operand] -= 1
            if not remaining[operand]:
                live.pop(operand, None)
    return kept
