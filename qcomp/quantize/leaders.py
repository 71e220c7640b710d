"""Which sample holds an end of a tensor's range, and how far the other samples reach."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.quantize.minmax import Extremes

_NONE = float("inf")


@dataclass(frozen=True)
class Leader:
    """The largest value that a sample has, the sample's number, and the largest of all other samples."""

    value: float = -_NONE
    sample: int = -1
    others: float = -_NONE

    def merge(self, other: Leader) -> Leader:
        """Of both streams; among equal values the earlier sample counts."""
        first, second = sorted((self, other), key=lambda leader: (-leader.value, leader.sample))
        return Leader(first.value, first.sample, max(first.others, second.value))

    def shifted(self, samples: int) -> Leader:
        """The same where `samples` others come before."""
        return Leader(self.value, self.sample + samples if self.sample >= 0 else -1, self.others)


@dataclass(frozen=True)
class Leaders:
    """Leaders of both ends; those of the low end are of the negated values."""

    low: Leader = Leader()
    high: Leader = Leader()

    @staticmethod
    def of(extremes: Extremes, sample: int) -> Leaders:
        """Of one sample's values."""
        if not extremes.count:
            return Leaders()
        return Leaders(Leader(-extremes.lo, sample), Leader(extremes.hi, sample))

    def merge(self, other: Leaders) -> Leaders:
        return Leaders(self.low.merge(other.low), self.high.merge(other.high))

    def shifted(self, samples: int) -> Leaders:
        return Leaders(self.low.shifted(samples), self.high.shifted(samples))
