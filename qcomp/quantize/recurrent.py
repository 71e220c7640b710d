"""Recurrent layers whose state becomes int8 with their weights, on a grid that needs no data."""

from __future__ import annotations

from qcomp.ir.graph import Graph, Node
from qcomp.passes.quantize_state import QuantizeState


def int8_states(graph: Graph) -> set[Node]:
    """The layers of a canonical float graph that are compiled so, where they are not chosen to stay float32."""
    own = QuantizeState().run(graph.clone())
    names = {node.outputs[0].name for node in own.nodes if node.attrs.get("state_scale")}
    return {node for node in graph.nodes if node.outputs[0].name in names}
