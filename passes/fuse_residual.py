"""fuse-residual: a convolution adds what its result alone is added to, before it rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.requantize import largest_factor
from qcomp.ir.types import DType
from qcomp.passes.base import NodeRewrite
from qcomp.passes.channel_surgery import is_depthwise

#: Bits of a residual's factor that stay: its product with any difference of two bytes is then exact in float32.
_FACTOR_BITS = 16


@dataclass(frozen=True)
class FuseResidual(NodeRewrite):
    """A sum of a convolution's result, which nothing else reads, with a tensor of its shape becomes its residual.

    The convolution's own rounding to int8 goes away, so results move by about a step; that is why models that come
    quantized keep their additions.  Of two convolutions that qualify the later one takes the sum.

    before:
        %a: i8[1,4,4,8] = qconv2d(%x, %w, %bias, %mult)
        %y: i8[1,4,4,8] = qadd(%a, %r) {a_mult = 0.5, b_mult = 0.25, b_zp = 3, zp = -7}
    after:
        %y: i8[1,4,4,8] = qconv2d(%x, %w, %bias, %mult.1, _, %r) {r_zp = 3, r_mult = 0.25, bounded = true, zp = -7}
    """

    name: ClassVar[str] = "fuse-residual"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf
    ops: ClassVar[frozenset[str]] = frozenset({"qadd"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        found = [i for i in (0, 1) if _takes_sum(graph, node, node.input(i), node.input(1 - i)) and _fits(node, i)]
        if not found:
            return False
        own = max(found, key=lambda i: _producer(node.input(i)).serial)
        conv, residual, call = _producer(node.input(own)), node.input(1 - own), node.call
        factor, other = call.float(f"{'ab'[own]}_mult"), "ab"[1 - own]
        mult = _scaled(conv.input(3).array, factor)
        attrs = {
            **conv.attrs,
            **{name: call.int(name) for name in ("zp", "lo", "hi")},
            "bounded": True,
            "r_mult": _shortened(call.float(f"{other}_mult")),
            "r_zp": call.int(f"{other}_zp"),
        }
        new = graph.add(
            "qconv2d",
            [*conv.inputs[:3], graph.constant(mult, "mult"), node.optional(2), residual],
            attrs,
            names=[node.output.name],
            node_name=conv.name,
            quants=[node.output.quant],
        )
        graph.replace(node, new.output)
        return True


def _producer(value: Value) -> Node:
    assert value.producer is not None
    return value.producer


def _takes_sum(graph: Graph, node: Node, value: Value, other: Value) -> bool:
    conv = value.producer
    if conv is None or conv.op.name != "qconv2d" or is_depthwise(conv) or graph.sole_user(value) is not node:
        return False
    if any(v.dtype is not DType.I8 for v in (value, other, node.output, conv.input(0))):
        return False
    if other.is_constant or other is value or not value.shape == other.shape == node.output.shape:
        return False
    unclamped = not conv.call.bool("bounded") and (conv.call.int("lo"), conv.call.int("hi")) == (-128, 127)
    constant = all(conv.input(i).is_constant for i in (1, 2, 3))
    return unclamped and constant and conv.optional(4) is None and conv.optional(5) is None


def _fits(node: Node, own: int) -> bool:
    """Whether the factors of the sum are ones that a convolution takes."""
    mult = _scaled(_producer(node.input(own)).input(3).array, node.call.float(f"{'ab'[own]}_mult"))
    other = _shortened(node.call.float(f"{'ba'[own]}_mult"))
    return bool(np.isfinite(mult).all()) and abs(other) < largest_factor(DType.I8)


def _scaled(mult: np.ndarray, factor: float) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray((mult * np.float32(factor)).astype(np.float32))


def _shortened(factor: float) -> float:
    """The factor rounded to `_FACTOR_BITS` bits; it keeps to float32."""
    mantissa, exponent = math.frexp(factor)
    return math.ldexp(round(math.ldexp(mantissa, _FACTOR_BITS)), exponent - _FACTOR_BITS)
