"""`qcomp tune`: what computes each layer of a model fastest on this machine, for `qcomp compile --tuning`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import (
    Backend,
    BackendName,
    Calibrate,
    Compiler,
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
    Threads,
)

if TYPE_CHECKING:
    from qcomp.codegen.tune.search import Result
    from qcomp.tuning import Measured

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", show_default=False,
                 help="The tuning file to write; without it, the one of --tuning."),
]  # fmt: skip
Known = Annotated[
    Path | None,
    typer.Option("--tuning", metavar="FILE", show_default=False,
                 help="A tuning file that the layers of this model are added to."),
]  # fmt: skip
Candidates = Annotated[
    int, typer.Option("--candidates", metavar="N", help="Kernels and schedules of a layer that are measured.")
]


def tune(
    model: ModelPath,
    output: Output = None,
    tuning: Known = None,
    target: TargetName = "native",
    calibrate: Calibrate = None,
    shape: Shapes = None,
    method: Method = "auto",
    per_tensor: PerTensor = False,
    image_mean: ImageMean = None,
    image_std: ImageStd = None,
    image_size: ImageSize = None,
    image_order: ImageOrder = Order.RGB,
    image_resize: ImageResize = Resize.CROP,
    threads: Threads = 1,
    candidates: Candidates = 24,
    backend: BackendName = Backend.C,
    cc: Compiler = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure kernels and schedules of a model's layers on this machine, for `compile --tuning`."""
    start = time.perf_counter()
    from qcomp.cli.arguments import check_images_are_read, parse_shapes, raw_images, samples_for
    from qcomp.cli.files import batch_notes, check_input, check_outputs, read_graph
    from qcomp.cli.output import print_json
    from qcomp.cli.progress import Stages
    from qcomp.errors import QcompError

    shapes = parse_shapes(shape)
    check_input(model)
    written = output if output is not None else tuning
    if written is None:
        raise QcompError("no file to write", where="--output", fix="give -o FILE, or --tuning FILE to add to")
    check_outputs({"-o": written}, (model, calibrate))
    images = (image_mean, image_std, image_size, image_order, image_resize)
    check_images_are_read(calibrate, *images)
    if candidates < 1:
        raise QcompError(f"{candidates} candidates", where="--candidates", fix="give 1 or more")

    with Stages(quiet) as progress:
        progress("load", 0, 1)
        from qcomp.codegen.backends import check_backend
        from qcomp.codegen.toolchain import find_compiler
        from qcomp.codegen.tune.file import read_tuning
        from qcomp.codegen.tune.search import check_runs_here
        from qcomp.compiler import Options
        from qcomp.quantize.observers import method_named
        from qcomp.targets import target as target_named
        from qcomp.tuning import tune as measure

        machine = target_named(target)
        check_runs_here(machine)
        check_backend(backend, [machine], measured=True)
        method_named(method)
        machine.compiler_flags(find_compiler(cc).kind)
        known = None if tuning is None else read_tuning(tuning)
        if known is not None:
            known.check(machine.name, str(tuning))
            known.check_backend(backend, str(tuning))
        progress("import", 0, 1)
        graph = read_graph(model, shapes)
        samples = None if calibrate is None else samples_for(graph, calibrate, *images)
        options = Options(
            method=method, per_tensor=per_tensor, backend=backend, tuning=known, cc=cc, progress=progress
        )
        measured = measure(
            graph, target=target, calibration=samples, options=options, candidates=candidates, threads=threads
        )
        measured.save(written)
    if quiet:
        return
    facts = _facts(measured, model, written, time.perf_counter() - start)
    facts["notes"] += batch_notes(graph)
    if (raw := raw_images(samples, image_mean, image_std)) is not None:
        facts["notes"].append(f"{raw.message} ({raw.code})")
    if json:
        print_json(facts)
    else:
        _show(facts)


def _facts(measured: Measured, model: Path, written: Path, seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    tuning = measured.tuning
    notes = []
    if measured.preview:
        notes.append("without --calibrate DATA: layers whose code depends on the data may not be found when compiling")
    return {
        "output": str(written),
        "model": str(model),
        "target": tuning.target,
        "cpu": tuning.cpu,
        "layers": [_layer(result) for result in measured.results],
        "default_us": measured.default_us,
        "best_us": measured.best_us,
        "speedup": measured.default_us / measured.best_us,
        "layers_in_file": len(tuning.layers),
        "notes": notes,
        "seconds": round(seconds, 3),
    }


def _layer(result: Result) -> dict[str, Any]:
    return {
        "layer": result.name,
        "steps": result.count,
        "candidates": result.candidates,
        "kernel": result.kernel,
        "schedule": result.schedule,
        "default_us": result.default_us,
        "best_us": result.best_us,
        "speedup": result.speedup,
    }


def _show(facts: dict[str, Any]) -> None:
    from qcomp.cli.output import plural, print_table

    for note in facts["notes"]:
        print(f"note: {note}")
    rows = [
        (_shape_text(f["layer"]), f["steps"], f"{f['default_us']:.1f}", f"{f['best_us']:.1f}",
         f"{f['speedup'] - 1:.1%}" if f["speedup"] > 1 else "", f["schedule"] or _no_schedule(f), f["kernel"])
        for f in facts["layers"]
    ]  # fmt: skip
    print_table("", ("layer", "steps", "default us", "best us", "gain", "schedule", "kernel"), rows)
    changed = sum(f["speedup"] > 1 for f in facts["layers"])
    print(
        f"{facts['output']}: for {facts['target']} on {facts['cpu'] or 'this CPU'}, "
        f"{plural(facts['layers_in_file'], 'layer')}, in {facts['seconds']:.1f} s"
    )
    print(
        f"  {changed} of {plural(len(facts['layers']), 'layer shape')} not as by default; all steps: "
        f"{facts['default_us']:.1f} us by default, {facts['best_us']:.1f} us tuned ({facts['speedup'] - 1:.1%} faster)"
    )


def _no_schedule(layer: dict[str, Any]) -> str:
    """What is shown for the default schedule: of another kernel than the default one, its own."""
    return "default" if layer["speedup"] == 1 else "its default"


def _shape_text(layer: str) -> str:
    """A layer's name without types, padding and the output: "qconv2d 1x56x56x64 64x3x3x64 strides=2,2"."""
    op, *words = layer.split(" ")
    shown = [op]
    for word in words:
        name, _, value = word.partition("=")
        if name in ("x", "w"):
            shown.append(value.partition("[")[2].partition("]")[0].replace(",", "x"))
        elif name in ("strides", "dilations", "groups"):
            shown.append(word)
    return " ".join(shown)
