"""adjust-products: puts weights and biases that calibration found in the place of a product's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import Pass
from qcomp.passes.integer_regions import is_parameter, is_product
from qcomp.passes.matching import channel_axis, plain_name, weight_source

Arrays = Mapping[str, np.ndarray]


def is_adjustable(node: Node) -> bool:
    """Whether the node is a product with weights behind fake quantization and a bias that is free to change."""
    bias = node.optional(2)
    producer = node.input(1).producer if len(node.inputs) > 1 else None
    return (
        is_product(node)
        and producer is not None
        and producer.op.name == "fake_quant"
        and is_parameter(node.input(1))
        and (bias is None or bias.is_constant)
    )


@dataclass(frozen=True)
class AdjustProducts(Pass):
    """Adds `biases` (float32[channels] by result) to the biases of products, and replaces `weights` likewise.

    Before: %y = conv2d(%xq, %wq, %b)            with biases y: [0.25]
    After:  %y = conv2d(%xq, %wq, %b.1)          %b.1 = %b + [0.25]

    Products are told by the names of their results, since several nodes may have one name.  A product without a bias
    gets one.  Weights are reals on the grid that they have already.  QcompError for a name that is not the result of
    a product with fake-quantized weights.
    """

    name: ClassVar[str] = "adjust-products"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf

    biases: Arrays = field(default_factory=dict, compare=False, repr=False)
    weights: Arrays = field(default_factory=dict, compare=False, repr=False)

    def run(self, graph: Graph) -> Graph:
        nodes = {node.output.name: node for node in graph.nodes if is_adjustable(node)}
        for name in (*self.weights, *self.biases):
            if name not in nodes:
                raise QcompError(f"%{name} is no product with fake-quantized weights", fix="name one that is")
        for name, weights in self.weights.items():
            replace_weights(graph, nodes[name], weights)
        for name, bias in self.biases.items():
            add_bias(graph, nodes[name], bias)
        graph.prune()
        return graph


def replace_weights(graph: Graph, node: Node, weights: np.ndarray) -> None:
    """Puts float32 weights of the same shape behind the product's fake quantization."""
    rounding, old = node.input(1).producer, weight_source(node.input(1))
    assert rounding is not None and old is not None
    fresh = graph.constant(np.asarray(weights, np.float32).reshape(old.shape), plain_name(old))
    if graph.sole_user(node.input(1)) is node:
        graph.set_input(rounding, 0, fresh)
        return
    twin = graph.add("fake_quant", [fresh], dict(rounding.attrs), names=[node.input(1).name])
    graph.set_input(node, 1, twin.output)


def add_bias(graph: Graph, node: Node, bias: np.ndarray) -> Node:
    """The product with float32[channels] added to its bias: the same node, or a new one where it had none."""
    channels = node.output.shape[channel_axis(node)]
    old = node.optional(2)
    before = np.zeros(channels) if old is None else np.broadcast_to(old.array.astype(np.float64).reshape(-1), channels)
    fresh = (before + np.asarray(bias, np.float64)).astype(np.float32)
    constant = graph.constant(fresh, plain_name(old) if old is not None else f"{node.name}.bias")
    if old is not None:
        graph.set_input(node, 2, constant)
        return node
    operands: list[Value | None] = [node.input(0), node.input(1), constant]
    new = graph.add(node.op.name, operands, dict(node.attrs), names=[node.output.name], node_name=node.name)
    graph.replace(node, new.output)
    return new
