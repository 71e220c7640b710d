"""What `qcomp compare` does: loads both sides, runs them over the data, times them, and looks at the layers."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.calibration_study import study_calibration
from qcomp.cli.arguments import raw_images, samples_for
from qcomp.cli.files import batch_notes, model_bytes, read_graph
from qcomp.cli.peers import peer
from qcomp.cli.timing import Timings, interleave
from qcomp.compiler import Options, is_quantized
from qcomp.errors import QcompError
from qcomp.ir.onnx_export import to_onnx
from qcomp.passes.canonicalize import canonicalization
from qcomp.passes.manager import run_passes
from qcomp.quantize.observers import method_named
from qcomp.reports.compare.cost import artifact_cost, float_cost
from qcomp.reports.compare.front import read_front
from qcomp.reports.compare.gate import Limits, check_limits
from qcomp.reports.compare.judge import check_own_graph, check_same_model, judge
from qcomp.reports.compare.labels import read_labels
from qcomp.reports.compare.layers import LayerStudy, study_layers
from qcomp.reports.compare.onnxruntime_float import FloatModel
from qcomp.reports.compare.plan import ArenaPlan, arena_plan
from qcomp.reports.compare.resident import resident
from qcomp.reports.compare.result import CalibrationReport, Comparison, Side, step_figures
from qcomp.runtime.artifact import ArtifactInfo, read_trailer
from qcomp.runtime.loader import load

if TYPE_CHECKING:
    from qcomp.ir.graph import Graph
    from qcomp.quantize.samples import Samples
    from qcomp.runtime.loader import Model

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """The options of the command, read and checked."""

    model: Path
    artifact: Path
    data: Path
    labels: Path | None
    graph: Path | None
    calibrate: Path | None
    front: Path | None
    limits: Limits
    class_axis: int | None
    layer_samples: int
    threads: int
    runs: int
    level: str | None
    shapes: Mapping[str, tuple[int, ...]]
    method: str
    effort: str
    per_tensor: bool
    images: tuple[Any, ...]


def measure(request: Request, progress: Progress) -> Comparison:
    """Runs the whole comparison; QcompError for whatever the user can mend."""
    progress("load", 0, 1)
    method_named(request.method)
    Options(effort=request.effort)
    labels = None if request.labels is None else read_labels(request.labels)
    candidates = () if request.front is None else read_front(request.front)
    info = read_trailer(request.artifact)
    shapes = {} if request.model.suffix == ".qir" else {t.name: t.shape for t in info.inputs}
    source = _read_model(request, shapes | dict(request.shapes))
    check_same_model(source, info, str(request.model))
    integer = None if request.graph is None else _read_own_graph(request.graph, info)
    samples = samples_for(source, request.data, *request.images)
    calibration = None if request.calibrate is None else samples_for(source, request.calibrate, *request.images)
    graph = run_passes(source.clone(), canonicalization())
    with tempfile.TemporaryDirectory(prefix="qcomp-") as folder, load(
        request.artifact, request.threads, request.level
    ) as own:
        runnable = _runnable(request.model, source, Path(folder))
        reference = FloatModel(runnable, own.threads, where=str(request.model))
        total = len(samples)
        decided, outputs = judge(
            reference, own, samples, labels, request.class_axis, lambda done: progress("compare", done, total),
            str(request.labels),
        )  # fmt: skip
        checks = check_limits(request.limits, decided, outputs)
        feed = next(iter(samples))
        progress("time", 0, 1)
        sides = {"onnxruntime": peer("onnxruntime", runnable, own.threads, feed), "qcomp": own.bind(feed).run}
        times = interleave(sides, request.runs)
        steps = own.profile(feed, runs=max(3, min(100, times.runs("qcomp"))))
        notes = batch_notes(source)
        if (raw := raw_images(samples, *request.images[:2])) is not None:
            notes.append(f"{raw.message} ({raw.code})")
        notes += [
            f"output {output.name}: {output.unlike} elements are NaN or infinite on one side alone; its errors leave "
            "them out"
            for output in outputs
            if output.unlike
        ]
        report: CalibrationReport | None = None
        if calibration is not None:
            remade, report = _calibration(request, graph, calibration, samples, labels, own, reference, progress)
            same = _is_own(remade, own, feed, request.graph is not None, notes)
            if integer is None and same:
                integer = remade
        study, plan = _layers(request, graph, integer, samples, own, notes, progress)
        memory = own.info.arena_bytes + own.info.weights_bytes
        return Comparison(
            model=str(request.model),
            model_precision="quantized" if is_quantized(source) else "float32",
            artifact=str(request.artifact),
            info=own.info,
            samples=total,
            threads=own.threads,
            float_side=Side(
                *_times(times, "onnxruntime"), model_bytes(request.model), None,
                resident("onnxruntime", runnable, own.threads, feed), float_cost(graph),
            ),
            int8_side=Side(
                *_times(times, "qcomp"), request.artifact.stat().st_size, memory,
                resident("qcomp", request.artifact, own.threads, feed, request.level), artifact_cost(own.info),
            ),
            speedup=times.median("onnxruntime") / times.median("qcomp"),
            decided=decided,
            outputs=outputs,
            checks=checks,
            steps=step_figures(own.info, steps, study),
            islands=tuple(own.info.metadata.get("islands", ())),
            study=study,
            edges=_edges(integer) if study is not None and integer is not None else (),
            plan=plan,
            calibration=report,
            front=candidates,
            notes=tuple(notes),
        )  # fmt: skip


def _read_model(request: Request, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The model with the shapes of the artifact, where they fit its inputs."""
    try:
        return read_graph(request.model, shapes)
    except QcompError as error:
        if request.shapes:
            raise
        try:
            return read_graph(request.model, {})  # what differs is said when inputs are compared
        except QcompError:
            raise error from None


def _read_own_graph(path: Path, info: ArtifactInfo) -> Graph:
    """The artifact's integer graph."""
    if path.suffix != ".qir":
        raise QcompError(
            "this is no .qir text", where=f"--graph {path}", fix="give what `qcomp compile --save-graph` wrote"
        )
    graph = read_graph(path, {})
    check_own_graph(graph, info, str(path))
    return graph


def _runnable(model: Path, graph: Graph, folder: Path) -> Path:
    """A file that onnxruntime takes: the model, or its ONNX form if it is a .qir text."""
    if model.suffix != ".qir":
        return model
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(graph).SerializeToString())
    return path


def _times(times: Timings, side: str) -> tuple[float, float, int]:
    return times.median(side), times.least(side), times.runs(side)


def _calibration(
    request: Request,
    graph: Graph,
    calibration: Samples,
    samples: Samples,
    labels: NDArray[np.int64] | None,
    own: Model,
    reference: FloatModel,
    progress: Progress,
) -> tuple[Graph, CalibrationReport]:
    def judged(path: Path) -> Any:
        with load(path, own.threads) as made:
            return judge(reference, made, samples, labels, request.class_axis)

    options = Options(method=request.method, effort=request.effort, per_tensor=request.per_tensor)
    target = own.info.target
    return study_calibration(
        graph, calibration, samples, options, target, judged, partial(progress, "calibrations")
    )


def _is_own(remade: Graph, own: Model, feed: Mapping[str, Any], has_graph: bool, notes: list[str]) -> bool:
    """Whether the graph made from the calibration data is the artifact's; if not, what its figures are is said."""
    from qcomp.reports.compare.layers import gives_bits

    if gives_bits(remade, feed, own.run(feed)):
        return True
    notes.append(
        "the artifact was not compiled from this calibration data with these options alone (a mix of precisions and "
        "--dynamic are others): the figures of calibration are those of artifacts that are, not of this one"
        + ("" if has_graph else "; without --graph GRAPH.qir there are no errors of layers")
    )
    return False


def _layers(
    request: Request,
    graph: Graph,
    integer: Graph | None,
    samples: Samples,
    own: Model,
    notes: list[str],
    progress: Progress,
) -> tuple[LayerStudy | None, ArenaPlan | None]:
    if integer is None:
        if request.graph is None and request.calibrate is None:
            notes.append(
                "without the integer graph (compile --save-graph, compare --graph) or --calibrate DATA there are no "
                "errors of layers"
            )
        return None, None
    chosen = list(itertools.islice(iter(samples), request.layer_samples))
    outputs = [own.run(sample) for sample in chosen]
    where = str(request.graph or request.calibrate)
    study = study_layers(
        graph, integer, chosen, outputs, where, own.threads, lambda done: progress("layers", done, len(chosen))
    )
    plan = arena_plan(integer, own.info)
    if plan is None:
        notes.append("the memory plan is not shown: the artifact follows a tuning, or is of another version")
    return study, plan


def _edges(graph: Graph) -> tuple[tuple[int, int], ...]:
    """Which node's result goes into which node, by their places in the graph's order."""
    place = {node: index for index, node in enumerate(graph.nodes)}
    found = {
        (place[v.producer], place[node])
        for node in graph.nodes
        for v in node.inputs
        if v is not None and v.producer is not None
    }
    return tuple(sorted(found))
