"""Graph -> ONNX model, for calibration, for comparison with other runtimes, and to look at in a viewer."""

from __future__ import annotations

import onnx

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph
from qcomp.ir.onnx_export.dynamic_rules import DYNAMIC_RULES
from qcomp.ir.onnx_export.emitter import Emitter, Rule, value_info
from qcomp.ir.onnx_export.float_rules import FLOAT_RULES
from qcomp.ir.onnx_export.integer_rules import INTEGER_RULES
from qcomp.ir.onnx_export.movement_rules import MOVEMENT_RULES
from qcomp.ir.onnx_export.recurrent_rules import RECURRENT_RULES

# One rule an op.
RULES: dict[str, Rule] = {**FLOAT_RULES, **MOVEMENT_RULES, **INTEGER_RULES, **DYNAMIC_RULES, **RECURRENT_RULES}

__all__ = ["RULES", "to_onnx"]


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """The graph as an ONNX model, of opset 20, or 21 where it has 16-bit quantization.

    Every computed value keeps its name as a tensor name.
    Quantization becomes QuantizeLinear and DequantizeLinear, and an integer op the float op between them, so the
    integers a runtime computes may differ by one step where it rounds otherwise than the interpreter.
    Raises QcompError for an op without a rule, or one whose weights are not constants.
    """
    emitter = Emitter(graph)
    for node in graph.nodes:
        rule = RULES.get(node.op.name)
        if rule is None:
            raise QcompError(f"op {node.op.name} has no ONNX form", where=repr(node))
        emitter.current = node
        rule(emitter, node)
    outputs = list(dict.fromkeys(graph.outputs))
    for value in outputs:
        emitter.name(value)  # a constant that is an output has to be written down
    proto = onnx.helper.make_graph(
        emitter.nodes,
        graph.name or "model",
        [value_info(v) for v in graph.inputs],
        [value_info(v) for v in outputs],
        list(emitter.initializers.values()),
        value_info=[value_info(v) for n in graph.nodes for v in n.outputs if not graph.is_output(v)],
    )
    return onnx.helper.make_model(
        proto, producer_name="qcomp", ir_version=10, opset_imports=[onnx.helper.make_opsetid("", emitter.opset)]
    )
