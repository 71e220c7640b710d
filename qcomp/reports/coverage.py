"""What runs on integers and what does not, with the reason and what the user can do about it (law 6)."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType
from qcomp.passes.integer_regions import MOVEMENT, PRODUCTS

INTEGER_OPS = frozenset({"qconv2d", "qconv_transpose2d", "qgemm", "qadd", "qmul", "qavg_pool", "table"})
CONVERSIONS = frozenset({"quantize", "dequantize", "fake_quant", "dynamic_quantize"})


@dataclass(frozen=True)
class Island:
    """One op that computes on float32, why, and what to do about it."""

    node: str
    op: str
    reason: str
    detail: str
    advice: str
    macs: int


@dataclass(frozen=True)
class Coverage:
    """Multiply-accumulates and nodes by precision, and the float islands in order."""

    integer_nodes: int
    float_nodes: int
    integer_macs: int
    float_macs: int
    islands: tuple[Island, ...]

    @property
    def integer_share(self) -> float:
        """Share of multiply-accumulates that run on integers, 1.0 for a graph without products."""
        total = self.integer_macs + self.float_macs
        return self.integer_macs / total if total else 1.0


# reason code -> what it means, what the user can do
_REASONS = {
    "no-int8-form": (
        "this op has no int8 form",
        "nothing to do: it stays float32 and exact; rewrite the model without it if it dominates the profile",
    ),
    "two-activations": (
        "a product of two computed tensors has no int8 form",
        "nothing to do: it stays float32; its share of the work is in the profile",
    ),
    "float-neighbours": (
        "it stands between float ops, so int8 would only add conversions",
        "nothing to do: it follows its neighbours",
    ),
    "not-quantized": (
        "its operands carry no quantization",
        "give calibration data (--calibrate), or quantize these tensors in the model",
    ),
    "asymmetric-weights": (
        "its weights have a non-zero zero point or are not int8",
        "quantize the model with symmetric int8 weights (weight_type=QInt8, WeightSymmetric)",
    ),
}


def coverage(graph: Graph) -> Coverage:
    """Counts of an integer graph, and its float islands with a reason each."""
    islands = []
    integer_nodes = float_nodes = integer_macs = float_macs = 0
    for node in graph.nodes:
        macs = node.op.macs(node.call)
        if node.op.name in CONVERSIONS:
            continue
        if not computes_on_float(node):
            integer_nodes += 1
            integer_macs += macs
            continue
        float_nodes += 1
        float_macs += macs
        if node.op.name in MOVEMENT or node.op.name == "identity":
            continue  # copies of reals are a consequence of the islands around them
        reason = _reason(node)
        detail, advice = _REASONS[reason]
        islands.append(Island(node.name, node.op.name, reason, detail, advice, macs))
    return Coverage(integer_nodes, float_nodes, integer_macs, float_macs, tuple(islands))


def computes_on_float(node: Node) -> bool:
    """Whether a node (other than a conversion) works on float operands."""
    if node.op.name in INTEGER_OPS:
        return False
    return any(_is_float(v) for v in (*node.inputs, *node.outputs))


def _is_float(value: Value | None) -> bool:
    return value is not None and value.dtype.is_float


def _reason(node: Node) -> str:
    from qcomp.passes.integer_regions import has_integer_form, is_parameter

    if node.op.name in PRODUCTS or node.op.name == "matmul":
        second = node.input(1)
        if not is_parameter(second):
            return "two-activations"
        producer = second.producer
        if producer is not None and producer.op.name == "dequantize":
            stored = producer.input(0)
            quant = stored.quant
            if stored.dtype is not DType.I8 or quant is None or any(quant.zero_point):
                return "asymmetric-weights"
        if not _has_dequantized_operand(node):
            return "not-quantized"
        return "no-int8-form"
    if not has_integer_form(node):
        return "no-int8-form"
    return "float-neighbours"


def _has_dequantized_operand(node: Node) -> bool:
    producer = node.input(0).producer
    return producer is not None and producer.op.name == "dequantize"
