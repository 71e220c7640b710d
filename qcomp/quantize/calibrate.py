"""Run a float model over samples and observe its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qcomp.errors import QcompError
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.inputs import inputs_of
from qcomp.quantize.masks import mask_margins
from qcomp.quantize.observers import QUARTERS, Method, Observer, method_named
from qcomp.quantize.onnxruntime_session import Rewrites, RunRefused, Session, watching
from qcomp.quantize.samples import Data, samples_of

Arrays = Mapping[str, NDArray[Any]]


def calibrate(
    model: onnx.ModelProto,
    samples: Data,
    tensors: Sequence[str],
    method: str | Method = "minmax",
    progress: Callable[[int, int], None] | None = None,
    threads: int = 2,
) -> Calibration:
    """Observe `tensors` (inputs, constants, or values of the main graph) of a float model over `samples`.

    `samples`: anything that `samples_of` takes; one sample is in memory at a time.  onnxruntime runs the model
    without graph optimizations, so every tensor is what the model says.  `progress(done, total)` is called after
    each sample.  Graph inputs are observed whether asked for or not: the checks of the calibration set need them.
    QcompError if a name is unknown, the model cannot run, there is no sample, or a tensor holds NaN or infinity.
    """
    chosen = method_named(method)
    sample_set = samples_of(samples, inputs_of(model), where="calibration samples")
    total = len(sample_set)
    if total == 0:
        raise QcompError("the calibration set is empty", fix="give at least one sample, better 64 or more")
    constants = {c.name: c for c in model.graph.initializer}
    inputs = tuple(spec.name for spec in sample_set.inputs)
    names = list(dict.fromkeys([*inputs, *tensors]))
    margins = mask_margins(model)
    observers = {name: Observer(name, chosen, mask_margin=margins.get(name)) for name in names}

    for name in constants.keys() & observers.keys():
        observers[name].update(numpy_helper.to_array(constants[name]))
    computed = [name for name in names if name not in constants and name not in inputs]
    run = _runner(model, computed, threads) if computed else None
    for i, sample in enumerate(sample_set):
        quarter = QUARTERS * i // total
        for name in inputs:
            observers[name].update(sample[name], quarter, i)
        if run is not None:
            try:
                found = run(sample)
            except RunRefused as error:
                raise sample_set.refused(i, sample, error) from error
            for name, value in zip(computed, found, strict=True):
                observers[name].update(value, quarter, i)
        if progress is not None:
            progress(i + 1, total)
    return Calibration(total, chosen, inputs, observers)


def _runner(
    model: onnx.ModelProto, tensors: Sequence[str], threads: int
) -> Callable[[Arrays], list[NDArray[Any]]]:
    """A function from a sample to the values of `tensors`, in that order."""
    known = {name for node in model.graph.node for name in node.output if name}
    for name in tensors:
        if name not in known:
            raise QcompError(
                "the model has no such tensor", where=f"tensor {name}", fix="name a value of the main graph"
            )
    session = Session(watching(model, tensors), "the model", threads=threads, rewrites=Rewrites.NONE)
    inputs = {value.name for value in model.graph.input}

    def run(sample: Arrays) -> list[NDArray[Any]]:
        found = session.run({name: value for name, value in sample.items() if name in inputs}, tensors)
        for name, value in zip(tensors, found, strict=True):
            if not isinstance(value, np.ndarray):
                raise QcompError("not a dense tensor", where=f"tensor {name}", fix="leave it out of the calibration")
        return found

    return run
