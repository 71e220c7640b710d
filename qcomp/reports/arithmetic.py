"""What a core without floating point cannot compute: said when a model is compiled, instead of slow software floats."""

from __future__ import annotations

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node
from qcomp.targets import Target

_MOST_NAMED = 4


def computes_floats(node: Node) -> bool:
    """Whether a node works on floats, or rounds integers by way of them."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and not v.is_constant]
    return any(v.dtype.is_float for v in values) or ("zp" in node.attrs and not node.attrs.get("fixed", False))


def check_arithmetic(graph: Graph, target: Target) -> None:
    """QcompError where the target rounds in fixed point, for lack of floats, and a node of the graph needs them."""
    if target.requantize != "fixed":
        return
    found = [node for node in graph.nodes if computes_floats(node)]
    if not found:
        return
    named = ", ".join(f"{node.op.name} {node.name!r}" for node in found[:_MOST_NAMED])
    more = ", ..." if len(found) > _MOST_NAMED else ""
    count = "1 op computes" if len(found) == 1 else f"{len(found)} ops compute"
    raise QcompError(
        f"target {target.name} has no floating point, and {count} in float32: {named}{more}",
        fix="take these ops out of the model (the largest class is the same without a final softmax), or choose a "
        "target with floating point",
    )  # fmt: skip
