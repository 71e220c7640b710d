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
Answers = Callable[[Array], list[str]]


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
    answers: Answers
    """What a person reads off the outputs (stacked as for ``metric``, any number of samples): a text each."""
    reference: dict[str, float]
    """Figures of the float32 model and of its peers, measured when the case was made (docs/models.md)."""
    notes: list[str] = field(default_factory=list)
    """What a reader of a figure has to know: where the data is from, what is missing on this machine."""


def best_class(names: Callable[[], list[str]]) -> Answers:
    """Name of the largest output of each sample; ``names`` is called when the first answer is asked for."""

    def answers(outputs: Array) -> list[str]:
        classes = names()
        return [classes[index] for index in np.argmax(np.reshape(outputs, (len(outputs), -1)), axis=1)]

    return answers


def accuracy(labels: Array) -> Metric:
    """Share of samples whose largest output stands at the label; ``labels`` int64 [n]."""

    def metric(outputs: Array) -> dict[str, float]:
        answers = np.argmax(np.reshape(outputs, (len(labels), -1)), axis=1)
        return {"top1": float(np.mean(answers == labels))}

    return metric
