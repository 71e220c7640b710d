"""Graphs on samples by onnxruntime, several samples at a time; a sample's result depends on the sample alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from numpy.typing import NDArray

from qcomp.ir.graph import Graph
from qcomp.ir.onnx_export import to_onnx
from qcomp.quantize.onnxruntime_session import Arrays, RunRefused, Session
from qcomp.quantize.sample_sources import Sample
from qcomp.quantize.samples import Samples

T = TypeVar("T")
R = TypeVar("R")


def runner(graph: Graph) -> Callable[[Arrays], list[NDArray[Any]]]:
    """A function from the inputs of a graph to its outputs, in order, each once; it may run in several threads.

    Fake quantization is computed as written, in float32: pairs of QuantizeLinear and DequantizeLinear are not made
    into integer kernels.  QcompError when onnxruntime does not run the graph.
    """
    # Samples run side by side instead, and results do not depend on how many.
    session = Session(to_onnx(graph), "the graph", threads=1, as_written=True)
    names = [value.name for value in dict.fromkeys(graph.outputs)]
    return lambda feed: session.run(feed, names)


def side_by_side(function: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Results in the order of the items."""
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def outputs_on(graph: Graph, samples: Sequence[Arrays], threads: int) -> list[list[NDArray[Any]]]:
    """The outputs of the whole graph for every sample."""
    run = runner(graph)
    names = [value.name for value in graph.inputs]
    return side_by_side(lambda sample: run({name: sample[name] for name in names}), samples, threads)


def samples_that_run(graph: Graph, samples: Samples) -> list[Sample]:
    """The samples; QcompError, which names it, for one that the model cannot be run on.  Calibration says so itself."""
    run = runner(graph)
    found = []
    for i, sample in enumerate(samples):
        try:
            run(sample)
        except RunRefused as error:
            raise samples.refused(i, sample, error) from error
        found.append(sample)
    return found
