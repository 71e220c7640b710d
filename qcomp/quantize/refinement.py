"""What is done about the error of quantized layers once their grids are chosen: rounding of weights and biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcomp.ir.graph import Graph
from qcomp.passes.adjust_products import is_adjustable, replace_weights
from qcomp.passes.insert_fake_quant import node_before_rounding
from qcomp.passes.matching import channel_axis
from qcomp.quantize.bias_correction import Correction, correction, functions_behind
from qcomp.quantize.replay import Replay
from qcomp.quantize.rounding import rounded_weights
from qcomp.quantize.samples import Samples as SampleSet

Samples = Sequence[Mapping[str, np.ndarray]]

_MOST_SAMPLES, _FEWEST = 16, 4
_MEMORY = 1 << 30


@dataclass(frozen=True)
class Refinement:
    """What to change in a fake-quantized graph, by a product's result: biases to add, weights to put in; and what it
    gains."""

    biases: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    corrections: Mapping[str, Correction] = field(default_factory=dict)


def refine(
    exact: Graph,
    quantized: Graph,
    samples: Samples,
    rounding: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Refinement:
    """What makes the products of a fake-quantized graph give what those of the float graph give, on samples.

    Products of both graphs are told by the names of their results.  Each is judged on what the layers before it give
    with what was found for them.  `rounding`: weights are rounded by their effect on the results, not one by one.
    """
    work = quantized.clone()
    originals = {node.outputs[0].name: node for node in exact.nodes}
    pairs = [
        (node, original)
        for node in work.nodes
        if is_adjustable(node) and (original := node_before_rounding(node.output, originals)) is not None
    ]
    biases: dict[str, np.ndarray] = {}
    weights: dict[str, np.ndarray] = {}
    corrections: dict[str, Correction] = {}
    reference, replay = Replay(exact, samples), Replay(work, samples)
    for done, (node, original) in enumerate(pairs):
        name = node.output.name
        if original.output.shape != node.output.shape:
            continue
        if rounding:
            producer = node.input(0).producer
            if producer is not None:
                replay.advance(producer)
            better = rounded_weights(node, replay.held[node.input(0)])
            if better is not None:
                weights[name] = better
                replace_weights(work, node, better)
        replay.advance(node)
        reference.advance(original)
        axis = channel_axis(node)
        chains = functions_behind(exact, original), functions_behind(work, node)
        found = correction(reference.held[original.output], replay.held[node.output], axis, *chains)
        corrections[name] = found
        if found.bias.any():
            biases[name] = found.bias
            shape = tuple(-1 if i == axis else 1 for i in range(node.output.type.rank))
            for tensor in replay.held[node.output]:
                tensor += found.bias.reshape(shape)
        if progress is not None:
            progress(done + 1, len(pairs))
    return Refinement(biases, weights, corrections)


def evenly(total: int, count: int) -> set[int]:
    """`count` of the numbers below `total`, evenly spread."""
    return {round(i * (total - 1) / max(count - 1, 1)) for i in range(count)}


def refinement_samples(graph: Graph, samples: SampleSet) -> tuple[dict[str, np.ndarray], ...]:
    """Some of the samples, evenly spread: at most 16, and as many as a gigabyte of activations allows, at least 4."""
    sizes = sorted((4 * value.type.elements for node in graph.nodes for value in node.outputs), reverse=True)
    # What is held at a time, of two graphs: seldom more than three of the largest.
    count = min(len(samples), max(_FEWEST, min(_MOST_SAMPLES, _MEMORY // max(1, 6 * max(sizes, default=1)))))
    chosen = evenly(len(samples), count)
    return tuple(sample for i, sample in enumerate(samples) if i in chosen)
