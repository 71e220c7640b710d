"""What a person gives to judge a model's outputs by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcomp.errors import QcompError
from qcomp.quantize.answers import ARGMAX, Answers
from qcomp.quantize.samples import Data


@dataclass(frozen=True)
class Judging:
    """What says whether outputs are good.

    `samples`: data to judge on, without it the calibration data.  `labels`: the right answers for each of these, class
    indices; without them the float model's answers are the right ones.  `answers`: how outputs become answers.
    `threads`: samples that run side by side, 0 for one a CPU.  `scheduler`: the address of a Dask cluster.
    `labels_from`: what the labels are called in errors, such as their file.
    """

    samples: Data | None = None
    labels: Any = None
    answers: Answers = ARGMAX
    threads: int = 0
    scheduler: str | None = None
    labels_from: str = "labels"

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise QcompError(
                f"{self.threads} threads", where="threads", fix="give a positive number, or 0 for one a CPU"
            )
