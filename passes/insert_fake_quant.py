"""insert-fake-quant: puts the calibrated grids of activations into a float graph."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.affine import affine_parameters
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.interpreter import evaluate_node
from qcomp.ir.registry import Attribute
from qcomp.ir.types import DType, Quantization
from qcomp.passes.base import Pass
from qcomp.passes.integer_regions import MOVEMENT, activations, is_parameter, scalar_operand
from qcomp.passes.quantization_plan import QuantizationPlan, plan_quantization
from qcomp.passes.wide_limits import LARGEST, clamps_itself, largest_integer

Ranges = Mapping[str, tuple[float, float]]

_CHAIN_SAMPLES = 2048
_RAW = ".raw"
_HEADROOM = 2.0
# Steps that the range seen gets before there are any for headroom: eight times those of int8.
_FINE = 1024


@dataclass(frozen=True)
class InsertFakeQuant(Pass):
    """Gives every value that an integer op reads or writes a grid from its calibrated range: int8, or int16 where the
    plan says so.

    Before: %c = conv2d(%x, %w)            with ranges x: [-1, 1], r: [0, 6]
            %r = relu(%c)
            %y = conv2d(%r, %v)
    After:  %xq = fake_quant(%x) {quant = q(0.0078, 0)}
            %c = conv2d(%xq, %w)
            %r = relu(%c)
            %rq = fake_quant(%r) {quant = q(0.0235, -128)}
            %y = conv2d(%rq, %v)

    Values that concat or data movement ties together share one grid over the union of their ranges.  A value that
    only a table reads gives up the part of its range where the table's result no longer changes.
    `file` names a JSON object of value name to [lo, hi]; `ranges` is the same from Python.  `extremes` has the smallest
    and largest number seen of values whose range was cut; int16 grids hold twice these, as they have bits to spare.
    QcompError when a range is missing.
    """

    name: ClassVar[str] = "insert-fake-quant"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf  # rounding to grids is what it is for

    file: str = ""
    ranges: Ranges = field(default_factory=dict, compare=False, repr=False)
    extremes: Ranges = field(default_factory=dict, compare=False, repr=False)

    def run(self, graph: Graph) -> Graph:
        plan = plan_quantization(graph)
        ranges = self._load()
        grids = choose_grids(graph, plan, ranges)
        wide_grids = choose_wide_grids(graph, plan, {**ranges, **self.extremes})
        for value in plan.observed:
            _insert(graph, plan, value, grids.get(value), wide_grids.get(value))
        _insert_concat_grids(graph, plan)
        _quantize_parameters(graph, plan)
        return graph

    def _load(self) -> Ranges:
        if not self.file:
            return self.ranges
        try:
            entries = json.loads(Path(self.file).read_text())
            return {str(k): (float(lo), float(hi)) for k, (lo, hi) in entries.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise QcompError(f"cannot read ranges: {error}", where=self.file, fix='write {"value": [lo, hi]}') from None


def choose_grids(graph: Graph, plan: QuantizationPlan, ranges: Ranges) -> dict[Value, Quantization]:
    """The int8 grid of every point; tied points get one grid."""
    spans = {value: _range_of(ranges, value) for value in plan.points}
    for value, end in plan.chain_end.items():
        if end in spans and plan.group(value) is value:
            spans[value] = _useful_range(value, end, spans[value], spans[end])
    grids: dict[Value, Quantization] = {}
    for members in plan.members().values():
        lo, hi = min(spans[v][0] for v in members), max(spans[v][1] for v in members)
        grid = Quantization.per_tensor(*affine_parameters(lo, hi))
        for value in members:
            grids[value] = grid
    return grids


@dataclass(frozen=True)
class WideGrid:
    """A symmetric int16 grid, and the largest magnitude that its integers may have."""

    quant: Quantization
    largest: int

    @property
    def bounded(self) -> bool:
        return self.largest < LARGEST

    @property
    def bound(self) -> float:
        return self.quant.scale[0] * self.largest


def choose_wide_grids(graph: Graph, plan: QuantizationPlan, ranges: Ranges) -> dict[Value, WideGrid]:
    """The grid of every point that is read in int16: for twice the range seen, of as many steps as fit into the
    accumulators of the products that read it."""
    grids: dict[Value, WideGrid] = {}
    for group, members in plan.wide.members().items():
        spans = [_range_of(ranges, value) for value in members]
        seen = max(max(-lo, hi) for lo, hi in spans)
        bound = _HEADROOM * seen
        largest = largest_integer(graph, plan, group, bound)
        if largest < _HEADROOM * _FINE:
            bound = seen * max(1.0, largest / _FINE)
            largest = largest_integer(graph, plan, group, bound)
        reach = bound * LARGEST / largest
        grid = WideGrid(Quantization.per_tensor(*affine_parameters(-reach, reach, DType.I16, symmetric=True)), largest)
        for value in members:
            grids[value] = grid
    return grids


def _range_of(ranges: Ranges, value: Value) -> tuple[float, float]:
    if value.name not in ranges:
        raise QcompError(
            f"no calibrated range for %{value.name}", fix="calibrate the model, or give ranges for all values"
        )
    return ranges[value.name]


def _useful_range(
    value: Value, end: Value, span: tuple[float, float], result: tuple[float, float]
) -> tuple[float, float]:
    """The part of [lo, hi] outside of which the chain's result moves by less than half a step of its own grid."""
    lo, hi = span
    if not hi > lo:
        return span
    samples = np.linspace(lo, hi, _CHAIN_SAMPLES, dtype=np.float32)
    outcome = _chain_function(value, end, samples).astype(np.float64)
    half_step = (max(result[1], 0.0) - min(result[0], 0.0)) / 255 / 2
    if not np.isfinite(outcome).all() or half_step <= 0:
        return span
    low_ok = np.maximum.accumulate(outcome) - np.minimum.accumulate(outcome) <= half_step
    high_ok = (np.maximum.accumulate(outcome[::-1]) - np.minimum.accumulate(outcome[::-1]) <= half_step)[::-1]
    first = int(np.argmin(low_ok)) - 1 if not low_ok.all() else 0
    last = len(samples) - int(np.argmin(high_ok[::-1])) if not high_ok.all() else len(samples) - 1
    return float(samples[max(first, 0)]), float(samples[min(last, len(samples) - 1)])


def _chain_function(value: Value, end: Value, samples: np.ndarray) -> np.ndarray:
    """The chain of unary nodes from `value` to `end` applied to samples."""
    chain = []
    node = end.producer
    while node is not None:
        chain.append(node)
        scalar = scalar_operand(node)
        x = node.input(0 if scalar is None else 1 - scalar)
        if x is value:
            break
        node = x.producer
    return apply_unary_chain(list(reversed(chain)), samples)


def apply_unary_chain(chain: list, samples: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """float32 results of unary nodes, one after the other, on float32 samples [n]."""
    graph = Graph("chain")
    from qcomp.ir.types import TensorType

    current = graph.input("x", TensorType.f32(*samples.shape))
    array = samples.astype(np.float32)
    for node in chain:
        scalar = scalar_operand(node)
        operands: list[Value] = [current]
        if scalar is not None:
            constant = graph.constant(node.input(scalar).array.reshape(()))
            operands = [current, constant] if scalar == 1 else [constant, current]
        step = graph.add(node.op.name, operands, node.attrs)
        arrays = [array if v is current else v.array for v in operands]
        (array,) = evaluate_node(step, arrays)
        current = step.output
    return array


def _insert(
    graph: Graph, plan: QuantizationPlan, value: Value, grid: Quantization | None, wide: WideGrid | None
) -> None:
    """fake_quant behind a point: for all its users if integers make it, else for the integer ones.

    Where it has a grid of each width, int8 is made of int16 if that is what there is."""
    made_on_integers = value.producer is not None and value.producer in plan.integer
    uses = [(n, i) for n, i in graph.uses(value) if made_on_integers or n in plan.integer]
    source = rounded = value
    if wide is not None:
        rounded = _rounded_wide(graph, plan, value, wide, ".q" if grid is None else ".q16", uses)
        source = rounded if made_on_integers else value
    if grid is not None:
        on_wide = value in plan.reads.values
        narrow = [(n, i) for n, i in uses if n in plan.integer and not plan.reads.is_wide(n, value)]
        eight = _rounded(graph, source, grid, DType.I8, ".q", narrow if on_wide else uses, value.name)
        rounded = rounded if on_wide else eight
    # A graph output that also feeds integer ops is the rounded value: what the integers say.
    if made_on_integers and graph.is_output(value) and rounded is not value:
        _output_through(graph, value, rounded)


def _rounded_wide(
    graph: Graph, plan: QuantizationPlan, value: Value, wide: WideGrid, suffix: str, uses: Sequence[tuple[Node, int]]
) -> Value:
    """fake_quant to int16; where the grid has bounds of its own, behind a clip that the integer op before it takes, or
    else a rescale: integers are clamped, not reals."""
    source = value
    if wide.bounded and not _moves_bounded(plan, value):
        if not clamps_itself(plan, value):
            source = _rounded(graph, source, wide.quant, DType.I16, ".whole", (), value.name)
        attrs: dict[str, Attribute] = {"lo": -wide.bound, "hi": wide.bound}
        source = graph.add("clip", [source], attrs, names=[f"{value.name}.bounded"]).output
    return _rounded(graph, source, wide.quant, DType.I16, suffix, uses, value.name)


def _moves_bounded(plan: QuantizationPlan, value: Value) -> bool:
    """Whether a value is data moved on its own grid, whose bounds it has anyway."""
    node, group = value.producer, plan.wide.group
    if node is None or node not in plan.integer or node.op.name not in MOVEMENT:
        return False
    return all(group(x) is group(value) for x in activations(node))


def _rounded(
    graph: Graph, source: Value, grid: Quantization, dtype: DType, suffix: str, uses: Sequence[tuple[Node, int]],
    name: str = "",
) -> Value:  # fmt: skip
    node = graph.add("fake_quant", [source], {"quant": grid, "dtype": dtype}, names=[(name or source.name) + suffix])
    for user, index in uses:
        graph.set_input(user, index, node.output)
    return node.output


def _output_through(graph: Graph, value: Value, rounded: Value) -> None:
    name = value.name
    graph.outputs = [rounded if v is value else v for v in graph.outputs]
    graph.rename(value, graph.fresh_name(f"{name}{_RAW}"))
    graph.rename(rounded, name)


def node_before_rounding(value: Value, nodes: Mapping[str, Node]) -> Node | None:
    """The node of the float graph, among those by the names of their first results, that computes a value of the graph
    with fake quantization.  The name of an output went to the rounded value."""
    return nodes.get(value.name) or nodes.get(re.sub(rf"{re.escape(_RAW)}(\.\d+)?\Z", "", value.name))


def _insert_concat_grids(graph: Graph, plan: QuantizationPlan) -> None:
    """Operands of a concat that kept a grid of their own are rounded to the concat's."""
    for node in graph.nodes:
        if node.op.name != "concat" or node not in plan.integer or node in plan.reads.nodes:
            continue
        grids = [grid_of(v) for v in node.inputs if v is not None]
        known = [g for g in grids if g is not None]
        if len(known) != len(grids) or len(set(known)) <= 1:
            continue
        lo = min(g.scale[0] * (-128 - g.zero_point[0]) for g in known)
        hi = max(g.scale[0] * (127 - g.zero_point[0]) for g in known)
        common = max(set(known), key=lambda g: (g.scale[0], g.zero_point[0]))
        covers = common.scale[0] * (-128 - common.zero_point[0]) <= lo and hi <= common.scale[0] * (
            127 - common.zero_point[0]
        )
        target = common if covers else Quantization.per_tensor(*affine_parameters(lo, hi))
        for index, grid in enumerate(grids):
            if grid != target:
                operand = node.input(index)
                rounded = graph.add("fake_quant", [operand], {"quant": target}, names=[f"{operand.name}.q"])
                graph.set_input(node, index, rounded.output)


def grid_of(value: Value) -> Quantization | None:
    """The grid a float value is on: that of the fake_quant behind it, through data movement."""
    node = rounding_of(value)
    if node is None:
        return None
    grid = node.attrs["quant"] if node.op.name == "fake_quant" else node.input(0).quant
    return grid if isinstance(grid, Quantization) else None


def rounding_of(value: Value) -> Node | None:
    """The fake_quant or dequantize that a float value comes from, through data movement."""
    node = value.producer
    while node is not None:
        if node.op.name in ("fake_quant", "dequantize"):
            return node
        if node.op.name not in MOVEMENT:
            return None
        node = node.input(0).producer
    return None


def _quantize_parameters(graph: Graph, plan: QuantizationPlan) -> None:
    """Constant tensors that integer sums and products read get a grid of their own, of the node's width."""
    for node in graph.nodes:
        if node not in plan.integer or node.op.name not in ("add", "sub", "mul") or scalar_operand(node) is not None:
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and is_parameter(value) and value.is_constant:
                lo, hi = float(value.array.min()), float(value.array.max())
                wide = node in plan.reads.nodes
                dtype = DType.I16 if wide else DType.I8
                grid = Quantization.per_tensor(*affine_parameters(lo, hi, dtype, symmetric=wide))
                _rounded(graph, value, grid, dtype, ".q", [(node, index)])
