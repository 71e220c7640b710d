"""fuse-requantize: dequantize → op → clamps → quantize becomes one integer op; chains of functions become a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.requantize import ACTIVATIONS
from qcomp.ir.types import DType, Quantization
from qcomp.passes.base import NodeRewrite
from qcomp.passes.integer_forms import (
    Target,
    build_attention,
    build_average_pool,
    build_layer_norm,
    build_matmul,
    build_product,
    build_rescale,
    build_softmax,
    build_sum,
    build_table,
    clamp_limits,
    dequantized,
    is_activation,
)
from qcomp.passes.integer_regions import is_clamp, is_unary, scalar_operand
from qcomp.passes.precision import chosen_float

_Builder = Callable[[Graph, Node, Target], Value | None]
# What has a form with a float32 result.
_TO_FLOAT: dict[str, _Builder] = {
    "conv2d": build_product,
    "conv_transpose2d": build_product,
    "gemm": build_product,
    "attention": build_attention,
    "matmul": build_matmul,
    "layer_norm": build_layer_norm,
}
_BUILDERS: dict[str, _Builder] = {
    **_TO_FLOAT,
    "add": build_sum,
    "sub": build_sum,
    "mul": build_sum,
    "avg_pool": build_average_pool,
    "softmax": build_softmax,
}


@dataclass(frozen=True)
class FuseRequantize(NodeRewrite):
    """Builds the integer ops.

    Before: %xr = dequantize(%x)
            %wr = dequantize(%w)
            %c = conv2d(%xr, %wr, %b) {layout = "NHWC"}
            %r = relu(%c)
            %y = quantize(%r) {quant = q(0.1, -128)}
    After:  %y = qconv2d(%x, %w', %bias, %mult) {bounded = true, x_zp = ..., zp = -128, lo = -128}

    What moves from one grid to another, of int16 at either end, becomes a rescale.  A product or norm whose result is
    not quantized becomes an integer op with float32 results.  What has no integer form keeps its quantize and
    dequantize, and stays a float island, as does what was chosen to.
    """

    name: ClassVar[str] = "fuse-requantize"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf  # float products round elsewhere: results move by a step at most
    ops: ClassVar[frozenset[str]] = frozenset({"quantize", *_TO_FLOAT})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if node.op.name == "quantize":
            return _fuse_quantize(graph, node)
        if chosen_float(graph, node):
            return False
        users = graph.users(node.output)
        if any(_leads_to_quantize(graph, user) for user in users) and not graph.is_output(node.output):
            return False
        return _fuse_to_float(graph, node)


def _leads_to_quantize(graph: Graph, node: Node) -> bool:
    """Whether clamps and a quantize follow, which will take the product themselves."""
    while is_clamp(node) and not chosen_float(graph, node):
        user = graph.sole_user(node.output)
        if user is None:
            return False
        node = user
    return node.op.name == "quantize" and is_activation(node)


def _fuse_quantize(graph: Graph, node: Node) -> bool:
    quant, dtype = node.attrs["quant"], node.attrs["dtype"]
    assert isinstance(quant, Quantization) and isinstance(dtype, DType)
    return is_activation(node) and (
        (dtype is DType.I8 and _fuse_table(graph, node, quant)) or _fuse_op(graph, node, quant, dtype)
    )


def _fuse_table(graph: Graph, node: Node, quant: Quantization) -> bool:
    """A chain of functions of int8 between."""
    chain: list[Node] = []
    current = node.input(0)
    while current.producer is not None and is_unary(current.producer) and not chosen_float(graph, current.producer):
        chain.append(current.producer)
        scalar = scalar_operand(current.producer)
        current = current.producer.input(0 if scalar is None else 1 - scalar)
        source = dequantized(current)
        if source is not None:
            new = build_table(graph, source, list(reversed(chain)), quant, node.output.name)
            if new is None:
                return False
            graph.replace(node, new)
            return True
    return False


def _fuse_op(graph: Graph, node: Node, quant: Quantization, dtype: DType) -> bool:
    """An op, or nothing but a change of grid, with clamps behind it."""
    root = node.input(0).producer
    clamps: list[Node] = []
    while root is not None and is_clamp(root):
        clamps.append(root)
        root = root.input(0).producer
    if root is None or any(chosen_float(graph, part) for part in (root, *clamps)):
        return False
    lo, hi = clamp_limits(clamps, quant, dtype)
    target = Target(quant, lo, hi, node.output.name, bool(clamps), dtype)
    new = None
    if root.op.name == "dequantize":
        stored = dequantized(root.output, ACTIVATIONS)
        if stored is not None and DType.I16 in (stored.dtype, dtype):
            new = build_rescale(graph, stored, target)
    elif root.op.name in _BUILDERS:
        new = _BUILDERS[root.op.name](graph, root, target)
    if new is None:
        return False
    graph.replace(node, new)
    return True


def _fuse_to_float(graph: Graph, node: Node) -> bool:
    new = _TO_FLOAT[node.op.name](graph, node, Target(None, -128, 127, node.output.name))
    if new is None:
        return False
    graph.replace(node, new)
    return True
