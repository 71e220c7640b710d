"""Everything that a comparison found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qcomp.reports.compare.agreement import Decisions, OutputFigures
from qcomp.reports.compare.cost import Cost, is_integer_step
from qcomp.reports.compare.front import Candidate
from qcomp.reports.compare.gate import Check
from qcomp.reports.compare.layers import LayerError, LayerStudy
from qcomp.reports.compare.plan import ArenaPlan
from qcomp.reports.compare.resident import Resident
from qcomp.runtime.artifact import ArtifactInfo
from qcomp.runtime.loader import StepTime


@dataclass(frozen=True)
class Side:
    """The float model in onnxruntime, or the artifact.  `memory_bytes` is what it is known to need: arena and weights;
    None for onnxruntime, which does not say."""

    median_ms: float
    min_ms: float
    runs: int
    disk_bytes: int
    memory_bytes: int | None
    resident: Resident | None
    cost: Cost


@dataclass(frozen=True)
class StepFigures:
    """One step of the artifact in the order of execution; `error` where the integer graph is known."""

    name: str
    op: str
    kernel: str
    precision: str
    shape: tuple[int, ...]
    milliseconds: float
    share: float
    macs: int
    bytes_moved: int
    error: LayerError | None


@dataclass(frozen=True)
class SampleRow:
    """What a part of the calibration set gives: accuracy and agreement as shares (None where nothing is decided), SQNR
    of the worst output, and how many of the activation scales are those of the whole set to a twentieth."""

    samples: int
    top1: float | None
    agreement: float | None
    sqnr_db: float | None
    settled: int
    scales: int


@dataclass(frozen=True)
class CalibrationReport:
    """Lines on the calibration set, by code, and what parts of it give."""

    samples: int
    findings: tuple[tuple[str, str], ...] = ()
    parts: tuple[SampleRow, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A model and its artifact; `model_precision` is "float32", or "quantized" for one that came so."""

    model: str
    model_precision: str
    artifact: str
    info: ArtifactInfo = field(repr=False)
    samples: int
    threads: int
    float_side: Side
    int8_side: Side
    speedup: float
    decided: Decisions
    outputs: tuple[OutputFigures, ...]
    checks: tuple[Check, ...]
    steps: tuple[StepFigures, ...]
    islands: tuple[Mapping[str, str], ...]
    study: LayerStudy | None = None
    edges: tuple[tuple[int, int], ...] = ()
    plan: ArenaPlan | None = None
    calibration: CalibrationReport | None = None
    front: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def precision(self) -> str:
        """What the artifact's products are of: "int8", or "float32" where none is of integers but some are of reals."""
        cost = self.int8_side.cost
        return "float32" if cost.float_macs and not cost.int8_macs else "int8"

    @property
    def integer_share(self) -> float:
        """Share of the multiply-accumulates that are of integers; 1 where there are none."""
        cost = self.int8_side.cost
        total = cost.int8_macs + cost.float_macs
        return cost.int8_macs / total if total else 1.0


def step_figures(info: ArtifactInfo, times: Iterable[StepTime], study: LayerStudy | None) -> tuple[StepFigures, ...]:
    """Steps with their times and errors; names that several nodes have go in the order of execution."""
    errors: dict[tuple[str, str], list[LayerError]] = {}
    for layer in study.layers if study is not None else ():
        errors.setdefault((layer.node, layer.op), []).append(layer)
    rows = []
    for step, time in zip(info.steps, times, strict=True):
        waiting = errors.get((step.name, step.op))
        rows.append(
            StepFigures(
                step.name, step.op, step.kernel, "i8" if is_integer_step(step) else step.precision, step.shape,
                time.milliseconds, time.share, step.macs, step.bytes_moved, waiting.pop(0) if waiting else None,
            )
        )  # fmt: skip
    return tuple(rows)
