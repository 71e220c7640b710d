"""How near the outputs of one form of a model are to those of another, sample by sample and over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.quantize.answers import ARGMAX, Answers, Outputs


@dataclass(frozen=True)
class SampleFidelity:
    """One sample: energies over all outputs, and which share of the answers is the reference's, and the label's.

    `agrees` is None where the first output has no answers; `right`, `lost` (right in the reference alone) and `gained`
    (right here alone) are None without a label.
    """

    signal: float
    noise: float
    cosine: float
    agrees: float | None
    right: float | None
    lost: float | None = None
    gained: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """A sample set.  `sqnr_db`: energy of the reference by energy of the difference, in dB, infinity for the same
    outputs; `cosine`, `agreement` and `accuracy`: means over the samples.

    `drop_error`: the standard error of the drop in accuracy (without labels: in agreement), McNemar's: answers lost and
    gained count alike.
    """

    sqnr_db: float
    cosine: float
    agreement: float | None
    accuracy: float | None
    drop_error: float

    @staticmethod
    def of(samples: Sequence[SampleFidelity]) -> Fidelity:
        """Sums are exact, so it does not matter in which order or where the samples were measured.

        QcompError for outputs that are not finite.
        """
        if not all(math.isfinite(s.signal) and math.isfinite(s.noise) for s in samples):
            raise QcompError("the model's outputs hold NaN or infinity", fix="repair the model or the samples")
        signal, noise = math.fsum(s.signal for s in samples), math.fsum(s.noise for s in samples)
        sqnr = sqnr_db(signal, noise)
        cosine = math.fsum(s.cosine for s in samples) / len(samples)
        agreement, accuracy = _mean([s.agrees for s in samples]), _mean([s.right for s in samples])
        error = math.sqrt(math.fsum(_drop(s) ** 2 for s in samples)) / len(samples)
        return Fidelity(sqnr, cosine, agreement, accuracy, error)

    def facts(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: the same outputs have null."""
        shown = self.sqnr_db if math.isfinite(self.sqnr_db) else None
        return {"sqnr_db": shown, "cosine": self.cosine, "agreement": self.agreement, "accuracy": self.accuracy}


def sqnr_db(signal: float, noise: float) -> float:
    """10 log10 of signal power to noise power, infinite where there is no noise."""
    return math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)


def compare(
    reference: Outputs, outputs: Outputs, label: NDArray[np.int64] | None = None, answers: Answers = ARGMAX
) -> SampleFidelity:
    """The fidelity of one sample's outputs; `label` int64 holds the right answers."""
    pairs = [(np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b in zip(reference, outputs, strict=True)]
    signal, own = (math.fsum(_energy(pair[side]) for pair in pairs) for side in (0, 1))
    noise = math.fsum(_energy(b - a) for a, b in pairs)
    # 2 a·b = |a|² + |b|² - |a - b|²
    cosine = (signal + own - noise) / 2 / math.sqrt(signal * own) if signal > 0 and own > 0 else float(noise == 0)
    expected, found = answers.of(reference), answers.of(outputs)
    if found is None or expected is None:
        return SampleFidelity(signal, noise, cosine, None, None)
    agrees = float(answers.hits(found, expected).mean())
    if label is None:
        return SampleFidelity(signal, noise, cosine, agrees, None)
    right, before = answers.hits(found, label), answers.hits(expected, label)
    lost, gained = (before & ~right).mean(), (right & ~before).mean()
    return SampleFidelity(signal, noise, cosine, agrees, float(right.mean()), float(lost), float(gained))


def _energy(array: NDArray[np.float32]) -> float:
    """The sum of squares; BLAS would take it in an order that depends on its threads."""
    return float(np.square(array, dtype=np.float64).sum())


def _drop(sample: SampleFidelity) -> float:
    """The share of a sample's answers that were lost, less those gained."""
    if sample.lost is not None and sample.gained is not None:
        return sample.lost - sample.gained
    return 0.0 if sample.agrees is None else 1.0 - sample.agrees


def _mean(found: Sequence[float | None]) -> float | None:
    known = [f for f in found if f is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None
