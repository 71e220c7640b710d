"""What a core without floating point cannot compute: said when a model is compiled, instead of slow software floats."""

from __future__ import annotations

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node
from qcomp.targets import Target

_MOST_NAMED = 4


def _holds_floats(node: Node) -> bool:
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and not v.is_constant]
    return any(v.dtype.is_float for v in values)


def computes_floats(node: Node) -> bool:
    """Whether a node works on floats, or rounds integers by way of them."""
    return _holds_floats(node) or ("zp" in node.attrs and not node.attrs.get("fixed", False))


def check_arithmetic(graph: Graph, target: Target) -> None:
    """QcompError where the target rounds in fixed point, for lack of floats, and a node of the graph needs them."""
    if target.requantize != "fixed":
        return
    found = [node for node in graph.nodes if computes_floats(node)]
    if not found:
        return
    edges = all(node.op.name in ("quantize", "dequantize") for node in found)
    rounding = all("fixed" in node.op.attributes and not _holds_floats(node) for node in found)
    if rounding:
        fix = "round in fixed point (--requantize fixed, the default for this target)"
    elif edges:
        fix = "give the model int8 inputs and outputs (--io int8, the default for this target)"
    else:
        fix = (
            "`qcomp check` says why they are not int8: calibrate the model (--calibrate), take them out (without a "
            "final softmax the largest class is the same), or choose a target with floating point"
        )
    named = ", ".join(f"{node.op.name} {node.name!r}" for node in found[:_MOST_NAMED])
    more = ", ..." if len(found) > _MOST_NAMED else ""
    count = "1 op computes" if len(found) == 1 else f"{len(found)} ops compute"
    raise QcompError(
        f"target {target.name} has no floating point, and {count} in float32: {named}{more}",
        fix=fix,
    )  # fmt: skip
