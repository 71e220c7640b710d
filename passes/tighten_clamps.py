"""Drops clamps that cannot clamp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.registry import Attribute, Interval
from qcomp.ir.requantize import rounded_dtype
from qcomp.passes.base import Pass
from qcomp.passes.range_analysis import analyze_ranges

_CLAMPED = frozenset({"qconv2d", "qconv_transpose2d", "qgemm", "qadd", "qmul", "qavg_pool", "rescale"})


@dataclass(frozen=True)
class TightenClamps(Pass):
    """A bound (lo or hi) of an integer op that its result provably respects anyway becomes that of its type.

    Code for −128 and 127 (−32768 and 32767) is the saturation that narrowing does, so such a bound costs nothing.

    before:
        %y: i8[1,4,4,8] = qconv2d(%x, %w, %bias, %mult) {zp = -20, lo = -100, hi = 100}
    after:
        %y: i8[1,4,4,8] = qconv2d(%x, %w, %bias, %mult) {zp = -20}
    """

    name = "tighten-clamps"
    exact = True

    def run(self, graph: Graph) -> Graph:
        ranges = analyze_ranges(graph)
        for node in graph.nodes:
            if node.op.name not in _CLAMPED:
                continue
            low, high = _unclamped(node, ranges).span
            least, most = rounded_dtype(node.call).limits
            for name, widest, proven in (
                ("lo", least, low >= node.call.int("lo")),
                ("hi", most, high <= node.call.int("hi")),
            ):
                if proven:
                    node.attrs[name] = widest
        return graph


def _unclamped(node: Node, ranges: Mapping[Value, Interval]) -> Interval:
    """Bounds of the result before its own clamp and table, cut to its type."""
    if node.attrs.get("dtype") is not None and node.outputs[0].dtype.is_float:
        return Interval.of(-np.inf, np.inf)
    least, most = rounded_dtype(node.call).limits
    attrs: dict[str, Attribute] = {**node.attrs, "lo": least, "hi": most}
    call = node.call
    kept = [name != "table?" for name in node.op.operands[: len(node.inputs)]]
    types = tuple(t if keep else None for t, keep in zip(call.types, kept, strict=True))
    constants = tuple(c if keep else None for c, keep in zip(call.constants, kept, strict=True))
    bare = replace(call, attrs=attrs, types=types, constants=constants)
    bounds = [None if v is None or not keep else ranges[v] for v, keep in zip(node.inputs, kept, strict=True)]
    return node.op.interval(bare, *bounds)[0]
