"""channels-last: spatial ops compute on NHWC, the layout of every kernel; transposes mark the seams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)


@dataclass(frozen=True)
class ChannelsLast(NodeRewrite):
    """Gives every op with layout = "NCHW" the layout "NHWC", between transposes.

    Before: %y = conv2d(%x, %w)
    After:  %t = transpose(%x) {perm = [0, 2, 3, 1]}
            %c = conv2d(%t, %w) {layout = "NHWC"}
            %y = transpose(%c) {perm = [0, 3, 1, 2]}

    Weights keep their order.  `sink-transposes` then cancels what meets its inverse.
    """

    name: ClassVar[str] = "channels-last"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-4  # sums of a float convolution are taken in another order

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if node.attrs.get("layout") != "NCHW":
            return False
        x = graph.add("transpose", [node.input(0)], {"perm": TO_NHWC}, names=[f"{node.input(0).name}.nhwc"])
        spatial = graph.add(
            node.op.name,
            [x.output, *node.inputs[1:]],
            {**node.attrs, "layout": "NHWC"},
            names=[f"{node.output.name}.nhwc"],
            node_name=node.name,
            quants=[node.output.quant],
        )
        back = graph.add("transpose", [spatial.output], {"perm": TO_NCHW}, names=[node.output.name])
        graph.replace(node, back.output)
        return True
