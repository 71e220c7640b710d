"""Control flow: an If whose condition is known is the branch it takes; else both run and the condition selects."""

from __future__ import annotations

from collections.abc import Sequence

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import onnx_op
from qcomp.ir.graph import Value


@onnx_op("If")
def if_(node: OnnxNode) -> Sequence[Value]:
    condition = node.value(0)
    if condition.data is not None:
        return _branch(node, "then_branch" if bool(condition.data.reshape(-1)[0]) else "else_branch")
    # Ops have no side effects, so running both branches is right when their results have one type.
    taken, other = _branch(node, "then_branch"), _branch(node, "else_branch")
    if [v.type for v in taken] != [v.type for v in other]:
        raise node.unsupported(
            "the condition is computed at run time, and the branches give different shapes",
            "export one branch, or bind the inputs that the condition depends on",
        )
    select = node.reshape(condition, ())
    return [node.emit("where", [select, a, b]) for a, b in zip(taken, other, strict=True)]


def _branch(node: OnnxNode, name: str) -> list[Value]:
    return node.importer.import_graph(node.attributes[name].g, node.scope.inner())
