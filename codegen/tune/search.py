"""The tuner: measures candidates of every layer of a graph on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcomp.codegen.backends import table_of
from qcomp.codegen.tune.candidates import Candidate, Layer, candidates, network
from qcomp.codegen.tune.choose import ROUNDS, Rounds, Sample, Verdict, choose
from qcomp.codegen.tune.explore import Explorer
from qcomp.codegen.tune.file import Choice, Tuning
from qcomp.codegen.tune.library import KernelLibrary, Operands, operands_of, others_of
from qcomp.errors import QcompError
from qcomp.ir import Graph
from qcomp.runtime.features import cpu_features, cpu_name, machine
from qcomp.targets import Target

CANDIDATES = 24

Progress = Callable[[str, int, int], None]
#: Makes what times the candidates out of the real timer.
Clock = Callable[[Layer, Sequence[Candidate], Sample], Sample]


@dataclass(frozen=True)
class Result:
    """What was found for a layer, of which the graph has `count`; times in microseconds."""

    name: str
    count: int
    candidates: int
    kernel: str
    schedule: str
    default_us: float
    best_us: float

    @property
    def speedup(self) -> float:
        return self.default_us / self.best_us

    @property
    def choice(self) -> Choice:
        return Choice(self.kernel, self.schedule, self.speedup)


def check_runs_here(target: Target) -> None:
    """QcompError unless the target is one that can be tuned, and this machine runs its code."""
    if target.arch == "generic":
        raise QcompError(f"target {target.name} has nothing to tune", fix="tune for a target with vector kernels")
    if target.carries:
        raise QcompError(
            f"target {target.name} holds code for several targets, which take no tuning",
            fix="tune and compile for one of them: " + ", ".join(target.carries),
        )
    if target.arch != machine():
        raise QcompError(f"target {target.name} is {target.arch}, this machine is {machine()}", fix="tune on its kind")
    missing = sorted(target.features - cpu_features())
    if missing:
        raise QcompError(
            f"this CPU lacks {', '.join(missing)} of target {target.name}", fix="tune on a machine that has them"
        )


def tune_graph(
    graph: Graph,
    target: Target,
    most: int = CANDIDATES,
    threads: int = 1,
    cc: str | None = None,
    rounds: Rounds = ROUNDS,
    progress: Progress = lambda stage, done, total: None,
    clock: Clock = lambda layer, candidates, sample: sample,
    backend: str = "c",
) -> list[Result]:
    """The best of up to `most` candidates besides the default, for each layer of an integer graph; see `tuning_of`.

    Every candidate's output is compared with the default's before it is timed.  `clock` may replace the times.
    backend: which kernels there are (see `table_of`); the tilings of "tvm" are searched for by MetaSchedule.
    Raises QcompError when this machine cannot run the target's code.
    """
    check_runs_here(target)
    table = table_of(backend)
    found = network(graph, target, table)
    if not found.layers:
        return []
    rows = []
    for done, layer in enumerate(found.layers):
        progress("candidates", done, len(found.layers))
        explorer = Explorer(layer, table.select(layer.step.node, target), found.bytes, target, threads, cc)
        rows.append(explorer.candidates(most, rounds.finalists) or candidates(layer, target, most, table))
    progress("compile C", 0, 1)
    results = []
    with tempfile.TemporaryDirectory(prefix="qcomp-") as folder:
        library = KernelLibrary(rows, target, Path(folder), threads, cc)
        for index, (layer, row) in enumerate(zip(found.layers, rows, strict=True)):
            progress("measure", index, len(rows))
            operands = operands_of(layer, row)
            sample = library.timer(index, operands, others_of(layer, row, found.bytes, target))
            check_alike(layer, row, operands, sample)
            verdict = choose(len(row), clock(layer, row, sample), rounds)
            results.append(_result(layer, row, verdict))
        library.close()
    return results


def check_alike(layer: Layer, row: Sequence[Candidate], operands: Operands, sample: Sample) -> None:
    """Runs every candidate; an output that differs from the default's is a defect of a kernel."""
    expected: list[np.ndarray] = []
    for index, candidate in enumerate(row):
        for output in operands.outputs:
            output[...] = 0xA5
        sample(index)
        found = [output.copy() for output in operands.outputs]
        expected = expected or found
        if any(not np.array_equal(a, b) for a, b in zip(expected, found, strict=True)):
            raise QcompError(
                f"kernel {candidate.kernel} with schedule {candidate.schedule!r} has other results than the default",
                where=layer.name, fix="this is a defect of qcomp or of the C compiler: try another --cc, and report it",
            )  # fmt: skip


def _result(layer: Layer, row: Sequence[Candidate], verdict: Verdict) -> Result:
    best = row[verdict.best]
    times = verdict.default_ns / 1e3, verdict.best_ns / 1e3
    return Result(layer.name, layer.count, len(row), best.kernel, best.schedule, *times)


def tuning_of(target: Target, results: Iterable[Result], backend: str = "c") -> Tuning:
    """The results as what a file holds."""
    return Tuning(target.name, cpu_name(), {result.name: result.choice for result in results}, backend)
