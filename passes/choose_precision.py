"""choose-precision: notes which nodes shall read int16, or stay float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph
from qcomp.ir.types import DType
from qcomp.passes.base import Pass
from qcomp.passes.integer_regions import MOVEMENT
from qcomp.passes.precision import PRECISIONS, check_names, check_precision, read_precision, set_precision
from qcomp.passes.quantize_embeddings import picks_rows
from qcomp.passes.wide_reads import may_read_wide


@dataclass(frozen=True)
class ChoosePrecision(Pass):
    """Notes in the graph which nodes shall compute in which precision; the passes that put grids in follow it.

    Before: graph @m {
              %c = conv2d(%x, %w)
    After:  graph @m {precision = ["c=float32"]}
              %c = conv2d(%x, %w)

    `file` names a JSON object of node name to precision; `precision` is the same from Python.  What a node that stays
    float32 leaves without integer neighbours stays float32 with it.  QcompError for nodes that there are not, for
    float32 data movement but embeddings, which follows what it stands beside, and for int16 where a node has no such
    form.
    """

    name: ClassVar[str] = "choose-precision"

    file: str = ""
    precision: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def run(self, graph: Graph) -> Graph:
        where = self.file or "precision"
        precision = dict(read_precision(Path(self.file)) if self.file else self.precision)
        check_precision(precision, where)
        check_names(graph, precision, where)
        computing = {node.name for node in graph.nodes if node.op.name not in MOVEMENT or picks_rows(node)}
        widening = {node.name for node in graph.nodes if may_read_wide(node)}
        for name, chosen in precision.items():
            if PRECISIONS[chosen] is DType.I16 and name not in widening:
                raise QcompError(
                    f"node {name!r} has no form that reads int16", where=where,
                    fix="choose int8 or float32; products with constant weights, sums and layer norms read int16",
                )  # fmt: skip
            if PRECISIONS[chosen].is_float and name not in computing:
                raise QcompError(
                    f"node {name!r} only moves data and cannot be {chosen} by itself", where=where,
                    fix="name what computes beside it",
                )  # fmt: skip
        set_precision(graph, precision)
        return graph
