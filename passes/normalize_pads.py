"""Moves padding into the window op that uses it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import is_op


@dataclass(frozen=True)
class NormalizePads(NodeRewrite):
    """A constant pad of rows and columns joins the conv2d, avg_pool or max_pool after it, where that is exact.

    conv2d: padding with 0.  avg_pool: padding with 0 before a pool that has none of its own; the padded taps counted,
    so they still count.  max_pool: padding with −∞, or with 0 what a relu or the like keeps at 0 or above, as long as
    no window lies in the padding alone.

    before:
        %p: f32[1,3,10,10] = pad(%x) {pads = [0, 0, 1, 1, 0, 0, 1, 1]}
        %y: f32[1,8,8,8] = conv2d(%p, %w)
    after:
        %y: f32[1,8,8,8] = conv2d(%x, %w) {pads = [1, 1, 1, 1]}
    """

    name = "normalize-pads"
    exact = True
    ops = frozenset({"conv2d", "avg_pool", "max_pool"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if not is_op(node.input(0), "pad"):
            return False
        pad = node.input(0).producer
        assert pad is not None
        amounts = _spatial_pads(pad, node.call.str("layout"))
        if amounts is None or not _exact(pad, node, amounts):
            return False
        attrs = dict(node.attrs)
        attrs["pads"] = tuple(a + b for a, b in zip(node.call.ints("pads"), amounts, strict=True))
        if node.op.name == "avg_pool":
            attrs["count_include_pad"] = True
        operands = [pad.input(0), *node.inputs[1:]]
        joined = graph.add(node.op.name, operands, attrs, node_name=node.name, quants=[node.output.quant])
        graph.replace(node, joined.output)
        return True


def _spatial_pads(pad: Node, layout: str) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right), if the pad is constant, adds rows and columns only, and adds none twice."""
    pads = pad.call.ints("pads")
    if len(pads) != 8 or pad.attrs["mode"] != "constant" or min(pads) < 0 or len(pad.inputs) > 1:
        return None
    row = 2 if layout == "NCHW" else 1
    amounts = (pads[row], pads[row + 1], pads[row + 4], pads[row + 5])
    return amounts if sum(amounts) == sum(pads) else None


def _exact(pad: Node, node: Node, amounts: tuple[int, ...]) -> bool:
    value, own = pad.call.float("value"), node.call.ints("pads")
    if node.op.name == "conv2d":
        return value == 0.0
    if node.op.name == "avg_pool":
        return value == 0.0 and not any(own)
    kernel = node.call.ints("kernel")
    reaches = all(a + o < k for a, o, k in zip(amounts, own, kernel * 2, strict=True))
    if any(d != 1 for d in node.call.ints("dilations")) or not reaches:
        return False
    return value == -math.inf or (value == 0.0 and not any(own) and _not_negative(pad))


def _not_negative(pad: Node) -> bool:
    x = pad.input(0)
    if is_op(x, "relu", "sigmoid", "hard_sigmoid", "softmax"):
        return True
    return is_op(x, "clip") and x.producer is not None and x.producer.call.float("lo") >= 0.0
