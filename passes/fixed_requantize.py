"""fixed-requantize: results are rounded in integers, for cores without floating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph
from qcomp.ir.types import DType
from qcomp.passes.base import Pass


@dataclass(frozen=True)
class FixedRequantize(Pass):
    """Every op that can rounds in fixed point (qcomp.ir.fixed_point), and the graph says so.

    Before: graph @m {requantize = "float"} {
              %y: i8[1,4] = qgemm(%x, %w, %bias, %mult) {zp = 3}
    After:  graph @m {requantize = "fixed"} {
              %y: i8[1,4] = qgemm(%x, %w, %bias, %mult) {fixed = true, zp = 3}

    Results that lie next to a tie may round to the other side.
    """

    name: ClassVar[str] = "fixed-requantize"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.1

    def run(self, graph: Graph) -> Graph:
        for node in graph.nodes:
            if "fixed" in node.op.attributes and node.attrs.get("dtype") is not DType.F32:
                node.attrs["fixed"] = True
        graph.attrs["requantize"] = "fixed"
        return graph
