"""What is timed on our side: the artifact of one model of the zoo, and its input."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import qcomp
from qcomp.compiler import Options
from qcomp.zoo.case import Case

CALIBRATION_SAMPLES = 64


@dataclass(frozen=True)
class Compiled:
    """An artifact, and the seconds each stage of its making took."""

    path: Path
    seconds: dict[str, float]


def compile_case(case: Case, folder: Path) -> Compiled:
    """Compiles the case's model for this machine, calibrated on 64 samples unless it is quantized already."""
    marks: list[tuple[str, float]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if not marks or marks[-1][0] != stage:
            marks.append((stage, time.perf_counter()))

    samples = None if case.name.endswith("_qat") else case.calibration_samples(CALIBRATION_SAMPLES)
    artifact = qcomp.compile(
        case.onnx_path, calibration=samples, shapes=case.shapes, options=Options(progress=progress)
    )
    marks.append(("cc", time.perf_counter()))
    path = artifact.save(folder / f"{case.name}.so")
    ends = [t for _, t in marks[1:]] + [time.perf_counter()]
    seconds: dict[str, float] = {}
    for (stage, begin), end in zip(marks, ends, strict=True):
        seconds[stage] = seconds.get(stage, 0.0) + end - begin
    seconds["total"] = ends[-1] - marks[0][1]
    return Compiled(path, seconds)


def is_transformer(case: Case) -> bool:
    """Whether the model takes no images: what dynamic quantization is for."""
    return any(len(shape) < 4 for shape in case.shapes.values())


def feed_of(case: Case) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array) for name, array in case.feed(0).items()}
