"""fuse-requantize: dequantize → op → clamps → quantize becomes one integer op; chains of functions become a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType, Quantization
from qcomp.passes.base import NodeRewrite
from qcomp.passes.integer_forms import (
    Target,
    build_attention,
    build_average_pool,
    build_layer_norm,
    build_matmul,
    build_product,
    build_softmax,
    build_sum,
    build_table,
    clamp_limits,
    dequantized,
    is_int8,
)
from qcomp.passes.integer_regions import is_clamp, is_unary, scalar_operand
from qcomp.passes.precision import chosen_float

_Builder = Callable[[Graph, Node, Target], Value | None]
_PRODUCTS: dict[str, _Builder] = {
    "conv2d": build_product,
    "conv_transpose2d": build_product,
    "gemm": build_product,
    "attention": build_attention,
    "matmul": build_matmul,
}
_BUILDERS: dict[str, _Builder] = {
    **_PRODUCTS,
    "add": build_sum,
    "sub": build_sum,
    "mul": build_sum,
    "avg_pool": build_average_pool,
    "softmax": build_softmax,
    "layer_norm": build_layer_norm,
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

    A product whose result is not quantized becomes an integer op with float32 results.  What has no integer form
    keeps its quantize and dequantize, and stays a float island, as does what was chosen to.
    """

    name: ClassVar[str] = "fuse-requantize"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf  # float products round elsewhere: results move by a step at most
    ops: ClassVar[frozenset[str]] = frozenset({"quantize", *_PRODUCTS})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if node.op.name == "quantize":
            return _fuse_quantize(graph, node)
        if chosen_float(graph, node):
            return False
        users = graph.users(node.output)
        if any(_leads_to_quantize(graph, user) for user in users) and not graph.is_output(node.output):
            return False
        return _product_to_float(graph, node)


def _leads_to_quantize(graph: Graph, node: Node) -> bool:
    """Whether clamps and a quantize follow, which will take the product themselves."""
    while is_clamp(node) and not chosen_float(graph, node):
        user = graph.sole_user(node.output)
        if user is None:
            return False
        node = user
    return node.op.name == "quantize" and is_int8(node)


def _fuse_quantize(graph: Graph, node: Node) -> bool:
    quant, dtype = node.attrs["quant"], node.attrs["dtype"]
    assert isinstance(quant, Quantization)
    if dtype is not DType.I8 or quant.axis is not None:
        return False
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
    root = node.input(0).producer
    clamps: list[Node] = []
    while root is not None and is_clamp(root):
        clamps.append(root)
        root = root.input(0).producer
    if root is None or any(chosen_float(graph, part) for part in (root, *clamps)):
        return False
    lo, hi = clamp_limits(clamps, quant)
    target = Target(quant, lo, hi, node.output.name, bool(clamps))
    build = _BUILDERS.get(root.op.name)
    if build is None:
        return False
    new = build(graph, root, target)
    if new is None:
        return False
    graph.replace(node, new)
    return True


def _product_to_float(graph: Graph, node: Node) -> bool:
    new = _PRODUCTS[node.op.name](graph, node, Target(None, -128, 127, node.output.name))
    if new is None:
        return False
    graph.replace(node, new)
    return True
