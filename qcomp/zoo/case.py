"""What the zoo hands out: a model with data to calibrate it, data to judge it and the way to judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Metric = Callable[[Array], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """One model of the zoo, ready to be calibrated, compiled, run and judged.

    ``calibration`` and ``inputs`` are float32 and count samples on their first axis; they share no sample.
    One sample with its first axis kept, ``inputs[i : i + 1]``, is one input of the model, whose batch is 1.
    ``metric`` takes the model's first output for all of ``inputs``, stacked on the first axis in the same
    order, and returns named figures, higher is better, shares between 0 and 1.
    """

    name: str
    onnx_path: Path
    input_name: str
    shapes: dict[str, tuple[int, ...]]
    """The static shape of every model input: what its dynamic dimensions are bound to."""
    calibration: Array
    inputs: Array
    labels: Any
    """What ``metric`` compares with: class indices, sets of them, texts or boxes, one for each sample."""
    metric: Metric
    reference: dict[str, float]
    """Figures of the float32 model and of its peers, as measured when the case was made; see docs/models.md."""
    notes: list[str] = field(default_factory=list)
    """What a reader of a figure has to know: where the data is from, what is missing on this machine."""


def accuracy(labels: Array) -> Metric:
    """Share of samples whose largest output stands at the label; ``labels`` int64 [n]."""

    def metric(outputs: Array) -> dict[str, float]:
        return {"top1": float(np.mean(_argmax(outputs, len(labels)) == labels))}

    return metric


def _argmax(outputs: Array, samples: int) -> Array:
    return np.argmax(np.reshape(outputs, (samples, -1)), axis=1)
