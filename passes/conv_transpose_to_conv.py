"""Writes transposed convolutions without overlap as convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite


@dataclass(frozen=True)
class ConvTransposeToConv(NodeRewrite):
    """conv_transpose2d whose square kernel equals its stride becomes a 1x1 conv2d and a depth_to_space.

    Every output pixel then gets exactly one tap; channel (row·k + column)·O + o of the convolution holds it.

    before:
        %y: f32[1,2,8,8] = conv_transpose2d(%x, %w, %b) {strides = [2, 2]}
    after:
        %y.taps: f32[1,8,4,4] = conv2d(%x, %w.1, %b.1)
        %y: f32[1,2,8,8] = depth_to_space(%y.taps) {block = 2, mode = "DCR"}
    """

    name = "conv-transpose-to-conv"
    exact = True
    ops = frozenset({"conv_transpose2d"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        w, bias, call = node.input(1).data, node.optional(2), node.call
        if w is None or (bias is not None and bias.data is None):
            return False
        block = w.shape[2]
        plain = not any(call.ints("pads")) and not any(call.ints("output_pads")) and call.int("groups") == 1
        if not plain or call.ints("dilations") != (1, 1) or not block == w.shape[3] > 1:
            return False
        if call.ints("strides") != (block, block):
            return False
        taps = w.transpose(2, 3, 1, 0).reshape(block * block * w.shape[1], w.shape[0], 1, 1)
        operands = [node.input(0), graph.constant(taps, node.input(1).name)]
        if bias is not None:
            operands.append(graph.constant(np.tile(bias.array, block * block), bias.name))
        layout = call.str("layout")
        conv = graph.add("conv2d", operands, {"layout": layout}, names=[f"{node.name}.taps"], node_name=node.name)
        spread = graph.add("depth_to_space", [conv.output], {"block": block, "mode": "DCR", "layout": layout})
        graph.replace(node, spread.output)
        return True
