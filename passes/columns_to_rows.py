"""columns-to-rows: convolutions along one dimension run along rows, which kernels compute many pixels of at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import plain_name


@dataclass(frozen=True)
class ColumnsToRows(NodeRewrite):
    """A qconv2d of images and windows that are one pixel wide becomes one of images that are one pixel high.

    Before: %y: i8[1,508,1,8] = qconv2d(%x, %w, %bias, %mult)                x: i8[1,512,1,4], w: i8[8,5,1,4]
    After:  %x.row: i8[1,1,512,4] = reshape(%x) {shape = [1, 1, 512, 4]}
            %y.row: i8[1,1,508,8] = qconv2d(%x.row, %w.1, %bias, %mult)
            %y: i8[1,508,1,8] = reshape(%y.row) {shape = [1, 508, 1, 8]}
    """

    name: ClassVar[str] = "columns-to-rows"
    ops: ClassVar[frozenset[str]] = frozenset({"qconv2d"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        x, w, call = node.input(0), node.input(1), node.call
        pads = call.ints("pads")
        flat = x.shape[2] == w.shape[2] == 1 and pads[1] == pads[3] == 0
        if not flat or x.shape[1] == 1 or w.data is None or node.optional(5) is not None:
            return False
        images, height, _, channels = x.shape
        row = graph.add("reshape", [x], {"shape": (images, 1, height, channels)}, names=[f"{x.name}.row"])
        turned = graph.constant(w.array.transpose(0, 2, 1, 3), plain_name(w), w.quant)
        strides, dilations = call.ints("strides"), call.ints("dilations")
        attrs = dict(node.attrs)
        attrs.update(strides=(1, strides[0]), dilations=(1, dilations[0]), pads=(0, pads[0], 0, pads[2]))
        y = node.output
        operands = [row.output, turned, *node.inputs[2:]]
        product = graph.add(
            "qconv2d", operands, attrs, names=[f"{y.name}.row"], node_name=node.name, quants=[y.quant]
        )
        graph.replace(node, graph.add("reshape", [product.output], {"shape": y.shape}).output)
        return True
