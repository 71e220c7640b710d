"""How work is cut into tasks: a pure function of sizes, so that the sources do not depend on the machine."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

_WORK_OF_A_TASK = 1 << 15
_MOST_TASKS = 32


@dataclass(frozen=True)
class Split:
    """`count` tasks; task t does the iterations t * chunk .. min((t + 1) * chunk, size) - 1 of a loop."""

    size: int
    chunk: int
    count: int

    @property
    def first(self) -> str:
        return "0" if self.count == 1 else f"task * {self.chunk}"

    @property
    def last(self) -> str:
        if self.count == 1:
            return str(self.size)
        if self.chunk * self.count == self.size:
            return f"(task + 1) * {self.chunk}"
        return f"(task + 1 == {self.count} ? {self.size} : (task + 1) * {self.chunk})"


def split(size: int, work: float, grain: int = 1) -> Split:
    """Cuts a loop of `size` iterations of `work` element operations each; chunks are multiples of `grain`."""
    wanted = min(_MOST_TASKS, int(size * work / _WORK_OF_A_TASK), -(-size // grain))
    if wanted <= 1:
        return Split(size, size, 1)
    chunk = ceil(ceil(size / wanted) / grain) * grain
    return Split(size, chunk, -(-size // chunk))
