"""From ranges to a float graph with fake quantization, in one place for compiling and for trying mixes."""

from __future__ import annotations

from collections.abc import Mapping

from qcomp.ir.graph import Graph
from qcomp.passes.assign_per_channel import AssignPerChannel
from qcomp.passes.base import Pass
from qcomp.passes.insert_fake_quant import InsertFakeQuant
from qcomp.passes.integer_regions import activations, integer_nodes
from qcomp.passes.quantize_embeddings import QuantizeEmbeddings

Ranges = Mapping[str, tuple[float, float]]


def grid_passes(ranges: Ranges, per_tensor: bool = False, extremes: Ranges | None = None) -> list[Pass]:
    """The passes that put the grids of activations, weights and embeddings into a canonical float graph."""
    return [InsertFakeQuant(ranges=ranges, extremes=extremes or {}), AssignPerChannel(per_tensor), QuantizeEmbeddings()]


def possible_points(graph: Graph) -> list[str]:
    """Names of the values that get a grid in some mix of precisions: a superset of the points of any of them."""
    nodes = integer_nodes(graph)
    return list(dict.fromkeys(v.name for node in graph.nodes if node in nodes for v in activations(node)))
