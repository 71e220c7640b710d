"""Candidates of a layer by a search that measures as it goes, for kernels that have one."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.tune.candidates import Candidate, Layer, candidate_of, request_of
from qcomp.codegen.tune.library import KernelLibrary, operands_of, others_of
from qcomp.errors import QcompError
from qcomp.targets import Target

_RUNS = 9


class Explorer:
    """The search for the schedules of one kernel, for a layer of a network that touches so many bytes in a run."""

    def __init__(
        self, layer: Layer, kernel: Kernel, network_bytes: int, target: Target, threads: int, cc: str | None
    ) -> None:
        self._layer, self._kernel, self._bytes = layer, kernel, network_bytes
        self._target, self._threads, self._cc = target, threads, cc

    def candidates(self, most: int, finalists: int) -> list[Candidate] | None:
        """The default and the best of up to `most` others; None where the kernel has no search."""
        best = self._kernel.explore(request_of(self._layer, self._target), most, self._measured)
        if best is None:
            return None
        default, *found = (self._candidate(schedule) for schedule in ("", *best[:finalists]))
        return [default, *(candidate for candidate in found if candidate.code.text != default.code.text)]

    def _candidate(self, schedule: str) -> Candidate:
        return candidate_of(self._layer, self._kernel, self._target, schedule)

    def _measured(self, schedules: Sequence[str]) -> list[float]:
        """Nanoseconds of each, infinity for one that cannot be compiled: medians of runs in turns."""
        row: list[Candidate | None] = []
        for schedule in schedules:
            try:
                row.append(self._candidate(schedule))
            except QcompError:
                row.append(None)
        times = iter(self._times([candidate for candidate in row if candidate is not None]))
        return [math.inf if candidate is None else next(times) for candidate in row]

    def _times(self, row: Sequence[Candidate]) -> list[float]:
        if not row:
            return []
        with tempfile.TemporaryDirectory(prefix="qcomp-") as folder:
            library = KernelLibrary([row], self._target, Path(folder), self._threads, self._cc)
            try:
                others = others_of(self._layer, row, self._bytes, self._target)
                sample = library.timer(0, operands_of(self._layer, row), others)
                turns = [[sample(index) for index in range(len(row))] for _ in range(_RUNS)]
            finally:
                library.close()
        return [statistics.median(times) for times in zip(*turns, strict=True)]
