"""Whether an artifact does what the simulation of its mix of precisions promised: it is run on the samples."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from qcomp.compiler import Artifact
from qcomp.ir.graph import Graph
from qcomp.passes.precision import DEFAULT
from qcomp.quantize.answers import Answers
from qcomp.quantize.fidelity import Fidelity
from qcomp.quantize.float_runs import outputs_on
from qcomp.quantize.goals import Goal, drop_text
from qcomp.quantize.labels import Labels
from qcomp.quantize.mixes import Search
from qcomp.quantize.onnxruntime_session import Arrays
from qcomp.quantize.sensitivity import Judge
from qcomp.runtime.features import cpu_features, machine
from qcomp.runtime.loader import load

_RUNS, _WARM = 15, 3


@dataclass(frozen=True)
class Judged:
    """A float graph, and the samples and labels that judge other forms of it."""

    graph: Graph
    samples: Sequence[Arrays]
    labels: Labels | None
    answers: Answers
    threads: int

    @cached_property
    def judge(self) -> Judge:
        reference = outputs_on(self.graph, self.samples, self.threads)
        labels = [None] * len(reference) if self.labels is None else self.labels
        return Judge(reference, labels, self.answers)

    @cached_property
    def float32(self) -> Fidelity:
        return Fidelity.of(list(map(self.judge, range(len(self.samples)), self.judge.reference)))


@dataclass(frozen=True)
class Confirmed:
    """What was measured of an artifact: its outputs on all samples, milliseconds of a run (one thread), its file."""

    fidelity: Fidelity
    milliseconds: float
    bytes: int
    float32: Fidelity

    def reaches(self, goal: Goal, float32: Fidelity) -> bool:
        fast = goal.max_latency is None or self.milliseconds <= goal.max_latency
        small = goal.max_size is None or self.bytes <= goal.max_size
        return fast and small and goal.accurate(self.fidelity, float32, spare=False)

    def __str__(self) -> str:
        return f"{drop_text(self.fidelity, self.float32)}, {self.milliseconds:.3g} ms, {self.bytes} bytes"


def confirm(artifact: Artifact, judged: Judged) -> Confirmed | None:
    """Builds an artifact in a temporary folder and runs it; None if its target does not run on this machine."""
    if artifact.target.arch != machine() or not artifact.target.features <= cpu_features():
        return None
    names = [value.name for value in artifact.graph.outputs]
    with tempfile.TemporaryDirectory() as folder:
        path = artifact.save(Path(folder) / "mix.so")
        size = path.stat().st_size
        with load(path) as model:
            found = []
            for i, sample in enumerate(judged.samples):
                outputs = model.run({info.name: sample[info.name] for info in model.inputs})
                found.append(judged.judge(i, [outputs[name].copy() for name in names]))
            run = model.bind({info.name: judged.samples[0][info.name] for info in model.inputs}).run
            times = []
            for _ in range(_WARM + _RUNS):
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
    return Confirmed(Fidelity.of(found), statistics.median(times[_WARM:]) * 1e3, size, judged.float32)


@dataclass
class Attempts:
    """Artifacts of mixes, and whether they reached the goal when they were run here."""

    goal: Goal
    judged: Judged
    build: Callable[[Mapping[str, str]], Artifact]
    progress: Callable[[int, int], None]
    last: Confirmed | None = None
    reached: dict[frozenset[tuple[str, str]], bool] = field(default_factory=dict)

    def of(self, precision: Mapping[str, str]) -> Artifact | None:
        """The artifact of a mix, unless it was run here and does not reach the goal."""
        artifact = self.build(precision)
        self.progress(0, 1)
        self.last = confirmed = confirm(artifact, self.judged)
        if confirmed is None:
            return artifact
        self.reached[_wide(precision)] = reached = confirmed.reaches(self.goal, self.judged.float32)
        return replace(artifact, confirmed=confirmed) if reached else None

    def marked(self, found: Search) -> Search:
        """The search, whose mixes say what became of their artifacts."""
        mixes = {mix: replace(mix, compiled=self.reached.get(_wide(mix.choice))) for mix in found.looked_at}
        return replace(found, best=mixes[found.best], looked_at=tuple(mixes.values()))


def _wide(precision: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, chosen) for name, chosen in precision.items() if chosen != DEFAULT)
