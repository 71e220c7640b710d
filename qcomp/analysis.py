"""`qcomp.analyze`: what int8 costs in each layer, and the search for a mix of precisions that `compile` follows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcomp.codegen.toolchain import replace_file
from qcomp.compiler import Artifact, Options, canonical, import_model, is_quantized
from qcomp.confirmation import Attempts, Confirmed, Judged
from qcomp.errors import QcompError
from qcomp.ir.graph import Graph
from qcomp.ir.onnx_export import to_onnx
from qcomp.passes.manager import run_passes
from qcomp.passes.precision import DEFAULT, precision_text
from qcomp.passes.quantization_plan import plan_quantization
from qcomp.quantize.attention_tails import long_tails, with_float_attention
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.choice import choose_ranges
from qcomp.quantize.distribute import Cluster
from qcomp.quantize.fidelity import Fidelity, SampleFidelity
from qcomp.quantize.float_runs import outputs_on, samples_that_run
from qcomp.quantize.goals import DEFAULT_DROP, Goal
from qcomp.quantize.grids import possible_points
from qcomp.quantize.inputs import inputs_of
from qcomp.quantize.judging import Judging
from qcomp.quantize.labels import Labels, check_classes, check_count, labels_of
from qcomp.quantize.layers import ALONE, WEIGHTS, WITHOUT, Layer, Study, check_has_layers
from qcomp.quantize.mixes import Choice, Harm, Mix, OutOfReach, Search, search
from qcomp.quantize.observed import Observed, observe
from qcomp.quantize.onnxruntime_session import Arrays
from qcomp.quantize.samples import Data, samples_of
from qcomp.quantize.sensitivity import Judge, Measured, Sensitivity, Variant, measure, sensitivities
from qcomp.reports.costs import Costs, modelled_costs
from qcomp.targets import Target
from qcomp.targets import target as target_named

if TYPE_CHECKING:
    import onnx

_DEFAULTS = Options()
_AS_CALIBRATED = Judging()

# Samples that rank the layers, at most; half of them where there are fewer than twice as many.
RANKING = 32
# Artifacts that are built at most until one confirms what its simulation promised.
_BUILDS = 4


@dataclass(frozen=True)
class Analysis:
    """Layers in the order of the graph, each with its sensitivity; everything in int8, and float32 itself.

    `search` is there if a goal was given; `wider` are the layers that int16 may be chosen for.
    """

    layers: tuple[Layer, ...]
    sensitivities: tuple[Sensitivity, ...]
    int8: Fidelity
    float32: Fidelity
    costs: Costs
    target: Target
    samples: int
    search: Search | None = None
    wider: tuple[str, ...] = ()

    def __repr__(self) -> str:
        measured = f"{len(self.layers)} layers on {self.samples} samples"
        return f"<qcomp.analyze of {measured}: all int8 {self.int8.sqnr_db:.1f} dB>"

    def ranked(self) -> list[Sensitivity]:
        """The layers that bring most noise alone first."""
        return sorted(self.sensitivities, key=lambda row: row.alone.sqnr_db)


@dataclass(frozen=True)
class _Setup:
    """A model with its ranges, and the samples that judge it."""

    study: Study
    observed: Observed
    samples: Sequence[Arrays]
    labels: Labels | None
    judging: Judging
    threads: int
    cluster: Cluster | None
    options: Options = field(compare=False)

    def measured(self, variants: Sequence[Variant], indices: Sequence[int]) -> Measured:
        """Variants of the model on some of the samples."""
        here = [self.samples[i] for i in indices]
        labels = None if self.labels is None else tuple(self.labels[i] for i in indices)
        progress = partial(_report, self.options, "analyze")
        if self.cluster is not None:
            return self.cluster.measure(self.study, variants, here, labels, self.judging.answers, progress)
        return measure(self.study, variants, here, labels, self.judging.answers, self.threads, progress)


def analyze(
    model: str | Path | onnx.ModelProto | Graph,
    *,
    calibration: Data,
    target: str = "native",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    options: Options = _DEFAULTS,
    judging: Judging = _AS_CALIBRATED,
    goal: Goal | None = None,
) -> Analysis:
    """What int8 costs the output in each layer of a float model: the layer alone, and everything but it.

    model, calibration, shapes: as `qcomp.compile` takes them; of the options the method of calibration, `per_tensor`
    and `progress` count.  With a goal a mix of precisions is searched for besides.  Raises QcompError for whatever the
    user can mend, a goal that no mix reaches included.
    """
    machine = target_named(target)
    _check_goal(goal, machine)
    _report(options, "import", 0, 1)
    graph = canonical(model if isinstance(model, Graph) else import_model(model, shapes), options)
    with _prepared(graph, calibration, options, judging) as setup:
        names = [layer.name for layer in setup.study.layers]
        variants = [(kind, name) for kind in (ALONE, WITHOUT) for name in names]
        measured = setup.measured(variants, range(len(setup.samples)))
        costs = modelled_costs(setup.study.graph, machine)
        rows = sensitivities(setup.study, measured)
        found = None
        if goal is not None:
            few = {variant: _at(scores, _ranking(setup)) for variant, scores in measured.variants.items()}
            found = _search(setup, _harm(setup, few), costs, goal)
        int8, float32 = Fidelity.of(measured.int8), Fidelity.of(measured.float32)
        return Analysis(
            setup.study.layers, tuple(rows), int8, float32, costs, machine, len(setup.samples), found,
            setup.study.wider,
        )  # fmt: skip


def compile_mix(
    graph: Graph, calibration: Data | None, target: Target, options: Options,
    build: Callable[[Options, Observed], Artifact],
) -> Artifact:  # fmt: skip
    """The artifact of a mix that reaches the goal of the options, for an imported float graph.

    Where everything in int8 reaches it, as compiled and run here, that is the mix.  Else half of the samples rank the
    layers; a mix has to reach the goal on all samples and on the other half.  Mixes are measured in simulation, which
    leaves out the correction of biases; the best one is built (`build`), on what was observed here,
    and where the target runs here the artifact itself has to reach the goal, else the next better one is built.
    """
    if calibration is None:
        raise QcompError("there is no calibration data", where="precision auto", fix="give samples (--calibrate DATA)")
    goal, judging = default_goal(options.goal or Goal()), options.judging or Judging()
    _check_goal(goal, target)
    with _prepared(canonical(graph, options), calibration, options, judging) as setup:
        names = [layer.name for layer in setup.study.layers]
        costs = modelled_costs(setup.study.graph, target)
        judged = Judged(setup.study.graph, setup.samples, setup.labels, judging.answers, setup.threads)
        attempts = Attempts(
            goal, judged, lambda mix: build(replace(options, precision=mix), setup.observed),
            partial(_report, options, "confirm"),
        )  # fmt: skip
        plain = dict.fromkeys(names, DEFAULT)
        if goal.bounds_accuracy and (artifact := attempts.of(plain)) is not None and artifact.confirmed is not None:
            return replace(artifact, search=_all_int8(names, goal, costs, artifact.confirmed, judged.float32))
        measured = setup.measured([(ALONE, name) for name in names], _ranking(setup))
        try:
            found = _search(setup, _harm(setup, measured.variants), costs, goal)
        except OutOfReach:
            # Times are estimates; what runs here may be faster.
            artifact = None if goal.bounds_accuracy else attempts.of(plain)
            if artifact is None or artifact.confirmed is None:
                raise
            return replace(artifact, search=_all_int8(names, goal, costs, artifact.confirmed, judged.float32))
        for mix in found.candidates(_BUILDS):
            precision = replace(found, best=mix).precision()
            artifact = attempts.of(precision)
            if artifact is not None:
                return replace(artifact, search=attempts.marked(replace(found, best=mix)))
        raise QcompError(
            f"no mix reaches {goal} as compiled: {attempts.last}", where="precision auto", fix="loosen a bound"
        )


def _all_int8(names: Sequence[str], goal: Goal, costs: Costs, confirmed: Confirmed, float32: Fidelity) -> Search:
    """The search that ended where it begins."""
    found = confirmed.fidelity
    mix = Mix((), (), found, found, costs.milliseconds({}), costs.bytes({}), True, True)
    return Search(goal, mix, (mix,), float32, tuple(names))


def save_precision(found: Search, path: str | Path) -> Path:
    """Writes the mix as the file that `compile --precision` takes, in one step."""
    replace_file(Path(path), precision_text(found.precision()).encode(), 0o666)
    return Path(path)


def default_goal(goal: Goal) -> Goal:
    """The goal, or the default one if it bounds nothing."""
    return goal if goal.bounds_accuracy or goal.bounds_costs else Goal(max_drop=DEFAULT_DROP)


def _harm(setup: _Setup, alone: Mapping[Variant, Sequence[SampleFidelity]]) -> dict[str, Harm]:
    """The noise of each layer alone, as measured on the samples that rank, and what int16 would leave of it."""
    weights = setup.measured([(WEIGHTS, name) for name in setup.study.wider], _ranking(setup)).variants
    return {
        layer.name: Harm(
            _noise(alone[ALONE, layer.name]),
            _noise(weights[WEIGHTS, layer.name]) if (WEIGHTS, layer.name) in weights else None,
        )
        for layer in setup.study.layers
    }


def _search(setup: _Setup, harm: Mapping[str, Harm], costs: Costs, goal: Goal) -> Search:
    everything = list(range(len(setup.samples)))
    ranking = set(_ranking(setup))
    held = [i for i in everything if i not in ranking] or everything
    reference = outputs_on(setup.study.graph, setup.samples, setup.threads)
    labels = [None] * len(reference) if setup.labels is None else setup.labels
    judge = Judge(reference, labels, setup.judging.answers)

    def fidelity(choice: Choice) -> tuple[Fidelity, Fidelity]:
        graph = setup.study.mixed(choice)
        found = list(map(judge, everything, outputs_on(graph, setup.samples, setup.threads)))
        return Fidelity.of(found), Fidelity.of(_at(found, held))

    plain = list(map(judge, everything, reference))
    names = [layer.name for layer in setup.study.layers]
    return search(
        names, harm, default_goal(goal), costs, fidelity, (Fidelity.of(plain), Fidelity.of(_at(plain, held))),
        lambda looked_at: _report(setup.options, "search", looked_at, 0),
    )  # fmt: skip


def _ranking(setup: _Setup) -> range:
    """The samples that rank the layers; the others have a say of their own on every mix."""
    count = len(setup.samples)
    return range(0, count, max(2, -(-count // RANKING)))


@contextmanager
def _prepared(graph: Graph, calibration: Data, options: Options, judging: Judging) -> Iterator[_Setup]:
    """Calibrates every value that may get a grid, and reads the samples and labels to judge by."""
    if is_quantized(graph):
        raise QcompError(
            "the model is quantized already, so there is nothing to choose", where="analyze", fix="give the float model"
        )
    inputs = inputs_of(to_onnx(graph))
    data = samples_of(calibration, inputs)
    if judging.samples is None:
        samples = list(data)
    else:
        samples = samples_that_run(graph, samples_of(judging.samples, inputs, where="judging samples"))
    if not samples:
        raise QcompError("there is no sample to judge by", fix="give at least one, better 64 or more")
    labels = None if judging.labels is None else labels_of(judging.labels, judging.labels_from)
    if labels is not None:
        check_count(labels, len(samples), judging.labels_from)
        rows = graph.outputs[0].shape
        if rows and rows[-1] > 1:
            check_classes(labels, rows[-1], judging.labels_from)
    threads = judging.threads or len(os.sched_getaffinity(0))
    tails = long_tails(graph, data)
    graph = with_float_attention(graph, tails)
    points = possible_points(graph)
    progress = partial(_report, options, "calibrate")
    with Cluster(judging.scheduler) if judging.scheduler is not None else nullcontext() as cluster:
        calibrated = None if cluster is None else partial(_calibrated, cluster, list(data), options.method, progress)
        observed = observe(
            graph, data, points, options.method, adjust=True, per_tensor=options.per_tensor, progress=progress,
            calibrated=calibrated,
        )  # fmt: skip
        observed = replace(observed, tails=tails)
        graph = run_passes(graph, observed.equalization())
        seen = observed.calibration
        ranges = {name: (r.lo, r.hi) for name, r in seen.ranges().items()}
        if options.method == "auto":
            choices = choose_ranges(graph, plan_quantization(graph), seen, observed.few)
            ranges.update((choice.tensor, choice.range) for choice in choices)
        study = Study(graph, ranges, options.per_tensor, seen.extremes())
        check_has_layers(study)
        yield _Setup(study, observed, samples, labels, judging, threads, cluster, options)


def _calibrated(
    cluster: Cluster, samples: Sequence[Arrays], method: str, progress: Callable[[int, int], None], graph: Graph,
    points: Sequence[str],
) -> Calibration:  # fmt: skip
    return cluster.calibrate(to_onnx(graph), samples, points, method, progress)


def _check_goal(goal: Goal | None, target: Target) -> None:
    if goal is not None and goal.max_latency is not None and not target.rates:
        raise QcompError(
            f"target {target.name} has no rates to estimate times by", where="max_latency",
            fix="bound the size instead, or name a target that has rates",
        )  # fmt: skip


def _noise(found: Sequence[Any]) -> float:
    """Energy of the difference by that of the float outputs."""
    signal = math.fsum(sample.signal for sample in found)
    return math.fsum(sample.noise for sample in found) / signal if signal else 0.0


def _at(found: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    return [found[i] for i in indices]


def _report(options: Options, stage: str, done: int, total: int) -> None:
    if options.progress is not None:
        options.progress(stage, done, total)
