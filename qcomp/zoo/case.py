"""What the zoo hands out: a model with data to calibrate it, data to judge it and the way to judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qcomp.errors import QcompError

Array = npt.NDArray[Any]
Samples = Mapping[str, Array]
Metric = Callable[[Array], dict[str, float]]
Answers = Callable[[Array], list[str]]


@dataclass(frozen=True)
class Case:
    """One model of the zoo, ready to be calibrated, compiled, run and judged.

    ``calibration_inputs`` and ``test_inputs`` hold an array for every input of the model, of the input's element
    type; all count samples on their first axis, and the two share no sample.  A model's batch is 1: one run is fed
    one sample with its first axis kept, which is what ``feed`` gives.  ``metric`` takes the model's first output for
    all test samples, stacked on the first axis in the same order, and returns named figures, higher is better,
    shares between 0 and 1.
    """

    name: str
    onnx_path: Path
    shapes: dict[str, tuple[int, ...]]
    """The static shape of every model input: what its dynamic dimensions are bound to."""
    calibration_inputs: Samples
    test_inputs: Samples
    labels: Any
    """What ``metric`` compares with: class indices, sets of them, texts or boxes, one for each sample."""
    metric: Metric
    answers: Answers
    """What a person reads off the outputs (stacked as for ``metric``, any number of samples): a text each."""
    reference: dict[str, float]
    """Figures of the float32 model and of its peers, measured when the case was made (docs/models.md)."""
    notes: list[str] = field(default_factory=list)
    """What a reader of a figure has to know: where the data is from, what is missing on this machine."""

    @property
    def samples(self) -> int:
        """How many test samples there are."""
        return len(next(iter(self.test_inputs.values())))

    def feed(self, index: int) -> dict[str, Array]:
        """What one run on a test sample is fed: input name to array with a first axis of 1; a view."""
        return {name: array[index : index + 1] for name, array in self.test_inputs.items()}

    def feeds(self, count: int | None = None) -> Iterator[dict[str, Array]]:
        """The feeds of the first ``count`` test samples, or of all."""
        return (self.feed(index) for index in range(self.samples)[:count])

    def calibration_feeds(self, count: int | None = None) -> list[dict[str, Array]]:
        """The same of the calibration samples, for engines that want one run after the other."""
        rows = zip(*self.calibration_samples(count).values(), strict=True)
        names = self.calibration_inputs.keys()
        return [{name: array[np.newaxis] for name, array in zip(names, row, strict=True)} for row in rows]

    def calibration_samples(self, count: int | None = None) -> dict[str, Array]:
        """The first ``count`` calibration samples, or all, as ``qcomp.compile`` takes them."""
        return {name: array[:count] for name, array in self.calibration_inputs.items()}

    @property
    def input_name(self) -> str:
        """The name of the model's input; QcompError where there are several, as for the two below."""
        if len(self.test_inputs) != 1:
            raise QcompError(
                f"the model has {len(self.test_inputs)} inputs: {', '.join(self.test_inputs)}",
                where=f"case {self.name}",
                fix="use feed, feeds, calibration_samples, test_inputs and calibration_inputs",
            )
        return next(iter(self.test_inputs))

    @property
    def calibration(self) -> Array:
        """The calibration samples of a model with one input."""
        return self.calibration_inputs[self.input_name]

    @property
    def inputs(self) -> Array:
        """The test samples of a model with one input."""
        return self.test_inputs[self.input_name]


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
