"""Signal to quantization noise of every step: accumulated in the whole network, and of the step alone.

Accumulated: the integer network's tensor against the float network's.  Isolated: the step computed on the float
network's tensors, quantized to its operands' grids, against the float network's result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.interpreter import evaluate_node, run
from qcomp.ir.onnx_export import to_onnx
from qcomp.ir.ops.quantized import dequantize_array, quantize_array
from qcomp.passes.equalize_channels import divided_values
from qcomp.passes.integer_regions import MOVEMENT
from qcomp.reports.compare.agreement import Noise
from qcomp.reports.compare.counterparts import Counterpart, counterpart
from qcomp.reports.compare.distribution import Counter, Distribution
from qcomp.reports.compare.onnxruntime_float import FloatModel
from qcomp.reports.coverage import INTEGER_OPS

Array = NDArray[Any]
#: What is shown where there is no error at all: more than float32 could tell.
EXACT_DB = 120.0


@dataclass(frozen=True)
class LayerError:
    """One node of the integer graph, by its first result.  SQNRs are in dB, None where the float graph has no such
    tensor, EXACT_DB at most."""

    node: str
    op: str
    value: str
    reference: str
    accumulated_db: float | None
    isolated_db: float | None
    activation: Distribution | None
    weights: Distribution | None


@dataclass(frozen=True)
class LayerStudy:
    """Every node in order, and how many samples were looked at; on these the artifact gave the interpreter's bits."""

    layers: tuple[LayerError, ...]
    samples: int


class _Row:
    """What is summed up for one node."""

    def __init__(self, node: Node, own: Counterpart) -> None:
        self.node, self.own = node, own
        self.accumulated, self.isolated = Noise(), Noise()
        quant = own.value.quant
        self.counter: Counter | None = None
        if quant is not None and quant.axis is None:
            lo, hi = own.value.dtype.limits
            step, zero = quant.scale[0], quant.zero_point[0]
            self.counter = Counter((lo - zero) * step, (hi - zero) * step, step)


def study_layers(
    float_graph: Graph,
    integer_graph: Graph,
    samples: Iterable[Mapping[str, Array]],
    outputs: Sequence[Mapping[str, Array]],
    where: str,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> LayerStudy:
    """Runs both graphs over the samples.  `outputs` are the artifact's results for them, which the integer graph has to
    give bit for bit; QcompError, naming `where`, if it does not: then it is another model's graph."""
    divided = divided_values(integer_graph)
    known = {v.name: v.shape for v in float_graph.values if not v.is_constant and v.name not in divided}
    pairs = {v: counterpart(v, known.get) for v in integer_graph.values if not v.is_constant}
    tensors = sorted({c.name for c in pairs.values() if c is not None} - {v.name for v in float_graph.inputs})
    reference = FloatModel(to_onnx(float_graph), threads, tensors, where=float_graph.name) if tensors else None
    rows = [_Row(node, own) for node in integer_graph.nodes if (own := pairs[node.outputs[0]]) is not None]
    done = 0
    for sample, expected in zip(samples, outputs, strict=False):
        real = dict(sample) | (reference.run(sample) if reference is not None else {})
        computed = _run(integer_graph, sample, expected, where)
        aligned = _align(integer_graph, pairs, real, computed)
        for row in rows:
            _measure(row, aligned, computed)
        done += 1
        if progress is not None:
            progress(done)
    measured = {row.node: row for row in rows}
    weights = {node: _weights(float_graph, node) for node in integer_graph.nodes}
    return LayerStudy(tuple(_layer(n, measured.get(n), weights[n]) for n in integer_graph.nodes), done)


def gives_bits(graph: Graph, sample: Mapping[str, Array], expected: Mapping[str, Array]) -> bool:
    """Whether the integer graph gives just these outputs on a sample."""
    found = run(graph, sample)
    return found.keys() == expected.keys() and all(_same(array, expected[name]) for name, array in found.items())


def _same(a: Array, b: Array) -> bool:
    """Whether all elements are equal, NaN to NaN."""
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _run(
    graph: Graph, sample: Mapping[str, Array], expected: Mapping[str, Array], where: str
) -> dict[Value, Array]:
    """All values of the integer graph on a sample."""
    computed: dict[Value, Array] = {v: np.asarray(sample[v.name]) for v in graph.inputs}
    run(graph, {v.name: computed[v] for v in graph.inputs}, observe=computed.__setitem__)
    for value in graph.outputs:
        ours, theirs = computed[value] if value.data is None else value.data, expected.get(value.name)
        if theirs is None or not _same(ours, theirs):
            raise QcompError(
                f"this is not the artifact's graph: its output {value.name!r} differs", where=where,
                fix="give the graph that `qcomp compile --save-graph` wrote with the artifact",
            )  # fmt: skip
    return computed


def _real(value: Value, array: Array) -> Array:
    return dequantize_array(array, value.quant) if value.quant is not None and not value.dtype.is_float else array


def _align(
    graph: Graph,
    pairs: Mapping[Value, Counterpart | None],
    real: Mapping[str, Array],
    computed: Mapping[Value, Array],
) -> dict[Value, Array]:
    """The float network's tensor of every value that has one, in that value's layout; what only moves such tensors of
    reals has one too, whatever it is called."""
    found = {
        value: np.asarray(pair.aligned(real[pair.name], _real(value, computed[value])))
        for value, pair in pairs.items()
        if pair is not None and value in computed
    }
    for node in graph.nodes:
        value = node.outputs[0]
        if value in found or node.op.name not in MOVEMENT or not value.dtype.is_float:
            continue
        operands = [None if v is None else v.data if v.data is not None else found.get(v) for v in node.inputs]
        if all(a is not None or v is None for a, v in zip(operands, node.inputs, strict=True)):
            found |= dict(zip(node.outputs, evaluate_node(node, operands), strict=True))
    return found


def _measure(row: _Row, aligned: Mapping[Value, Array], computed: Mapping[Value, Array]) -> None:
    value = row.own.value
    if not (value.dtype.is_float or value.quant is not None):
        return
    reference = aligned[value]
    row.accumulated.add(reference, _real(value, computed[value]))
    if row.counter is not None:
        row.counter.add(reference)
    operands: list[Array | None] = []
    for operand in row.node.inputs:
        if operand is None or operand.data is not None:
            operands.append(None if operand is None else operand.data)
        elif operand not in aligned:
            return
        elif operand.quant is not None and not operand.dtype.is_float:
            operands.append(quantize_array(aligned[operand], operand.quant, operand.dtype))
        else:
            operands.append(aligned[operand].astype(operand.dtype.numpy, copy=False))
    row.isolated.add(reference, _real(value, evaluate_node(row.node, operands)[0]))


def _layer(node: Node, row: _Row | None, weights: Distribution | None) -> LayerError:
    value = node.outputs[0].name
    if row is None:
        return LayerError(node.name, node.op.name, value, "", None, None, None, weights)
    moves = node.op.name in MOVEMENT and node.op.name != "concat"  # its operand has the same values
    shown = row.counter.distribution if row.counter is not None and not moves else None
    return LayerError(
        node.name, node.op.name, value, row.own.name, _decibels(row.accumulated), _decibels(row.isolated),
        shown, weights,
    )  # fmt: skip


def _decibels(noise: Noise) -> float | None:
    if not noise.count:
        return None
    return max(-EXACT_DB, min(EXACT_DB, noise.sqnr_db)) if not math.isnan(noise.sqnr_db) else None


def _weights(float_graph: Graph, node: Node) -> Distribution | None:
    """Float weights in steps of their own channel's grid: the grid ends at 127 for all of them."""
    weights = node.optional(1) if node.op.name in INTEGER_OPS and node.op.macs(node.call) else None
    if weights is None or weights.data is None or weights.quant is None or weights.dtype.is_float:
        return None
    known = {v.name: v.shape for v in float_graph.constants}
    pair = counterpart(weights, known.get)
    if pair is None:
        return None
    real = pair.aligned(float_graph.value(pair.name).array, _real(weights, weights.data))
    scale, _ = weights.quant.broadcast(weights.type.rank)
    counter = Counter(-127.0, 127.0, 1.0, "steps")
    counter.add(np.asarray(real, np.float64) / scale)
    return counter.distribution
