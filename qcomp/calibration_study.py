"""How a model depends on its calibration data: fewer samples, single samples, and data unlike the test data."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from qcomp.codegen.build import build_library
from qcomp.codegen.c.levels import generate_levels
from qcomp.codegen.c.package import Options as SourceOptions
from qcomp.compiler import Options, quantize
from qcomp.ir.graph import Graph
from qcomp.ir.onnx_export import to_onnx
from qcomp.passes.equalize_channels import divided_values
from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.check import check_calibration
from qcomp.quantize.drift import Drift, drift
from qcomp.quantize.inputs import inputs_of
from qcomp.quantize.sample_sources import Sample
from qcomp.quantize.samples import Samples, samples_of
from qcomp.reports.compare.agreement import Decisions, OutputFigures
from qcomp.reports.compare.result import CalibrationReport, SampleRow
from qcomp.targets import target

#: Of the calibration set: what its parts give is compared with the whole.
PARTS = (4, 2, 1)
_SETTLED = 0.05
_MOST_DRIFTS = 6
_LEAST_PART = 2

Judge = Callable[[Path], tuple[Decisions, tuple[OutputFigures, ...]]]


@dataclass(frozen=True)
class _First:
    """The first samples of a set, as a source."""

    samples: Samples
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return itertools.islice(iter(self.samples), self.count)

    def place(self, i: int) -> str:
        return self.samples.place(i)


def first_samples(samples: Samples, count: int) -> Samples:
    """The first `count` samples of a set; all of them if it has no more."""
    return Samples(samples.inputs, (_First(samples, min(count, len(samples))),))


def study_calibration(
    graph: Graph,
    samples: Samples,
    test: Samples,
    options: Options,
    target_name: str,
    judge: Judge,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Graph, CalibrationReport]:
    """Quantizes the model with a quarter, a half and all of the calibration samples; `judge` measures each artifact.

    Returns the integer graph of all samples, and the report.  `graph` is canonical and stays as it is.
    """
    machine = target(target_name)
    counts = sorted({len(samples) // part for part in PARTS if len(samples) // part >= _LEAST_PART} | {len(samples)})
    graphs: list[Graph] = []
    figures: list[tuple[Decisions, tuple[OutputFigures, ...]]] = []
    calibrations: list[Calibration] = []
    own = replace(options, on_calibration=calibrations.append)
    with tempfile.TemporaryDirectory(prefix="qcomp-") as folder:
        for index, count in enumerate(counts):
            if progress is not None:
                progress(index, len(counts))
            graphs.append(quantize(graph.clone(), first_samples(samples, count), own))
            package = generate_levels(graphs[-1], [machine], SourceOptions())
            figures.append(judge(build_library(package, Path(folder) / f"{count}.so", options.cc)))
    rows = tuple(
        _row(count, figure, one, graphs[-1]) for count, figure, one in zip(counts, figures, graphs, strict=True)
    )
    findings = []
    if calibrations:
        findings = [(f.code, f.message) for f in check_calibration(calibrations[-1])]
        findings += [("drift", d.message) for d in _drifts(graph, graphs[-1], calibrations[-1], test)]
    return graphs[-1], CalibrationReport(len(samples), tuple(findings), rows)


def _row(count: int, figure: tuple[Decisions, tuple[OutputFigures, ...]], part: Graph, whole: Graph) -> SampleRow:
    decided, outputs = figure
    before = _scales(part)
    scales = {name: scale for name, scale in _scales(whole).items() if name in before}
    settled = sum(abs(before[name] / scale - 1) <= _SETTLED for name, scale in scales.items())
    sqnr = min((o.sqnr_db for o in outputs if o.sqnr_db is not None), default=None)
    return SampleRow(count, decided.int8_top1, decided.agreement, sqnr, settled, len(scales))


def _scales(graph: Graph) -> dict[str, float]:
    """Scales of activations by name."""
    return {
        v.name: v.quant.scale[0] for v in graph.values if not v.is_constant and v.quant and v.quant.axis is None
    }


def _drifts(graph: Graph, integer: Graph, calibrated: Calibration, test: Samples) -> list[Drift]:
    """Drifts of the float graph's tensors, but for those that calibration saw with their channels divided."""
    divided = divided_values(integer)
    model = to_onnx(graph)
    data = samples_of(first_samples(test, calibrated.samples), inputs_of(model))
    known = {v.name for v in graph.values if not v.is_constant and v.name not in divided}
    tensors = [name for name in calibrated.observers if name in known]
    return list(drift(calibrated, calibrate(model, data, tensors, calibrated.method)))[:_MOST_DRIFTS]
