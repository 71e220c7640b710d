"""What passes that move transposes share: permutations, and values in the order before a transpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.graph import Graph, Node, Value

Perm = tuple[int, ...]


def inverse(perm: Sequence[int]) -> Perm:
    return tuple(int(i) for i in np.argsort(perm))


def moves_nothing(shape: Sequence[int], perm: Sequence[int]) -> bool:
    """Whether a transpose leaves the order of elements as it is: dimensions of size 1 may go anywhere."""
    kept = [p for p in perm if shape[p] != 1]
    return kept == sorted(kept)


def permutation(transpose: Node) -> Perm:
    perm = transpose.attrs["perm"]
    assert isinstance(perm, tuple)
    return tuple(int(p) for p in perm)


def per_tensor(value: Value) -> bool:
    return value.quant is None or value.quant.axis is None


def untransposed(graph: Graph, value: Value, perm: Perm) -> Value:
    """`value` in the order before a transpose with `perm`: its source, a permuted constant, or a new transpose."""
    producer = value.producer
    if producer is not None and producer.op.name == "transpose" and permutation(producer) == perm:
        return producer.input(0)
    back = inverse(perm)
    if value.is_constant and per_tensor(value):
        return graph.constant(value.array.transpose(back), value.name, value.quant)
    return graph.add("transpose", [value], {"perm": back}, names=[f"{value.name}.back"]).output


def transpose_results(graph: Graph, node: Node, new: Node, perm: Perm) -> None:
    results = [
        graph.add("transpose", [v], {"perm": perm}, names=[old.name]).output
        for v, old in zip(new.outputs, node.outputs, strict=True)
    ]
    graph.replace(node, *results)


def is_transposed(value: Value, perm: Perm) -> bool:
    producer = value.producer
    return producer is not None and producer.op.name == "transpose" and permutation(producer) == perm
