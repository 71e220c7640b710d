"""Which range suits each tensor: the one whose rounding and clipping does least to the layers that read the tensor.

The mean squared error of a tensor alone does not know that one layer makes much of its small values and another of its
large ones.  So every candidate is tried: the tensor on its grid, and the layers behind it on that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.ir.affine import affine_parameters
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType, Quantization
from qcomp.passes.integer_regions import MOVEMENT, PRODUCTS, is_unary
from qcomp.passes.matching import channel_axis
from qcomp.passes.quantization_plan import QuantizationPlan
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.histogram import Density
from qcomp.quantize.mse import quantization_error
from qcomp.quantize.parameters import integer_limits
from qcomp.quantize.positions import noise_shares
from qcomp.quantize.replay import Replay, Tensors, copy_nodes, run_float

# Each with a factor on the range it gives.
CANDIDATES: tuple[tuple[str, float], ...] = (
    ("mse", 1.0),
    ("mse", 0.9),
    ("mse", 0.7),
    ("percentile:99.99", 1.0),
    ("percentile:99.9", 1.0),
    ("minmax", 1.0),
)
# Another range than the first must lower the error to this share.
_WORTH = 0.75
_MOST_ROWS = 4096
_MOST_SAMPLES = 8
# A candidate may have so many times the rounding error that the first one has on all values that were observed.
_MOST_ERROR = 2.0
# Of fewer values there is no telling which are so rare that they may be clipped.
_LEAST_VALUES = 4096

Span = tuple[float, float]


@dataclass(frozen=True)
class Choice:
    """The range of a tensor, the candidate it comes from, and the noise behind it: by the first candidate, by this."""

    tensor: str
    method: str
    range: Span
    before: float
    after: float


def choose_ranges(
    graph: Graph, plan: QuantizationPlan, calibration: Calibration, samples: Sequence[Mapping[str, np.ndarray]]
) -> tuple[Choice, ...]:
    """A range for the points of a float graph; tensors that share a grid take the same candidate.

    Without samples there is nothing to choose by.  Tensors with attention masks, and those of few values, are
    left out.
    """
    if not samples:
        return ()
    used = samples[:: max(1, len(samples) // _MOST_SAMPLES)]
    enough = [v for v in plan.points if v.type.elements * len(used) >= _LEAST_VALUES]
    spans = {v: found for v in enough if (found := _candidates(calibration, v.name)) is not None}
    noises = _noises(graph, spans, used)
    choices = []
    for members in plan.members().values():
        if not all(value in spans for value in members):
            continue
        totals = np.sum([noises[value] for value in members], axis=0)
        best = int(np.argmin(totals))
        if not totals[best] < _WORTH * totals[0]:
            best = 0
        for value in members:
            choices.append(Choice(value.name, _label(best), spans[value][best], noises[value][0], noises[value][best]))
    return tuple(choices)


def _label(index: int) -> str:
    method, factor = CANDIDATES[index]
    return method if factor == 1.0 else f"{method} × {factor:g}"


def _candidates(calibration: Calibration, name: str) -> list[Span] | None:
    observer = calibration.observers.get(name)
    if observer is None or observer.extremes.count == 0 or observer.masked:
        return None
    ranges = {method: observer.range(method) for method in dict.fromkeys(m for m, _ in CANDIDATES)}
    spans = [(ranges[m][0] * factor, ranges[m][1] * factor) for m, factor in CANDIDATES]
    if observer.histogram is None:
        return spans
    density = observer.histogram.density(observer.extremes.lo, observer.extremes.hi).coarse()
    # Few samples try a candidate: what all of them say of clipping has to bear it out, else it is the first one.
    errors = [_rounding_error(density, span) for span in spans]
    return [span if error <= _MOST_ERROR * errors[0] else spans[0] for span, error in zip(spans, errors, strict=True)]


def _rounding_error(density: Density, span: Span) -> float:
    """Mean squared error of all observed values on the int8 grid of a range."""
    scale, zero_point = affine_parameters(min(span[0], 0.0), max(span[1], 0.0), "i8")
    return quantization_error(density, scale, zero_point, *integer_limits("i8"))


def readers(graph: Graph, value: Value) -> tuple[list[Node], list[Value]]:
    """The nodes from a value to the first results that mix it with other values, and those results."""
    found: dict[Node, None] = {}
    results: dict[Value, None] = {}
    open_values = [value]
    while open_values:
        current = open_values.pop()
        users = [user for user in graph.users(current) if user not in found]
        if graph.is_output(current):
            results[current] = None
        for user in users:
            found[user] = None
            passes = is_unary(user) or (user.op.name in MOVEMENT and user.op.name != "concat")
            for result in user.outputs:
                if passes:
                    open_values.append(result)
                elif result.dtype is DType.F32:
                    results[result] = None
    return [node for node in graph.nodes if node in found], list(results)


def _noises(
    graph: Graph, spans: Mapping[Value, Sequence[Span]], samples: Sequence[Mapping[str, np.ndarray]]
) -> dict[Value, list[float]]:
    """Noise behind each value for each of its candidates, in shares of what varies there."""
    behind = {value: readers(graph, value) for value in spans}
    operands = {value: _operands(value, nodes) for value, (nodes, _) in behind.items()}
    open_uses: defaultdict[Value, int] = defaultdict(int)
    for values in operands.values():
        for operand in values:
            open_uses[operand] += 1
    replay = Replay(graph, samples)
    for operand in open_uses:
        replay.keep(operand)
    noises = {}
    for value, candidates in spans.items():
        for operand in operands[value]:
            if operand.producer is not None:
                replay.advance(operand.producer)
        held = {operand.name: replay.held[operand] for operand in operands[value]}
        noises[value] = _tried(value, *behind[value], candidates, held)
        for operand in operands[value]:
            open_uses[operand] -= 1
            if not open_uses[operand]:
                replay.release(operand)
    return noises


def _operands(value: Value, nodes: Sequence[Node]) -> list[Value]:
    """What has to be known to compute the nodes: the value itself, and others that they do not compute."""
    inside = {result for node in nodes for result in node.outputs}
    read = [v for node in nodes for v in node.inputs if v is not None and not v.is_constant and v not in inside]
    return list(dict.fromkeys([value, *read]))


def _tried(
    value: Value, nodes: Sequence[Node], results: Sequence[Value], candidates: Sequence[Span], held: dict[str, Tensors]
) -> list[float]:
    if not results:
        return [0.0] * len(candidates)
    part = Graph("readers")
    real = part.input(value.name, value.type)
    ways = [real]
    for lo, hi in candidates:
        quant = Quantization.per_tensor(*affine_parameters(lo, hi))
        ways.append(part.add("fake_quant", [real], {"quant": quant}).output)
    shared: dict[Value, Value] = {}
    copies = [copy_nodes(part, nodes, {value: way}, shared) for way in ways]
    exact, *branches = ([copy[result] for result in results] for copy in copies)
    part.outputs = [*exact, *(v for branch in branches for v in branch)]
    names = [v.name for v in part.inputs]
    count = len(held[value.name])
    found = run_float(part, [{name: held[name][i] for name in names} for i in range(count)])
    totals = [0.0] * len(candidates)
    for index, result in enumerate(results):
        producer = result.producer
        axis = result.type.rank - 1
        if producer is not None and producer.op.name in PRODUCTS:
            axis = channel_axis(producer)
        elif result.type.rank == 4:
            axis = 1
        if result.type.rank == 0:
            continue
        tried = [found[branch[index].name] for branch in branches]
        for i, share in enumerate(noise_shares(found[exact[index].name], tried, axis, _MOST_ROWS)):
            totals[i] += share
    return totals
