"""Sensitivities and calibration on several machines, by Dask; numbers are those of one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from importlib import import_module
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph
from qcomp.ir.text import parse_graph, print_graph
from qcomp.quantize.answers import Answers
from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.labels import Labels
from qcomp.quantize.layers import Study
from qcomp.quantize.onnxruntime_session import Arrays
from qcomp.quantize.sensitivity import Measured, Progress, Variant, measure

# Each variant starts a session of onnxruntime, each task its base graph; tasks of this size keep both small.
_VARIANTS, _SAMPLES = 16, 32


class Cluster:
    """A Dask cluster at an address; use it as a context.  QcompError without Dask, or without the cluster."""

    def __init__(self, address: str) -> None:
        try:
            self._dask: Any = import_module("distributed")
        except ImportError:
            raise QcompError(
                "Dask is not installed", where="--scheduler", fix="pip install 'qcomp[distributed]'"
            ) from None
        try:
            self._client = self._dask.Client(address, timeout="5s", set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise QcompError(
                f"no scheduler answers ({reason})", where=f"--scheduler {address}", fix="start one: dask scheduler"
            ) from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def calibrate(
        self, model: onnx.ModelProto, samples: Sequence[Arrays], tensors: Sequence[str], method: str, progress: Progress
    ) -> Calibration:
        """As `qcomp.quantize.calibrate.calibrate`, a part of the samples a task; observers merge exactly."""
        packed = self._client.scatter(model.SerializeToString(), broadcast=True, hash=False)
        parts = [samples[at : at + _SAMPLES] for at in range(0, len(samples), _SAMPLES)]
        tasks = [self._client.submit(_calibrate, packed, part, list(tensors), method, pure=False) for part in parts]
        found: list[Calibration] = self._gather(tasks, progress)
        return reduce(Calibration.merge, found)

    def measure(
        self,
        study: Study,
        variants: Sequence[Variant],
        samples: Sequence[Arrays],
        labels: Labels | None,
        answers: Answers,
        progress: Progress,
    ) -> Measured:
        """As `qcomp.quantize.sensitivity.measure`; a task is some variants on some samples."""
        packed = self._client.scatter(
            (print_graph(study.graph), replace(study, graph=Graph())), broadcast=True, hash=False
        )
        parts = [slice(at, at + _SAMPLES) for at in range(0, len(samples), _SAMPLES)]
        groups = [variants[at : at + _VARIANTS] for at in range(0, len(variants), _VARIANTS)] or [[]]
        tasks = [
            self._client.submit(
                _measure, packed, list(group), samples[part], None if labels is None else labels[part], answers,
                pure=False,
            )
            for group in groups for part in parts
        ]  # fmt: skip
        found: list[Measured] = self._gather(tasks, progress)
        count = len(parts)
        merged = [reduce(Measured.merge, found[at : at + count]) for at in range(0, len(found), count)]
        together = {variant: scores for group in merged for variant, scores in group.variants.items()}
        return Measured(together, merged[0].int8, merged[0].float32)

    def _gather(self, tasks: Sequence[Any], progress: Progress) -> list[Any]:
        with self._client.as_current():
            for done, _ in enumerate(self._dask.as_completed(tasks), 1):
                progress(done, len(tasks))
        return [task.result() for task in tasks]


def _calibrate(
    model: bytes, samples: Sequence[Mapping[str, NDArray[Any]]], tensors: list[str], method: str
) -> Calibration:
    return calibrate(onnx.load_from_string(model), list(samples), tensors, method, threads=1)


def _measure(
    packed: tuple[str, Study],
    variants: list[Variant],
    samples: Sequence[Mapping[str, NDArray[np.generic]]],
    labels: Labels | None,
    answers: Answers,
) -> Measured:
    return measure(_study(*packed), variants, samples, labels, answers)


_HELD: list[tuple[str, Study, Study]] = []


def _study(text: str, rest: Study) -> Study:
    """The study of the model that a worker got, text and all but the graph; its tasks share the last one."""
    if not _HELD or _HELD[0][0] != text or _HELD[0][1] is not rest:
        _HELD[:] = [(text, rest, replace(rest, graph=parse_graph(text, "the model")))]
    return _HELD[0][2]


