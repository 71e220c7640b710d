"""What a mix of precisions has to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qcomp.errors import QcompError
from qcomp.quantize.fidelity import Fidelity
from qcomp.reports.costs import Costs

_SLACK = 1e-9  # of shares that are means of sums

DEFAULT_DROP = 0.005


@dataclass(frozen=True)
class Goal:
    """Bounds on a mix; None leaves one open.

    `max_drop`: by how much the accuracy may fall below that of float32 (the agreement below 1, where there are no
    labels), as a share.  The search asks for a standard error to spare, since it picks the best of many: in a small
    set, nothing may change.  `min_sqnr`: dB.
    `max_latency`: milliseconds of one run on one thread.  `max_size`: bytes.
    """

    max_drop: float | None = None
    min_sqnr: float | None = None
    max_latency: float | None = None
    max_size: int | None = None

    def __post_init__(self) -> None:
        bounds = (
            ("max_drop", self.max_drop, "a share from 0 to 1, or a percentage", lambda x: 0 <= x <= 1),
            ("min_sqnr", self.min_sqnr, "decibels", math.isfinite),
            ("max_latency", self.max_latency, "a positive number of milliseconds", lambda x: 0 < x < math.inf),
            ("max_size", self.max_size, "a positive number of bytes", lambda x: x > 0),
        )
        for name, value, expected, fits in bounds:
            if value is not None and not (not math.isnan(value) and fits(value)):
                raise QcompError(f"{value} is no bound", where=name, fix=f"give {expected}")

    @property
    def bounds_accuracy(self) -> bool:
        return self.max_drop is not None or self.min_sqnr is not None

    @property
    def bounds_costs(self) -> bool:
        return self.max_latency is not None or self.max_size is not None

    def accurate(self, found: Fidelity, float32: Fidelity, *, spare: bool = True) -> bool:
        """Whether outputs are near enough to those of float32, with or without a standard error to spare; QcompError
        if there are no answers to compare."""
        if self.min_sqnr is not None and found.sqnr_db < self.min_sqnr:
            return False
        margin = found.drop_error if spare else 0.0
        return self.max_drop is None or drop(found, float32) + margin <= self.max_drop + _SLACK

    def affordable(self, costs: Costs, choice: Mapping[str, str]) -> bool:
        """Whether a mix, given by its layers that are not int8, is fast and small enough."""
        fast = self.max_latency is None or costs.milliseconds(choice) <= self.max_latency
        return fast and (self.max_size is None or costs.bytes(choice) <= self.max_size)

    def __str__(self) -> str:
        parts = [
            None if self.max_drop is None else f"a drop of at most {self.max_drop:.2%}",
            None if self.min_sqnr is None else f"at least {self.min_sqnr:g} dB",
            None if self.max_latency is None else f"at most {self.max_latency:g} ms",
            None if self.max_size is None else f"at most {self.max_size} bytes",
        ]
        return ", ".join(part for part in parts if part)


def drop(found: Fidelity, float32: Fidelity) -> float:
    """How far the accuracy, or without labels the agreement, lies below that of float32; QcompError without either."""
    if found.accuracy is not None and float32.accuracy is not None:
        return float32.accuracy - found.accuracy
    if found.agreement is None:
        raise QcompError(
            "the model's first output has one number a row: there is no argmax to compare", where="max_drop",
            fix="bound the noise instead (min_sqnr, --min-sqnr DB)",
        )  # fmt: skip
    return 1.0 - found.agreement


def drop_text(found: Fidelity, float32: Fidelity) -> str:
    """`29.1 dB, 0.52% below float32`."""
    noise = f"{found.sqnr_db:.1f} dB"
    if found.accuracy is None and found.agreement is None:
        return noise
    return f"{noise}, {drop(found, float32):.2%} below float32"
