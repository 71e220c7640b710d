"""Runs the float model and the artifact over the same samples and says how they compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph
from qcomp.quantize.labels import check_numbers
from qcomp.quantize.onnxruntime_session import RunRefused
from qcomp.quantize.samples import Samples
from qcomp.reports.compare.agreement import Decisions, Noise, OutputFigures, choice_axis, count_decisions, decisions
from qcomp.reports.compare.onnxruntime_float import FloatModel
from qcomp.runtime.artifact import ArtifactInfo

Arrays = Mapping[str, NDArray[Any]]
_FIX = "give the model that the artifact was compiled from"


class Runnable(Protocol):
    """What runs a sample: a loaded artifact."""

    def run(self, inputs: Arrays) -> Mapping[str, NDArray[Any]]: ...


def check_same_model(graph: Graph, info: ArtifactInfo, where: str) -> None:
    """QcompError unless inputs and outputs of the model and the artifact have the same names, types and shapes."""
    for kind, values, tensors in (("input", graph.inputs, info.inputs), ("output", graph.outputs, info.outputs)):
        if [v.name for v in values] != [t.name for t in tensors]:
            theirs = ", ".join(t.name for t in tensors)
            raise QcompError(
                f"its {kind}s are {', '.join(v.name for v in values)}, those of the artifact {theirs}",
                where=where, fix=_FIX,
            )  # fmt: skip
        for value, tensor in zip(values, tensors, strict=True):
            if (value.shape, value.dtype.numpy) != (tensor.shape, tensor.dtype):
                raise QcompError(
                    f"its {kind} {value.name} is {value.dtype.numpy}{list(value.shape)}, that of the artifact "
                    f"{tensor.dtype}{list(tensor.shape)}",
                    where=where, fix=_FIX,
                )  # fmt: skip


def check_own_graph(graph: Graph, info: ArtifactInfo, where: str) -> None:
    """QcompError unless inputs and outputs of an integer graph are just those of the artifact."""
    for values, tensors in ((graph.inputs, info.inputs), (graph.outputs, info.outputs)):
        own = [(value.name, value.shape, value.dtype.numpy) for value in values]
        theirs = [(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors]
        if own != theirs:
            names = [", ".join(f"{name} {dtype}{list(shape)}" for name, shape, dtype in side) for side in (own, theirs)]
            raise QcompError(
                f"this is not the artifact's graph: it has {names[0]}, the artifact {names[1]}",
                where=where, fix="give the graph that `qcomp compile --save-graph` wrote with the artifact",
            )  # fmt: skip


def judge(
    reference: FloatModel,
    artifact: Runnable,
    samples: Samples,
    labels: NDArray[np.int64] | None = None,
    class_axis: int | None = None,
    progress: Callable[[int], None] | None = None,
    where: str = "--labels",
) -> tuple[Decisions, tuple[OutputFigures, ...]]:
    """Decisions of the first output, counted, and figures of every output, over all samples.

    where: the file of the labels.
    """
    noises: dict[str, Noise] = {}
    decided: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for index, sample in enumerate(samples):
        try:
            expected = reference.run(sample)
        except RunRefused as error:
            raise samples.refused(index, sample, error) from error
        found = artifact.run(sample)
        for position, (name, result) in enumerate(found.items()):
            noises.setdefault(name, Noise()).add(expected[name], result)
            if position == 0:
                if index == 0 and labels is not None:
                    check_classes(labels, result, class_axis, where)
                decided[0].append(decisions(expected[name], class_axis))
                decided[1].append(decisions(result, class_axis))
        if progress is not None:
            progress(index + 1)
    if not noises:
        raise QcompError("there is no sample to compare on", where="--data", fix="give at least one sample")
    counted = count_decisions(np.concatenate(decided[0]), np.concatenate(decided[1]), labels, where)
    return counted, tuple(OutputFigures.of(name, noise) for name, noise in noises.items())


def check_classes(
    labels: NDArray[np.int64], output: NDArray[Any], class_axis: int | None, where: str = "--labels"
) -> None:
    """QcompError for labels that are no class of an output; -1 only fills up rows."""
    axis = choice_axis(output, class_axis)
    if axis is None:
        return
    classes = output.shape[axis]
    check_numbers(labels, classes, where)
    odd = np.flatnonzero((labels >= classes).any(axis=1) | (labels < -1).any(axis=1) | (labels < 0).all(axis=1))
    if odd.size:
        raise QcompError(
            f"the labels of sample {odd[0]} are {labels[odd[0]].tolist()}, and the model has {classes} classes",
            where=where, fix="give class indices from 0",
        )  # fmt: skip
