"""split-rows: the first layers of a network run on bands of rows, one after the other, so that less is live at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import Pass

Rows = tuple[int, int]  # first, and the one behind the last

#: Ops that compute rows of their result from rows of their operands: by windows, or element by element.
WINDOWS = frozenset({"qconv2d", "max_pool", "qavg_pool"})
ELEMENTWISE = frozenset({"qadd", "table", "rescale"})


@dataclass(frozen=True)
class SplitRows(Pass):
    """Everything that `until` is computed from is computed for `bands` bands of its rows, which are then joined.

    Before: %a = qconv2d(%x, ...) {pads = [1, 1, 1, 1]}                    x: i8[1,8,8,3], 3 x 3 taps
            %y = qconv2d(%a, ...)
    After:  %x0 = slice(%x) {rows 0:5}      %a0 = qconv2d(%x0, ...) {pads = [1, 1, 0, 1]}      %y0 = qconv2d(%a0, ...)
            %x1 = slice(%x) {rows 3:8}      %a1 = qconv2d(%x1, ...) {pads = [0, 1, 1, 1]}      %y1 = qconv2d(%a1, ...)
            %y = concat(%y0, %y1) {axis = 1}

    Rows that two bands need are computed twice; no bit changes.  Raises QcompError where something between the model's
    inputs and `until` is used elsewhere, or does not work by rows.
    """

    until: str = ""
    bands: int = 2
    name: ClassVar[str] = "split-rows"

    def run(self, graph: Graph) -> Graph:
        value = graph.value(self.until)
        region = rows_region(graph, value)
        if region is None:
            raise QcompError("not everything that it is computed from works by rows", where=f"%{self.until}")
        rows = value.shape[1]
        bands = min(self.bands, rows)
        edges = [rows * band // bands for band in range(bands + 1)]
        pieces = [
            _band(graph, region, value, (edges[band], edges[band + 1]), f".rows{band}") for band in range(bands)
        ]
        joined = graph.add("concat", pieces, {"axis": 1}, names=[f"{self.until}.bands"], quants=[value.quant])
        assert value.producer is not None
        graph.replace(value.producer, joined.output)
        graph.prune()
        return graph


def rows_region(graph: Graph, until: Value) -> list[Node] | None:
    """The nodes that compute `until` by rows, from the model's inputs or what only reshapes them, in order; None where
    there are none, or one has another user or is of another kind."""
    found: set[Node] = set()
    pending = [until]
    while pending:
        value = pending.pop()
        node = value.producer
        if node is None or node in found or node.op.name in ("reshape", "transpose", "quantize"):
            continue
        if not _by_rows(node):
            return None
        found.add(node)
        pending += [v for v in node.inputs if v is not None and not v.is_constant]
    inner = {node.output for node in found if node.output is not until}
    if any(user not in found for value in inner for user in graph.users(value)) or any(map(graph.is_output, inner)):
        return None
    return [node for node in graph.nodes if node in found] or None


def _by_rows(node: Node) -> bool:
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and not v.is_constant]
    # Of a convolution the residual; parameters have no rows.
    activations = {"qadd": node.inputs[:2], "qconv2d": node.inputs[5:]}.get(node.op.name, ())
    if any(v is not None and v.is_constant and v.type.elements > 1 for v in activations):
        return False  # its rows would have to be cut too
    if any(v.type.rank != 4 or v.shape[0] != 1 for v in values) or len(node.outputs) != 1:
        return False
    if node.op.name in ELEMENTWISE:
        return all(v.shape == node.output.shape for v in values)
    if node.op.name == "max_pool":
        return node.call.str("layout") == "NHWC"
    if node.op.name == "qavg_pool":
        return not any(node.call.ints("pads"))
    return node.op.name in WINDOWS


def needed_rows(node: Node, operand: int, rows: Rows) -> tuple[Rows, tuple[int, int]]:
    """The rows of an operand that rows of the result need, and how many rows of padding there are above and below."""
    if node.op.name in ELEMENTWISE or operand > 0:  # a residual has the result's rows
        return rows, (0, 0)
    call = node.call
    taps = node.input(1).shape[1] if node.op.name == "qconv2d" else call.ints("kernel")[0]
    dilation = call.ints("dilations")[0] if "dilations" in node.attrs else 1
    stride, top = call.ints("strides")[0], call.ints("pads")[0]
    low, high = rows[0] * stride - top, (rows[1] - 1) * stride - top + (taps - 1) * dilation + 1
    first, last = max(low, 0), min(high, node.input(0).shape[1])
    return (first, last), (first - low, high - last)


def _band(graph: Graph, region: Sequence[Node], until: Value, rows: Rows, suffix: str) -> Value:
    """The value that holds these rows of `until`."""
    wanted: dict[Value, Rows] = {until: rows}
    for node in reversed(region):
        for index, value in enumerate(node.inputs):
            if value is None or value.is_constant:
                continue
            needs, _ = needed_rows(node, index, wanted[node.output])
            known = wanted.get(value, needs)
            wanted[value] = (min(known[0], needs[0]), max(known[1], needs[1]))
    held: dict[Value, Value] = {}
    for node in region:
        operands = []
        attrs = dict(node.attrs)
        for index, value in enumerate(node.inputs):
            if value is None or value.is_constant:
                operands.append(value)
                continue
            needs, (above, below) = needed_rows(node, index, wanted[node.output])
            if value not in held:  # made outside
                held[value] = _cut(graph, value, (0, value.shape[1]), wanted[value], suffix)
            operands.append(_cut(graph, held[value], wanted[value], needs, suffix))
            if index == 0 and node.op.name in WINDOWS:
                left, right = node.call.ints("pads")[1], node.call.ints("pads")[3]
                attrs["pads"] = (above, left, below, right)
        new = graph.add(
            node.op.name, operands, attrs, names=[f"{node.output.name}{suffix}"], quants=[node.output.quant],
            node_name=f"{node.name}{suffix}",
        )  # fmt: skip
        held[node.output] = new.output
    return held[until]


def _cut(graph: Graph, value: Value, there: Rows, wanted: Rows, suffix: str) -> Value:
    """Rows `wanted` of a value that holds rows `there`."""
    if there == wanted:
        return value
    n, _, width, channels = value.shape
    first, last = wanted[0] - there[0], wanted[1] - there[0]
    attrs = {"starts": (0, first, 0, 0), "ends": (n, last, width, channels), "steps": (1, 1, 1, 1)}
    name = graph.fresh_name(f"{value.name}{suffix}.cut")
    return graph.add("slice", [value], attrs, names=[name], quants=[value.quant]).output
