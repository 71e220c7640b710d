"""Attention that integer weights cannot hold: its sum lies in a tail of many keys, each too small for 8 bits.

Integer attention weighs keys by whole numbers up to 255, the largest of the row.  A key 6.24 below the best weighs
nothing.  Of a few such keys nobody misses anything; thousands of them can hold most of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.onnx_export import to_onnx
from qcomp.ir.ops.attention import TOP
from qcomp.passes.integer_regions import integer_nodes
from qcomp.passes.precision import LONG_TAILS, chosen_precision
from qcomp.quantize.inputs import inputs_of
from qcomp.quantize.refinement import refinement_samples
from qcomp.quantize.replay import Replay
from qcomp.quantize.samples import Data, samples_of

#: Share of the weights of a head, on average over its rows, that integers may put elsewhere.
MOST_MOVED = 0.05
_MOST_ROWS, _MOST_SCORES = 256, 1 << 24


def long_tails(graph: Graph, samples: Data | None) -> tuple[str, ...]:
    """Names of the attention nodes of a float graph that integers would compute, and should not, as the samples say."""
    inside = integer_nodes(graph)
    insisted = {name for name, precision in chosen_precision(graph).items() if precision == "int8"}
    open_nodes = [n for n in graph.nodes if n.op.name == "attention" and n in inside and n.name not in insisted]
    if samples is None or not open_nodes:
        return ()
    few = refinement_samples(graph, samples_of(samples, inputs_of(to_onnx(graph))))
    moved = moved_weight(graph, open_nodes, few) if few else {}
    return tuple(dict.fromkeys(node.name for node in open_nodes if moved.get(node, 0.0) > MOST_MOVED))


def with_float_attention(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph in which these attention nodes compute on floats."""
    if not names:
        return graph
    graph = graph.clone()
    graph.attrs[LONG_TAILS] = tuple(names)
    return graph


def moved_weight(
    graph: Graph, nodes: Sequence[Node], samples: Sequence[Mapping[str, np.ndarray]]
) -> dict[Node, float]:
    """For attention nodes of a float graph, in order: the share of their weights that integers move away from the keys
    they belong to (the total variation distance), of the head where it is most."""
    found = {}
    replay = Replay(graph, samples)
    for node in nodes:
        operands = [node.input(0), node.input(1), node.optional(3)]
        for value in operands:
            if value is not None and value.producer is not None:
                replay.keep(value)
                replay.advance(value.producer)
        shares = [_moved(node, *(_of_sample(replay, v, i) for v in operands)) for i in range(len(samples))]
        found[node] = float(np.mean(shares, axis=0).max())
        for value in operands:
            if value is not None and value.producer is not None:
                replay.release(value)
    return found


def _of_sample(replay: Replay, value: Value | None, index: int) -> np.ndarray | None:
    if value is None or value.data is not None:
        return None if value is None else value.data
    return replay.held[value][index]


def _moved(node: Node, q: np.ndarray | None, k: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
    """float64[heads]: the share that moves, on average over some of the rows."""
    assert q is not None and k is not None
    batch, length, heads, _ = q.shape
    most = min(_MOST_ROWS, max(1, _MOST_SCORES // (batch * heads * k.shape[1])))
    rows = np.linspace(0, length - 1, min(length, most)).round().astype(int)
    queries = q[:, rows].transpose(0, 2, 1, 3).astype(np.float32)
    with np.errstate(all="ignore"):
        scores = queries @ k.transpose(0, 2, 3, 1) * np.float32(node.call.float("scale"))
        if mask is not None:
            scores = scores + (mask if mask.shape[2] == 1 else mask[:, :, rows])
        exact = np.exp(scores - scores.max(axis=3, keepdims=True))
        rounded = np.rint(exact * TOP)
        apart = exact / exact.sum(axis=3, keepdims=True) - rounded / rounded.sum(axis=3, keepdims=True)
    return np.asarray(np.nan_to_num(np.abs(apart).sum(axis=3) / 2).mean(axis=(0, 2)), np.float64)
