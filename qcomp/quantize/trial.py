"""The last word on adjustments: whether the outputs of the whole model come nearer to those of the float model.

What makes each layer better on average can make the model worse: a bias is corrected by the mean over all positions,
and which of them matter the layers behind decide (a transformer reads next to nothing of the padding behind a text).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcomp.ir.graph import Graph
from qcomp.passes.adjust_products import AdjustProducts
from qcomp.passes.manager import run_passes
from qcomp.quantize.fidelity import compare
from qcomp.quantize.float_runs import outputs_on
from qcomp.quantize.refinement import Refinement, evenly
from qcomp.quantize.samples import Samples

Arrays = Mapping[str, np.ndarray]

_MOST, _LEAST = 64, 8
# Multiply-accumulates of one graph over all samples, about: a second or two.
_WORK = 40e9
_LEAST_NOISE = 1e-20


def trial_samples(graph: Graph, samples: Samples, used: int) -> tuple[Arrays, ...]:
    """Samples to judge by, evenly spread among those that are not the `used` ones that adjustments are made from;
    among all where few others are left."""
    macs = sum(node.op.macs(node.call) for node in graph.nodes)
    most = int(min(_MOST, max(_LEAST, _WORK // max(macs, 1))))
    seen = evenly(len(samples), used)
    others = [i for i in range(len(samples)) if i not in seen]
    places = others if len(others) >= _LEAST else list(range(len(samples)))
    chosen = {places[i] for i in evenly(len(places), min(most, len(places)))}
    return tuple(sample for i, sample in enumerate(samples) if i in chosen)


@dataclass(frozen=True)
class Trial:
    """What is kept of a refinement; and how many dB less noise the outputs for a sample have without the rest, on
    average, and the standard error of that."""

    kept: Refinement
    gain_db: float = 0.0
    error_db: float = 0.0


def tried(exact: Graph, quantized: Graph, found: Refinement, samples: Sequence[Arrays]) -> Trial:
    """Leaves out the biases of a refinement, or all of it, where the outputs of a fake-quantized graph are nearer to
    those of the float graph without, by more than a standard error over the samples."""
    ways = [Refinement(), *([replace(found, biases={})] if found.weights and found.biases else [])]
    if not (found.biases or found.weights) or len(samples) < 2:
        return Trial(found)
    threads = len(os.sched_getaffinity(0))
    reference = outputs_on(exact, samples, threads)
    with_all = _noises(quantized, found, reference, samples, threads)
    best = Trial(found)
    for way in ways:
        gains = with_all - _noises(quantized, way, reference, samples, threads)
        gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
        if gain > error and gain > best.gain_db:
            best = Trial(way, gain, error)
    return best


def _noises(
    graph: Graph, way: Refinement, reference: Sequence[Sequence[np.ndarray]], samples: Sequence[Arrays], threads: int
) -> np.ndarray:
    """float64[samples]: noise of the outputs in dB, by their power."""
    adjusted = run_passes(graph, [AdjustProducts(way.biases, way.weights)], verify=False)
    outputs = outputs_on(adjusted, samples, threads)
    scores = [compare(a, b) for a, b in zip(reference, outputs, strict=True)]
    with np.errstate(all="ignore"):
        shares = np.array([score.noise / score.signal for score in scores])
    return np.asarray(10 * np.log10(np.clip(np.nan_to_num(shares, nan=1.0), _LEAST_NOISE, 1 / _LEAST_NOISE)))
