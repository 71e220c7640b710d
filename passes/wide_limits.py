"""How far the integers of an int16 value may reach, so that the products which read it fit into int32 as they are."""

from __future__ import annotations

import numpy as np

from qcomp.ir.affine import weight_scales
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType
from qcomp.passes.integer_regions import PRODUCTS, is_clamp, is_product
from qcomp.passes.matching import weight_axis
from qcomp.passes.quantization_plan import QuantizationPlan

LARGEST = DType.I16.limits[1]
# A hair below 2^31, for what rounding and corrections change of weights and biases later.
_ACCUMULATOR = 0.97 * 2.0**31
# No bias takes more: weight scales rise until it fits (assign-per-channel).
_BIAS = 2.0**30
# What clamps its results to bounds of int16.
_CLAMPING = PRODUCTS | {"attention", "matmul", "softmax", "layer_norm", "add", "sub"}


def largest_integer(graph: Graph, plan: QuantizationPlan, value: Value, bound: float) -> int:
    """The largest magnitude, 32767 at most, that integers of a value and of those that share its grid, which stand for
    up to `bound`, may have.

    A product adds up |x|·Σ|w| + |bias| at most, in units of s_x·s_w with s_x = bound / largest integer: many taps leave
    an int16 operand less than its 16 bits.  Weights are kept as fine as they are for int8 operands.
    """
    group = plan.wide.group(value)
    tied = [v for v in dict.fromkeys([*plan.wide.points, *plan.wide.parent]) if plan.wide.group(v) is group]
    products = {
        user: None for v in tied for user in graph.users(v)
        if user in plan.integer and is_product(user) and plan.reads.is_wide(user, v) and user.input(0) is v
    }  # fmt: skip
    limits = [_limit(node, bound) for node in products if node.input(1).is_constant]
    return max(1, int(min([float(LARGEST), *limits])))


def _limit(node: Node, bound: float) -> float:
    weights, axis = node.input(1).array, weight_axis(node)
    scales = weight_scales(weights, axis).astype(np.float64)
    factor = node.call.float("alpha") if node.op.name == "gemm" else 1.0
    steps = np.rint(np.moveaxis(weights, axis, 0).reshape(scales.size, -1) / scales[:, None])
    sums = np.abs(steps).sum(axis=1)
    bias = node.optional(2)
    terms = np.zeros(1) if bias is None or not bias.is_constant else np.abs(bias.array.reshape(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = terms / (scales * factor * bound)  # of the bias, for each step that the largest integer has
        limits = np.fmax(_ACCUMULATOR / (sums + share), (_ACCUMULATOR - _BIAS) / sums)
    return float(np.min(limits, initial=np.inf))


def clamps_itself(plan: QuantizationPlan, value: Value) -> bool:
    """Whether the integer op that makes a value takes bounds of it along."""
    node = value.producer
    while node is not None and node in plan.integer and is_clamp(node):
        node = node.input(0).producer
    return node is not None and node in plan.integer and node.op.name in _CLAMPING
