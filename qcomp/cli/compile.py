"""`qcomp compile`: a model goes in, an artifact or a C source package comes out."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import (
    Backend,
    BackendName,
    Calibrate,
    Compiler,
    EffortLevel,
    ImageMean,
    ImageOrder,
    ImageResize,
    ImageSize,
    ImageStd,
    Json,
    Method,
    ModelPath,
    Order,
    PerTensor,
    Quiet,
    Resize,
    Shapes,
    TargetName,
    TuningFile,
)
from qcomp.cli.goal_options import (
    Decode,
    Ignore,
    LabelsFile,
    MaxDrop,
    MaxLatency,
    MaxSize,
    MinSqnr,
    SavePrecision,
    Scheduler,
    Validate,
)
from qcomp.cli.target_options import IoForm, MaxRam, MaxRom, RequantizeForm

if TYPE_CHECKING:
    from qcomp.bands import Banded
    from qcomp.compiler import Artifact
    from qcomp.ir.graph import Graph
    from qcomp.quantize.calibration import Calibration
    from qcomp.quantize.check import Finding
    from qcomp.quantize.quality import Quality
    from qcomp.quantize.samples import Samples


class Emit(StrEnum):
    """What is written: a shared library, or a folder of C sources."""

    LIB = "lib"
    C = "c"


_MOST_FINDINGS = 8  # shown; they come worst first

Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="OUT", help="The file to write; with --emit c a folder.",
                       show_default=False)
]  # fmt: skip
Dynamic = Annotated[
    bool, typer.Option("--dynamic", help="Quantize the input of matrix products at run time, without calibration data.")
]
Float = Annotated[bool, typer.Option("--float", help="Compile a model that is not quantized as float32.")]
LevelNames = Annotated[
    str | None,
    typer.Option("--levels", metavar="NAME[,NAME]", show_default=False,
                 help="Which of the targets that the target carries, and itself; without it, all."),
]  # fmt: skip
EmitForm = Annotated[Emit, typer.Option("--emit", help="A shared library, or a C source package.")]
RequireInt8 = Annotated[bool, typer.Option("--require-int8", help="Fail if anything stays float32.")]
SaveGraph = Annotated[
    Path | None,
    typer.Option("--save-graph", metavar="GRAPH.qir", show_default=False,
                 help="Write the integer graph too, for `qcomp compare --graph`."),
]  # fmt: skip
CheckPasses = Annotated[
    bool, typer.Option("--check-passes", help="Run the interpreter between passes; fail where a pass changes results.")
]
PrintAfterAll = Annotated[
    bool, typer.Option("--print-after-all", help="Show the graph after each pass, on standard error.")
]

Precision = Annotated[
    str | None,
    typer.Option("--precision", metavar="FILE|auto", show_default=False,
                 help="JSON of layers that stay float32, or search for a mix that reaches a goal."),
]  # fmt: skip


def compile_model(
    model: ModelPath,
    output: Output,
    target: TargetName = "native",
    levels: LevelNames = None,
    calibrate: Calibrate = None,
    shape: Shapes = None,
    float: Float = False,
    dynamic: Dynamic = False,
    method: Method = "auto",
    effort: EffortLevel = "normal",
    per_tensor: PerTensor = False,
    image_mean: ImageMean = None,
    image_std: ImageStd = None,
    image_size: ImageSize = None,
    image_order: ImageOrder = Order.RGB,
    image_resize: ImageResize = Resize.CROP,
    backend: BackendName = Backend.C,
    emit: EmitForm = Emit.LIB,
    tuning: TuningFile = None,
    precision: Precision = None,
    max_drop: MaxDrop = None,
    min_sqnr: MinSqnr = None,
    max_latency: MaxLatency = None,
    max_size: MaxSize = None,
    validate: Validate = None,
    labels: LabelsFile = None,
    decode: Decode = "argmax",
    ignore: Ignore = "",
    save_precision: SavePrecision = None,
    scheduler: Scheduler = None,
    requantize: RequantizeForm = None,
    io: IoForm = None,
    max_ram: MaxRam = None,
    max_rom: MaxRom = None,
    cc: Compiler = None,
    require_int8: RequireInt8 = False,
    save_graph: SaveGraph = None,
    check_passes: CheckPasses = False,
    print_after_all: PrintAfterAll = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compile a model to a shared library or C sources."""
    start = time.perf_counter()
    from qcomp.cli.arguments import check_images_are_read, parse_shapes, raw_images, samples_for
    from qcomp.cli.files import batch_notes, check_input, check_outputs, read_graph, write_file
    from qcomp.cli.goal_options import check_precision_options, goal_of, judging_of, parse_bytes
    from qcomp.cli.mix_report import search_facts
    from qcomp.cli.opt import print_step
    from qcomp.cli.output import print_json
    from qcomp.cli.progress import Stages

    shapes = parse_shapes(shape)
    for path in filter(None, (model, labels)):
        check_input(path)
    given_precision = None if precision in (None, "auto") else Path(precision)
    check_outputs(
        {"-o": output, "--save-graph": save_graph, "--save-precision": save_precision},
        (model, calibrate, tuning, validate, labels, given_precision),
        folder="" if emit is Emit.LIB else "-o",
    )
    images = (image_mean, image_std, image_size, image_order, image_resize)
    check_images_are_read(calibrate, *images)
    goal = goal_of(max_drop, min_sqnr, max_latency, max_size)
    given = {
        "--max-drop": max_drop, "--min-sqnr": min_sqnr, "--max-latency": max_latency, "--max-size": max_size,
        "--validate": validate, "--labels": labels, "--save-precision": save_precision, "--scheduler": scheduler,
        "--decode": None if decode == "argmax" else decode, "--ignore": ignore or None,
    }  # fmt: skip
    check_precision_options(precision, calibrate, given)
    with Stages(quiet) as progress:
        progress("load", 0, 1)
        from qcomp.analysis import save_precision as save_mix
        from qcomp.codegen.backends import check_backend
        from qcomp.codegen.toolchain import find_compiler
        from qcomp.compiler import Options, compile, read_tuning_of
        from qcomp.quantize.observers import method_named
        from qcomp.targets import levels as levels_of
        from qcomp.targets import target as target_named

        # Whatever can be wrong without a look at the model is said before any work.
        machine = target_named(target)
        named = tuple(name.strip() for name in levels.split(",")) if levels is not None else ()
        held = levels_of(machine, named)
        method_named(method)
        Options(effort=effort)
        measured = read_tuning_of(Options(tuning=tuning, backend=backend), held)
        check_backend(backend, held, measured is not None)
        if emit is Emit.LIB:
            machine.compiler_flags(find_compiler(cc).kind)
        progress("import", 0, 1)
        graph = read_graph(model, shapes)
        samples = None
        if calibrate is not None:
            samples = samples_for(graph, calibrate, *images)
        judging = judging_of(graph, validate, labels, decode, ignore, scheduler, 0, images)
        _check_quantization(model, graph, samples, float, dynamic, machine.requantize == "fixed")
        _check_calibration_options(model, samples, method, effort)
        calibrations: list[Calibration] = []
        qualities: list[Quality] = []
        bands: list[Banded] = []
        options = Options(
            method=method,
            effort=effort,
            per_tensor=per_tensor,
            dynamic=dynamic,
            require_int8=require_int8,
            check_passes=check_passes,
            backend=backend,
            tuning=measured,
            precision=precision,
            goal=goal,
            requantize=requantize or "",
            io=io or "",
            max_ram=None if max_ram is None else parse_bytes("--max-ram", max_ram),
            max_rom=None if max_rom is None else parse_bytes("--max-rom", max_rom),
            judging=judging,
            cc=cc,
            levels=named,
            progress=progress,
            on_calibration=calibrations.append,
            on_quality=qualities.append,
            on_bands=bands.append,
            print_after=print_step if print_after_all else None,
        )
        artifact = compile(graph, target=target, calibration=samples, options=options)
        progress("compile C" if emit is Emit.LIB else "write", 0, 1)
        written = artifact.save(output) if emit is Emit.LIB else artifact.save_sources(output)
        if save_graph is not None:
            from qcomp.ir.text import print_graph

            text = print_graph(artifact.graph)
            write_file(save_graph, lambda file: file.write(text.encode()))
        if save_precision is not None and artifact.search is not None:
            save_mix(artifact.search, save_precision)
    if quiet:
        return
    # A search compiles several mixes; the last one is kept.
    raw = raw_images(samples, image_mean, image_std)
    findings = [*([raw] if raw is not None and calibrations else []), *_findings(calibrations[-1:])]
    facts = _facts(artifact, model, written, emit, findings, time.perf_counter() - start)
    facts["quality"] = [line for quality in qualities[-1:] for line in quality.lines()]
    facts["notes"] += batch_notes(graph)
    if artifact.options.io == "int8":
        edges = dict.fromkeys((*artifact.graph.inputs, *artifact.graph.outputs))
        facts["notes"] += [
            f"%{value.name} stays float32, --io int8 or not: what is beside it does not compute in int8 on one grid"
            for value in edges
            if value.dtype.is_float
        ]
    facts["notes"] += [
        f"to fit into RAM, everything up to {found.layer!r} runs in {found.bands} bands of rows: "
        f"{found.work - 1:.1%} more multiply-accumulates"
        for found in bands
    ]
    if samples is not None and not calibrations:
        facts["notes"].append("the model is quantized already: the calibration data was not used")
    elif samples is not None and samples.unused:
        facts["notes"].append(f"keys of the calibration data that are no inputs: {', '.join(samples.unused)}")
    if artifact.search is not None:
        facts["search"] = search_facts(artifact.search, bool(artifact.target.rates), artifact.confirmed)
    facts["backend"] = artifact.backend_coverage
    if facts["backend"] is not None and not any(facts["backend"]["levels"].values()) and backend is Backend.TVM:
        facts["notes"].append("TVM computes no multiply-accumulates of this model: all is as by the back end c")
    facts["tuning"] = None
    if tuning is not None:
        assert artifact.package.tuned is not None
        facts["tuning"] = {"file": str(tuning), **vars(artifact.package.tuned)}
    if json:
        print_json(facts)
    else:
        _show(facts)


def _check_quantization(
    model: Path, graph: Graph, samples: Samples | None, as_float: bool, dynamic: bool, integers_alone: bool
) -> None:
    """A model that is not quantized needs data, or the wish to stay float32, but not both."""
    from qcomp.compiler import is_quantized
    from qcomp.errors import QcompError
    from qcomp.reports.coverage import INTEGER_OPS

    if dynamic and (as_float or samples is not None):
        other = "--float" if as_float else "--calibrate"
        raise QcompError(f"--dynamic and {other} exclude each other", where=str(model), fix="leave one of them out")
    if as_float and samples is not None:
        raise QcompError("--float and --calibrate exclude each other", where=str(model), fix="leave one of them out")
    integer = any(node.op.name in INTEGER_OPS for node in graph.nodes)
    if samples is None and not as_float and not dynamic and not integer and not is_quantized(graph):
        raise QcompError(
            "the model is not quantized, and there is no calibration data",
            where=str(model),
            fix="give --calibrate DATA" if integers_alone else
            "give --calibrate DATA, --dynamic to quantize matrix products at run time, or --float to stay float32",
        )


def _check_calibration_options(model: Path, samples: Samples | None, method: str, effort: str) -> None:
    """What is done with calibration data needs some."""
    from qcomp.errors import QcompError

    for option, value, default in (("--method", method, "auto"), ("--effort", effort, "normal")):
        if samples is None and value != default:
            raise QcompError(
                f"{option} {value} is about calibration data, and there is none", where=str(model),
                fix="give --calibrate DATA, or leave it out",
            )  # fmt: skip


def _findings(calibrations: list[Calibration]) -> list[Finding]:
    from qcomp.quantize.check import check_calibration

    return [finding for calibration in calibrations for finding in check_calibration(calibration)]


def _facts(
    artifact: Artifact, model: Path, written: Path, emit: Emit, findings: list[Finding], seconds: float
) -> dict[str, Any]:
    """What `--json` prints."""
    from qcomp.cli.files import model_bytes

    found, metadata = artifact.coverage, artifact.metadata
    files = [written] if written.is_file() else [f for f in written.rglob("*") if f.is_file()]
    return {
        "output": str(written),
        "emit": str(emit),
        "model": str(model),
        "target": artifact.target.name,
        "levels": [level.name for level in artifact.package.levels],
        **found.facts(),
        "arena_bytes": metadata["arena_bytes"],
        "arena_lower_bound": metadata["arena_lower_bound"],
        "weights_bytes": metadata["weights_bytes"],
        "output_bytes": sum(f.stat().st_size for f in files),
        "memory": _memory(artifact, written) if artifact.target.bare_metal and written.is_file() else None,
        "model_bytes": model_bytes(model),
        "islands": [
            {"node": i.node, "op": i.op, "reason": i.reason, "detail": i.detail, "advice": i.advice, "macs": i.macs}
            for i in found.islands
        ],
        "float_copies": list(found.float_copies),
        "dynamic": list(found.dynamic),
        "findings": [{"code": f.code, "tensor": f.tensor, "message": f.message} for f in findings],
        "notes": [],
        "seconds": round(seconds, 3),
    }


def _memory(artifact: Artifact, image: Path) -> dict[str, int]:
    """What an image takes of the target's flash and RAM, the stack aside, and what there is."""
    from qcomp.codegen.image import flash_bytes

    there = artifact.target.memory
    return {
        "flash_bytes": flash_bytes(image), "flash_there": there["rom"],
        "ram_bytes": artifact.package.ram_bytes, "ram_there": there["ram"],
    }  # fmt: skip


def _show(facts: dict[str, Any]) -> None:
    from qcomp.cli.islands import show_islands, show_precisions
    from qcomp.cli.mix_report import show_search
    from qcomp.cli.output import bytes_text, plural
    from qcomp.reports.backends import backend_text

    for finding in facts["findings"][:_MOST_FINDINGS]:
        print(f"calibration: {finding['message']} ({finding['code']})")
    if len(facts["findings"]) > _MOST_FINDINGS:
        print(f"calibration: {len(facts['findings']) - _MOST_FINDINGS} more findings; --json lists all")
    for line in facts["quality"]:
        print(f"calibration: {line}")
    for note in facts["notes"]:
        print(f"note: {note}")
    print(f"{facts['output']}: for {facts['target']}, in {facts['seconds']:.1f} s")
    show_precisions(facts)
    if facts["dynamic"]:
        print(f"  dynamic  {plural(len(facts['dynamic']), 'product')} with a grid that is found at run time")
    if facts["levels"]:
        print(f"  levels   {', '.join(facts['levels'])}")
    print(f"  arena    {bytes_text(facts['arena_bytes'])} (lower bound {bytes_text(facts['arena_lower_bound'])})")
    print(f"  weights  {bytes_text(facts['weights_bytes'])}")
    print(f"  written  {bytes_text(facts['output_bytes'])} (the model: {bytes_text(facts['model_bytes'])})")
    if facts["memory"] is not None:
        memory = facts["memory"]
        print(
            f"  flash    {bytes_text(memory['flash_bytes'])} of {bytes_text(memory['flash_there'])}; "
            f"RAM {bytes_text(memory['ram_bytes'])} of {bytes_text(memory['ram_there'])}, the stack aside"
        )
    if facts["backend"] is not None:
        print(f"  tvm      {backend_text(facts['backend'])}")
    if facts["tuning"] is not None:
        print(f"  tuning   {_tuning_text(facts['tuning'])}")
    show_islands("  float32  ", facts["islands"], facts["float_copies"])
    if "search" in facts:
        print()
        show_search(facts["search"])


def _tuning_text(tuned: dict[str, Any]) -> str:
    from qcomp.cli.output import plural

    found, layers = tuned["found"], tuned["layers"]
    text = f"{found} of {plural(layers, 'layer')} found in {tuned['file']}, {tuned['changed']} not as by default"
    return text if found == layers else f"{text}; the other {layers - found} by default"
