"""The driver: model in, artifact out, one arrow of the road after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from qcomp.bands import Banded, banded
from qcomp.codegen.backends import BACKENDS, check_backend, check_followed, table_of
from qcomp.codegen.build import build_library
from qcomp.codegen.c.levels import generate_levels
from qcomp.codegen.c.package import Options as SourceOptions
from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.image import image_tensors, most_arena
from qcomp.codegen.toolchain import replace_folder
from qcomp.codegen.tune.file import Tuning, read_tuning
from qcomp.errors import QcompError
from qcomp.frontends.onnx import load_onnx
from qcomp.ir.graph import Graph
from qcomp.ir.onnx_export import to_onnx
from qcomp.ir.types import DType
from qcomp.passes.adjust_products import AdjustProducts
from qcomp.passes.base import Pass
from qcomp.passes.canonicalize import canonicalization
from qcomp.passes.channels_last import ChannelsLast
from qcomp.passes.choose_precision import ChoosePrecision
from qcomp.passes.columns_to_rows import ColumnsToRows
from qcomp.passes.common_subexpressions import CommonSubexpressions
from qcomp.passes.dead_code import DeadCode
from qcomp.passes.expand_attention import ExpandAttention
from qcomp.passes.fit_accumulators import FitAccumulators
from qcomp.passes.fixed_requantize import FixedRequantize
from qcomp.passes.fold_constants import FoldConstants
from qcomp.passes.fold_fake_quant import FoldFakeQuant
from qcomp.passes.fold_integer_functions import FoldIntegerFunctions
from qcomp.passes.fuse_quantize_transpose import FuseQuantizeTranspose
from qcomp.passes.fuse_requantize import FuseRequantize
from qcomp.passes.fuse_residual import FuseResidual
from qcomp.passes.fuse_tables import FuseTables
from qcomp.passes.hoist_weight_movement import HoistWeightMovement
from qcomp.passes.integer_edges import IntegerEdges
from qcomp.passes.integer_regions import is_product
from qcomp.passes.manager import Checker, PassRecord, run_passes
from qcomp.passes.precision import read_precision
from qcomp.passes.prove_accumulators import ProveAccumulators
from qcomp.passes.quantization_plan import plan_quantization
from qcomp.passes.quantize_dynamically import QuantizeDynamically
from qcomp.passes.quantize_state import QuantizeState
from qcomp.passes.remove_no_ops import RemoveNoOps
from qcomp.passes.shorten_multipliers import ShortenMultipliers
from qcomp.passes.signed_edges import SignedEdges
from qcomp.passes.sink_transposes import SinkTransposes
from qcomp.passes.tighten_clamps import TightenClamps
from qcomp.passes.trivial_transposes import TrivialTransposes
from qcomp.quantize.attention_tails import long_tails, with_float_attention
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.choice import choose_ranges
from qcomp.quantize.grids import grid_passes
from qcomp.quantize.inputs import inputs_of
from qcomp.quantize.observed import Observed, observe
from qcomp.quantize.quality import Quality
from qcomp.quantize.refinement import refine
from qcomp.quantize.samples import Data, samples_of
from qcomp.quantize.trial import tried
from qcomp.reports.arithmetic import check_arithmetic
from qcomp.reports.backends import backend_coverage
from qcomp.reports.coverage import Coverage, coverage, int8_advice
from qcomp.reports.memory import budget_of, check_memory
from qcomp.targets import Target, levels, native
from qcomp.targets import target as target_named

if TYPE_CHECKING:
    import onnx

    from qcomp.confirmation import Confirmed
    from qcomp.quantize.goals import Goal
    from qcomp.quantize.judging import Judging
    from qcomp.quantize.mixes import Search

Progress = Callable[[str, int, int], None]

EFFORTS = ("normal", "high")
REQUANTIZE = ("float", "fixed")
IO = ("float", "int8")
# As a precision: search for one.
AUTO = "auto"


@runtime_checkable
class Tuned(Protocol):
    """What carries a tuning: the result of `qcomp.tune`."""

    @property
    def tuning(self) -> Tuning: ...


@dataclass(frozen=True)
class Options:
    """How to compile; the fields are the command line's options.

    `dynamic`: products with constant float weights quantize their input at run time, without calibration data.
    `levels` names which of the targets that the target carries go into the artifact beside it; none named: all.
    `effort` "high" rounds weights by what that does to results, for some time more ("normal": to the nearest).
    `backend` makes the code of layers: "c", "tvm" (C for what TVM does not compute), or "auto", whichever is faster as
    `tuning` says.
    `tuning` is what `qcomp.tune` measured for the target, or the file that it is in.
    `precision` maps names of nodes to "int8", "int16" (of the activations that they read) or "float32", or is the JSON
    file of such a mapping; "auto" searches for one that reaches the `goal`, as `judging` says.
    `requantize` is the arithmetic of rounding, "float" or "fixed", and `io` says whether the model's inputs and
    outputs are as in the model ("float") or the int8 that it computes with ("int8"); "" for both: what fits the target.
    `max_ram` and `max_rom` bound bytes of memory; None: what the target has, if it says so.
    """

    method: str = "auto"
    effort: str = "normal"
    per_tensor: bool = False
    dynamic: bool = False
    require_int8: bool = False
    check_passes: bool = False
    backend: str = "c"
    tuning: Tuning | Tuned | str | Path | None = None
    precision: Mapping[str, str] | str | Path | None = None
    goal: Goal | None = None
    judging: Judging | None = None
    requantize: str = ""
    io: str = ""
    max_ram: int | None = None
    max_rom: int | None = None
    cc: str | None = None
    levels: tuple[str, ...] = ()
    progress: Progress | None = field(default=None, compare=False)
    on_pass: Callable[[PassRecord], None] | None = field(default=None, compare=False)
    print_after: Callable[[Pass, Graph], None] | None = field(default=None, compare=False)
    on_calibration: Callable[[Calibration], None] | None = field(default=None, compare=False)
    on_quality: Callable[[Quality], None] | None = field(default=None, compare=False)
    on_bands: Callable[[Banded], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise QcompError(f"unknown effort {self.effort!r}", where="Options", fix=f"use {' or '.join(EFFORTS)}")
        for name, value, known in (("requantize", self.requantize, REQUANTIZE), ("io", self.io, IO)):
            if value and value not in known:
                raise QcompError(f"unknown {name} {value!r}", where="Options", fix=f"use {' or '.join(known)}")
        if self.backend not in BACKENDS:
            raise QcompError(
                f"unknown back end {self.backend!r}", where="Options", fix=f"use {', '.join(BACKENDS)}"
            )
        if self.io == "int8" and self.precision == AUTO:
            raise QcompError(
                "a search for precisions compares float results", where="Options.io",
                fix="search first, save the precisions, and give their file",
            )  # fmt: skip
        if self.require_int8 and self.precision == AUTO:
            raise QcompError(
                "a search for precisions may leave layers float32", where="Options.require_int8",
                fix="leave it out, or search first, save the precisions, and give their file",
            )  # fmt: skip
        if isinstance(self.levels, str):
            raise QcompError(
                f"levels is the text {self.levels!r}, not a tuple of names", where="Options",
                fix=f"give levels=({self.levels!r},)",
            )  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """A compiled model: the integer graph, what runs on what, and the C sources made from it.

    `target` is what the artifact needs at least; `package.levels` are the targets that it has code for, if several.
    `search` and `confirmed` are there if its mix of precisions was searched for.
    """

    graph: Graph = field(repr=False)
    coverage: Coverage
    target: Target
    package: SourcePackage = field(repr=False)
    options: Options
    search: Search | None = field(default=None, repr=False)
    confirmed: Confirmed | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        held = ", ".join(level.name for level in self.package.levels) or self.target.name
        share = f"{self.coverage.integer_share:.1%} of its products in int8"
        return f"<qcomp.Artifact {self.graph.name!r} for {held}: {share}>"

    @property
    def metadata(self) -> Mapping[str, object]:
        return self.package.metadata

    @property
    def backend_coverage(self) -> Mapping[str, object] | None:
        """What TVM computes, and what C does and why; None where the back end is C alone."""
        return backend_coverage(self.package, self.options.backend)

    def save(self, path: str | Path) -> Path:
        """Compiles the C sources and writes the shared library, in one step; QcompError when that fails."""
        return build_library(self.package, Path(path), self.options.cc)

    def save_sources(self, folder: str | Path) -> Path:
        """Writes the C source package for people: build file, readme and example included."""
        options = SourceOptions(form="c", islands=_island_rows(self.coverage))
        held = levels(self.target, self.options.levels)
        tuning = read_tuning_of(self.options, held)
        tables = partial(table_of, self.options.backend)
        package = generate_levels(self.graph, held, options, tuning=tuning, tables=tables)
        return replace_folder(Path(folder), package.files)


def compile(
    model: str | Path | onnx.ModelProto | Graph,
    *,
    target: str = "native",
    calibration: Data | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    options: Options = Options(),
) -> Artifact:
    """Compiles an ONNX model, or a graph that `import_model` gave, for a target.

    `calibration` holds samples: an array for a model with one input, a mapping from input name to array (the first
    axis counts samples), a sequence of such mappings, or what `qcomp.quantize.samples.load_samples` gives.  `shapes`
    binds dynamic dimensions.  Raises QcompError for whatever the user can mend.
    """
    machine = native() if target == "native" else target_named(target)
    held = levels(machine, options.levels)
    tuning = read_tuning_of(options, held)
    check_backend(options.backend, held, measured=tuning is not None)
    options = replace(
        options, tuning=tuning, requantize=options.requantize or machine.requantize,
        io=options.io or IO[machine.requantize == "fixed"],
    )  # fmt: skip
    _report(options, "import", 0, 1)
    graph = model if isinstance(model, Graph) else import_model(model, shapes)
    if options.precision == AUTO:
        from qcomp.analysis import compile_mix

        return compile_mix(graph, calibration, machine, options, partial(_lowered, graph, calibration, machine, held))
    return _lowered(graph, calibration, machine, held, options)


def _lowered(
    graph: Graph, calibration: Data | None, machine: Target, held: Sequence[Target], options: Options,
    observed: Observed | None = None,
) -> Artifact:  # fmt: skip
    _report(options, "quantize", 0, 1)
    graph = quantize(graph, calibration, options, observed)
    found = check_coverage(graph, options)
    graph = _run(graph, arithmetic_passes(options), options)
    check_arithmetic(graph, machine)
    tuning = read_tuning_of(options, held)
    _report(options, "generate", 0, 1)
    source = SourceOptions(islands=_island_rows(found))
    package = generate_levels(graph, held, source, tuning=tuning, tables=partial(table_of, options.backend))
    check_followed(options.backend, package.tuned)
    graph, package = _within_ram(graph, package, options)
    check_memory(package, options.max_ram, options.max_rom)
    return Artifact(graph, found, machine, package, options)


def _within_ram(graph: Graph, package: SourcePackage, options: Options) -> tuple[Graph, SourcePackage]:
    """The graph with its first layers in bands of rows, where RAM is short and that helps."""
    limit = budget_of(package, options.max_ram, options.max_rom).ram
    if limit is None:
        return graph, package
    room = limit - (package.ram_bytes - package.arena_bytes)
    if options.max_ram is None:
        room = min(room, most_arena(package.target, image_tensors(package)))
    if package.arena_bytes <= room:
        return graph, package
    found = banded(graph, package.target, room, options.progress)
    if found is None or found.arena_bytes >= package.arena_bytes:
        return graph, package
    if options.on_bands is not None:
        options.on_bands(found)
    _report(options, "generate", 0, 1)
    source = SourceOptions(islands=package.metadata["islands"])
    tables = partial(table_of, options.backend)
    return found.graph, generate_levels(found.graph, [package.target], source, tables=tables)


def read_tuning_of(options: Options, held: Sequence[Target]) -> Tuning | None:
    """The tuning that the options give for code of these targets, read if it is a file; QcompError when it is for
    another target or back end, or there are several."""
    if options.tuning is None:
        return None
    given = options.tuning.tuning if isinstance(options.tuning, Tuned) else options.tuning
    if not isinstance(given, Tuning | str | Path):
        raise QcompError(
            f"a {type(given).__name__} is no tuning", where="Options.tuning",
            fix="give what qcomp.tune returns, or the path of its file",
        )  # fmt: skip
    tuning = given if isinstance(given, Tuning) else read_tuning(Path(given))
    where = "tuning" if isinstance(given, Tuning) else str(given)
    tuning.check_levels([target.name for target in held], where)
    tuning.check_backend(options.backend, where)
    return tuning


def _report(options: Options, stage: str, done: int, total: int) -> None:
    if options.progress is not None:
        options.progress(stage, done, total)


def _island_rows(found: Coverage) -> tuple[Mapping[str, str], ...]:
    return tuple({"node": i.node, "op": i.op, "reason": i.reason, "advice": i.advice} for i in found.islands)


def import_model(model: str | Path | onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """The float (or quantized) graph of an ONNX file or proto, canonical."""
    return load_onnx(model, shapes or {})


def canonical(graph: Graph, options: Options = Options()) -> Graph:
    """The graph in its simplest form, whose nodes' names are those of `Options.precision`."""
    return _run(graph, canonicalization(), options)


def quantize(
    graph: Graph, samples: Data | None, options: Options = Options(), observed: Observed | None = None
) -> Graph:
    """Float or quantized graph to integer graph.

    `samples` calibrates what the model itself does not quantize; without them that stays float.  Where it leaves
    nothing open, they are not read, nor where they were `observed` before.
    """
    graph = _chosen(graph, options)
    if options.dynamic:
        if samples is not None:
            raise QcompError(
                "dynamic quantization takes no calibration data", where="Options.dynamic", fix="leave one of them out"
            )
        graph = _run(graph, [QuantizeDynamically(options.per_tensor)], options)
    given = is_quantized(graph)
    if not given:
        tails = long_tails(graph, samples) if observed is None else observed.tails
        graph = with_float_attention(graph, tails)
    plan = plan_quantization(graph)
    float_weights = any(is_product(node) and node.input(1).is_constant for node in plan.integer)
    if samples is not None and (plan.observed or float_weights or not given):
        graph = _put_on_grids(graph, samples, [v.name for v in plan.observed], not given, options, observed)
    return _run(graph, integer_lowering(own_scales=not given), options)


def _put_on_grids(
    graph: Graph, samples: Data, points: Sequence[str], own_scales: bool, options: Options, observed: Observed | None
) -> Graph:
    """The graph with fake quantization of ranges that the samples give, and what makes up for its errors.

    own_scales: nothing in the graph came quantized, so that channels, biases and weights may be adjusted.
    """
    if observed is None:
        data = samples_of(samples, inputs_of(to_onnx(graph)))
        observed = observe(
            graph, data, points, options.method, adjust=own_scales, per_tensor=options.per_tensor,
            progress=partial(_report, options, "calibrate"),
        )  # fmt: skip
    seen = observed.of(points)
    calibration, few, equalized = seen.calibration, seen.few, seen.equalized
    graph = _run(graph, seen.equalization(), options)
    if options.on_calibration is not None:
        options.on_calibration(calibration)
    ranges = {name: (r.lo, r.hi) for name, r in calibration.ranges().items()}
    choices = choose_ranges(graph, plan_quantization(graph), calibration, few) if options.method == "auto" else ()
    ranges.update((choice.tensor, choice.range) for choice in choices)
    exact = graph
    graph = _run(graph, grid_passes(ranges, options.per_tensor, calibration.extremes()), options)
    if few:
        found = refine(exact, graph, few, options.effort == "high", partial(_report, options, "correct"))
        trial = tried(exact, graph, found, seen.held)
        graph = _run(graph, [AdjustProducts(trial.kept.biases, trial.kept.weights)], options)
        if options.on_quality is not None:
            options.on_quality(Quality(equalized, choices, found, trial))
    return _run(graph, [QuantizeState(options.per_tensor)], options)


def read_precision_of(options: Options) -> dict[str, str]:
    """The precision that the options choose for nodes, read if it is a file."""
    given = options.precision
    if given == AUTO:
        raise QcompError(
            "only compile and analyze search for a mix", where="precision auto",
            fix="save the one that they find, and give its file",
        )  # fmt: skip
    return dict(given) if isinstance(given, Mapping) else {} if given is None else read_precision(Path(given))


def _chosen(graph: Graph, options: Options) -> Graph:
    """The canonical graph with what the options choose for it noted: precision, what goes in and out."""
    graph = _choose_precision(canonical(graph, options), options)
    if options.io == "int8":
        graph.attrs["io"] = "int8"
    return graph


def _choose_precision(graph: Graph, options: Options) -> Graph:
    precision = read_precision_of(options)
    if not precision:
        return graph
    if is_quantized(graph):
        raise QcompError(
            "the model is quantized already, so no precision can be chosen", where="precision",
            fix="give the float model, or leave the precision out",
        )  # fmt: skip
    given = options.precision
    named = ChoosePrecision(precision=precision) if isinstance(given, Mapping) else ChoosePrecision(file=str(given))
    return _run(graph, [named], options)


def preview(graph: Graph, options: Options = Options()) -> Graph:
    """The integer graph before there is data: every range is [-1, 1], so it shows what runs on integers, no more."""
    graph = _chosen(graph, options)
    if not is_quantized(graph):
        ranges = {value.name: (-1.0, 1.0) for value in plan_quantization(graph).observed}
        graph = _run(graph, [*grid_passes(ranges, options.per_tensor), QuantizeState(options.per_tensor)], options)
    return _run(graph, [*integer_lowering(), *arithmetic_passes(options)], options)


def integer_lowering(own_scales: bool = True) -> list[Pass]:
    """Passes from a graph with fake quantization to integer ops.

    own_scales: qcomp chose them, so that multipliers may be rounded and sums fused; integers of a quantized model
    stay as they are."""
    return [
        SignedEdges(),
        ChannelsLast(),
        SinkTransposes(),
        TrivialTransposes(),
        HoistWeightMovement(),
        FoldConstants(),
        CommonSubexpressions(),
        FoldFakeQuant(),
        FuseRequantize(),
        ExpandAttention(),
        FoldIntegerFunctions(),
        FuseTables(),
        ColumnsToRows(),
        RemoveNoOps(),
        FoldConstants(quantized=True),  # weights of ops that stayed float
        CommonSubexpressions(),
        DeadCode(),
        *([FuseResidual()] if own_scales else []),
        FitAccumulators(),
        *([ShortenMultipliers()] if own_scales else []),
        TightenClamps(),
        FuseQuantizeTranspose(),
        ProveAccumulators(),
    ]


def arithmetic_passes(options: Options) -> list[Pass]:
    """Passes that bring an integer graph to the arithmetic and to the edges that the options say."""
    passes: list[Pass] = []
    if options.io == "int8":
        passes += [IntegerEdges(), TrivialTransposes()]
    if options.requantize == "fixed":
        passes.append(FixedRequantize())
    return passes


def is_quantized(graph: Graph) -> bool:
    """Whether the model came with quantization of its own."""
    names = {"fake_quant", "quantize", "dequantize", "dynamic_quantize", "matmul_integer", "conv_integer"}
    return any(node.op.name in names for node in graph.nodes)


def check_coverage(graph: Graph, options: Options) -> Coverage:
    """Coverage of an integer graph; QcompError under require_int8 when anything stays float."""
    found = coverage(graph)
    if options.require_int8 and found.islands:
        named = ", ".join(f"{i.op} {i.node!r} ({i.reason})" for i in found.islands[:4])
        more = ", ..." if len(found.islands) > 4 else ""
        count = "1 op stays" if len(found.islands) == 1 else f"{len(found.islands)} ops stay"
        raise QcompError(f"{count} float32: {named}{more}", fix=int8_advice(found.islands))
    return found


def _run(graph: Graph, passes: Sequence[Pass], options: Options) -> Graph:
    floats = all(v.dtype in (DType.F32, DType.I64, DType.I32) for v in graph.inputs)
    check = Checker.random(graph) if options.check_passes and floats else None
    return run_passes(graph, passes, check=check, on_pass=options.on_pass, print_after=options.print_after)
