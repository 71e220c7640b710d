"""What runs on integers and what does not, with the reason and what the user can do about it (law 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType
from qcomp.passes.affine import joins_units
from qcomp.passes.integer_forms import dequantized
from qcomp.passes.integer_regions import (
    MOVEMENT,
    PRODUCTS,
    activations,
    has_integer_form,
    is_joint_product,
    is_parameter,
    is_product,
)
from qcomp.passes.precision import chosen_float, long_tails

DYNAMIC_OPS = frozenset({"dynamic_qgemm"})
RECURRENT_OPS = frozenset({"lstm", "gru"})
INTEGER_OPS = DYNAMIC_OPS | {
    "qconv2d", "qconv_transpose2d", "qgemm", "qmatmul", "qattention", "qadd", "qmul", "qavg_pool", "qsoftmax",
    "qlayer_norm", "table", "rescale",
}  # fmt: skip
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
    """Multiply-accumulates and nodes by precision, the float islands in order, and the ops of the other float nodes.

    Those, `float_copies`, move data beside the islands and compute nothing.  Of the integer nodes, the `wide` ones read
    int16 activations.
    """

    integer_nodes: int
    float_nodes: int
    integer_macs: int
    float_macs: int
    islands: tuple[Island, ...]
    float_copies: tuple[str, ...]
    dynamic: tuple[str, ...] = ()
    """Integer products and recurrent layers whose input or state is quantized at run time."""
    wide_nodes: int = 0
    wide_macs: int = 0

    @property
    def integer_share(self) -> float:
        """Share of multiply-accumulates that run on integers, 1.0 for a graph without products."""
        total = self.integer_macs + self.float_macs
        return self.integer_macs / total if total else 1.0

    def facts(self) -> dict[str, Any]:
        """Nodes and multiply-accumulates by precision, as `--json` has them."""
        total = self.integer_macs + self.float_macs
        int8_macs = self.integer_macs - self.wide_macs
        return {
            "nodes": {
                "int8": self.integer_nodes - self.wide_nodes, "int16": self.wide_nodes, "float32": self.float_nodes
            },
            "macs": {"int8": int8_macs, "int16": self.wide_macs, "float32": self.float_macs},
            "int8_share_of_macs": int8_macs / total if total else 1.0,
        }  # fmt: skip


# reason code -> what it means, what the user can do
_REASONS = {
    "no-int8-form": (
        "this op has no int8 form",
        "nothing to do: it stays float32 and exact; rewrite the model without it if it dominates the profile",
    ),
    "float-state": (
        "the state of a recurrent layer is not quantized",
        "give calibration data (--calibrate), or compile with --dynamic, which finds its range at each step",
    ),
    "two-activations": (
        "a product of two computed tensors has no int8 form",
        "nothing to do: it stays float32; its share of the work is in the profile",
    ),
    "float-result": (
        "its result leaves the model in float32, so int8 before it would only be converted back",
        "nothing to do: it stays float32 and exact",
    ),
    "float-neighbours": (
        "it stands between float ops, so int8 would only add conversions",
        "nothing to do: it follows its neighbours",
    ),
    "input-units": (
        "it scales the channels of an input by very different factors, and no int8 grid fits them all before that",
        "nothing to do: it stays float32 and exact; give the model scaled data if it dominates the profile",
    ),
    "not-quantized": (
        "its operands carry no quantization",
        "give calibration data (--calibrate), or quantize these tensors in the model",
    ),
    "unsupported-form": (
        "this form of the op has no int8 kernel: groups of a transposed convolution, factors of a gemm, or a bias "
        "with more than one number a channel",
        "nothing to do: it stays float32; write such a bias as an add of its own",
    ),
    "wide-activations": (
        "its activations are neither int8 nor int16 with one scale a tensor, or it has no form for int16",
        "quantize them to 8 bits, per tensor; of chosen int16, choose int8 for what reads its result",
    ),
    "asymmetric-weights": (
        "its weights are not quantized, or not on a symmetric int8 grid per tensor or output channel",
        "give calibration data for float weights (--calibrate), or quantize the model with symmetric int8 weights "
        "(weight_type=QInt8, WeightSymmetric)",
    ),
    "scales-far-apart": (
        "the scale of its result is too small next to those of its operands for a sum in int8 steps",
        "calibrate its result again: it was constant, or nearly",
    ),
    "chosen-float32": (
        "it was chosen to stay float32",
        "choose int8 for it in the precision mapping (--precision) to have it in int8",
    ),
    "long-tail": (
        "on the calibration samples its weights have a tail of many keys, too small for the 8 bits of integer "
        "attention each, which hold much together",
        "choose int8 for it in the precision mapping (--precision) to have it in int8 all the same",
    ),
    "float-copy": (
        "it moves integers as float32: they are on several grids, or its result is also wanted in float32",
        "give its operands and its result one scale and zero point",
    ),
}

_NOTHING = "nothing to do"


def reason_text(reason: str) -> str:
    """What a reason code means; "" for one that is not known, as of another version."""
    return _REASONS.get(reason, ("", ""))[0]


def int8_advice(islands: Iterable[Island]) -> str:
    """What makes a model with these islands run on integers alone."""
    advice = {island.reason: island.advice for island in islands}
    hopeless = [reason for reason in advice if advice[reason].startswith(_NOTHING)]
    parts = [f"{reason}: {text}" for reason, text in advice.items() if reason not in hopeless]
    if hopeless:
        parts.append(f"{', '.join(hopeless)}: take these ops out of the model, or leave --require-int8 out")
    return "; ".join(parts)


def coverage(graph: Graph) -> Coverage:
    """Counts of an integer graph, and its float islands with a reason each."""
    islands, copies = [], []
    integer_nodes = float_nodes = integer_macs = float_macs = wide_nodes = wide_macs = 0
    for node in graph.nodes:
        macs = node.op.macs(node.call)
        if node.op.name in CONVERSIONS:
            continue
        if not computes_on_float(node):
            integer_nodes += 1
            integer_macs += macs
            if _reads_wide(node):
                wide_nodes += 1
                wide_macs += macs
            continue
        float_nodes += 1
        float_macs += macs
        if _is_copy(node) and not _between_integers(graph, node):
            copies.append(node.op.name)  # a consequence of the islands around it
            continue
        reason = _reason(graph, node)
        detail, advice = _REASONS[reason]
        islands.append(Island(node.name, node.op.name, reason, detail, advice, macs))
    dynamic = tuple(node.name for node in graph.nodes if is_dynamic(node))
    return Coverage(
        integer_nodes, float_nodes, integer_macs, float_macs, tuple(islands), tuple(copies), dynamic,
        wide_nodes, wide_macs,
    )  # fmt: skip


def _reads_wide(node: Node) -> bool:
    return any(v is not None and v.dtype is DType.I16 and not v.is_constant for v in node.inputs)


def is_dynamic(node: Node) -> bool:
    """Whether a node multiplies int8 weights with what it, or the node before it, quantizes at run time."""
    return node.op.name in DYNAMIC_OPS or (_is_int8_layer(node) and not node.attrs["state_scale"])


def _is_int8_layer(node: Node) -> bool:
    """A recurrent layer with int8 weights; its gates and cell state are float32."""
    return node.op.name in RECURRENT_OPS and node.input(1).dtype is DType.I8


def computes_on_float(node: Node) -> bool:
    """Whether a node (other than a conversion) works on float operands."""
    if node.op.name in INTEGER_OPS or _is_int8_layer(node):
        return False
    return any(_is_float(v) for v in (*node.inputs, *node.outputs))


def _is_float(value: Value | None) -> bool:
    return value is not None and value.dtype.is_float


def _is_copy(node: Node) -> bool:
    """Whether a node only moves elements: a resize that interpolates computes new ones."""
    return node.op.name in MOVEMENT and not (node.op.name == "resize" and node.attrs["mode"] != "nearest")


def _between_integers(graph: Graph, node: Node) -> bool:
    """Whether integers become reals for this node alone, and its result becomes integers again."""
    users = [user for value in node.outputs for user in graph.users(value)]
    return _stored(node) is not None and any(user.op.name == "quantize" for user in users)


def _reason(graph: Graph, node: Node) -> str:
    if chosen_float(graph, node):
        return "long-tail" if node.name in long_tails(graph) else "chosen-float32"
    if node.op.name in PRODUCTS or node.op.name == "matmul":
        return _product_reason(node)
    if node.op.name in RECURRENT_OPS:
        return "float-state"
    if _is_copy(node):
        return "float-copy"
    if not has_integer_form(node):
        return "no-int8-form"
    if joins_units(graph, node):
        return "input-units"
    stored = _stored(node)
    if stored is not None and not _is_int8(stored):
        return "wide-activations"
    if all(graph.is_output(v) and not graph.users(v) for v in node.outputs):
        return "float-result"
    alone = node.op.name in ("add", "sub") and all(dequantized(v) is not None for v in activations(node))
    return "scales-far-apart" if alone and _between_integers(graph, node) else "float-neighbours"


def _product_reason(node: Node) -> str:
    stored = _stored(node)
    if not is_parameter(node.input(1)) and not is_joint_product(node):
        return "two-activations"
    if not is_product(node) and not is_joint_product(node):
        return "unsupported-form"
    if stored is None:
        return "not-quantized"
    return "asymmetric-weights" if _is_int8(stored) else "wide-activations"


def _stored(node: Node) -> Value | None:
    """The integers that the first computed operand was made of, the ones that are not int8 before others."""
    producers = [v.producer for v in activations(node)]
    found = [p.input(0) for p in producers if p is not None and p.op.name == "dequantize"]
    return min(found, key=_is_int8, default=None)


def _is_int8(value: Value) -> bool:
    return value.dtype is DType.I8 and value.quant is not None and value.quant.axis is None
