"""Equal shares: of work, because every task of a kernel calls the same function, and of vectors."""

from __future__ import annotations

MOST_TASKS = 32
_SLACK = 4


def divisor(count: int, wanted: int) -> int:
    """The smallest divisor that is no less than what is wanted, if it is not far more; else the next one below."""
    most = min(count, max(1, wanted))
    above = (d for d in range(most, min(count, _SLACK * most) + 1) if count % d == 0)
    return next(above, 0) or next(d for d in range(most, 0, -1) if count % d == 0)


def power_of_two(count: int, most: int) -> int:
    """The largest power of two, up to `most` (one itself), that divides the count."""
    return min(most, count & -count)
