"""What was done for accuracy, to be shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from qcomp.quantize.choice import CANDIDATES, Choice
from qcomp.quantize.equalization import Equalized
from qcomp.quantize.refinement import Refinement
from qcomp.quantize.trial import Trial

_MOST_NAMES = 3


@dataclass(frozen=True)
class Quality:
    """`refinement` is all that was found, `trial` says what of it was kept; `lines` are for people."""

    equalized: tuple[Equalized, ...]
    choices: tuple[Choice, ...]
    refinement: Refinement
    trial: Trial

    def lines(self) -> list[str]:
        lines = []
        if self.equalized:
            names = ", ".join(f"%{e.value}" for e in self.equalized[:_MOST_NAMES])
            more = len(self.equalized) - _MOST_NAMES
            lines.append(f"channels equalized: {names}{f' and {more} more' if more > 0 else ''}")
        others = Counter(choice.method for choice in self.choices if choice.method != CANDIDATES[0][0])
        if others:
            counted = ", ".join(f"{count} by {method}" for method, count in sorted(others.items()))
            lines.append(f"ranges of {len(self.choices)} tensors by mse, but {counted}")
        return lines + self._adjustments()

    def _adjustments(self) -> list[str]:
        lines = []
        kept, found = self.trial.kept, self.refinement.corrections
        if kept.weights:
            lines.append(f"weights of {len(kept.weights)} of {len(found)} layers rounded by their results")
        if kept.biases:
            worst = max(found, key=lambda name: found[name].before - found[name].after)
            before, after = (10 * np.log10(max(n, 1e-12)) for n in (found[worst].before, found[worst].after))
            lines.append(
                f"biases of {len(kept.biases)} of {len(found)} layers corrected; most in %{worst}: "
                f"noise {before:.1f} dB before, {after:.1f} dB after"
            )
        pairs = (("biases", self.refinement.biases, kept.biases), ("weights", self.refinement.weights, kept.weights))
        dropped = [name for name, before, after in pairs if before and not after]
        if dropped:
            lines.append(
                f"{' and '.join(dropped)} left as they were: corrected, the model's outputs have "
                f"{self.trial.gain_db:.1f} dB more noise (± {self.trial.error_db:.1f})"
            )
        return lines
