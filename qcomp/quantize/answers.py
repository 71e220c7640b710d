"""What a model's first output answers: the class of each row, or a sequence of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError

Outputs = Sequence[NDArray[Any]]
Classes = NDArray[np.int64]

BLANK = 0


def _each_row(best: Classes) -> Classes:
    return best


def _collapsed(best: Classes) -> Classes:
    """Greedy CTC: repeats count once, blanks (class 0) part them and go."""
    kept = np.ones(len(best), np.bool_)
    kept[1:] = best[1:] != best[:-1]
    collapsed: Classes = best[kept & (best != BLANK)]
    return collapsed


# name -> from the class of each row to the answer, and whether the answer counts as a whole only
DECODERS: Mapping[str, tuple[Callable[[Classes], Classes], bool]] = {
    "argmax": (_each_row, False),
    "ctc": (_collapsed, True),
}


@dataclass(frozen=True)
class Answers:
    """How outputs become answers.  A row is the last axis, its class where it is largest.

    `decode`: "argmax", every row is an answer of its own; "ctc", all rows are one answer, repeats and blanks taken out.
    `ignore`: classes that are left out of such a sequence.
    """

    decode: str = "argmax"
    ignore: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.decode not in DECODERS:
            raise QcompError(f"no way to decode is called {self.decode!r}", fix=f"use {' or '.join(DECODERS)}")
        if self.ignore and not DECODERS[self.decode][1]:
            raise QcompError("there is no sequence to leave classes out of", where="ignore", fix="decode ctc")

    def of(self, outputs: Outputs) -> Classes | None:
        """int64 [answers]; None if the rows of the first output hold one number each."""
        first = outputs[0]
        if first.ndim == 0 or first.shape[-1] < 2:
            return None
        function, _ = DECODERS[self.decode]
        found = function(np.argmax(first.reshape(-1, first.shape[-1]), axis=1).astype(np.int64))
        return found[~np.isin(found, self.ignore)] if self.ignore else found

    def hits(self, found: Classes, expected: Classes) -> NDArray[np.bool_]:
        """bool [answers]: which are as expected; a sequence is one answer."""
        if DECODERS[self.decode][1]:
            return np.array([np.array_equal(found, expected[~np.isin(expected, self.ignore)])])
        return np.asarray(found == expected) if found.shape == expected.shape else np.zeros(1, np.bool_)


ARGMAX = Answers()
