"""`qcomp compare`: a float model and its artifact, before and after: accuracy, latency, memory, errors of layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import (
    ArtifactPath,
    Calibrate,
    EffortLevel,
    ImageMean,
    ImageOrder,
    ImageResize,
    ImageSize,
    ImageStd,
    Json,
    Level,
    Method,
    ModelPath,
    Order,
    PerTensor,
    Quiet,
    Resize,
    Shapes,
    Threads,
)
from qcomp.cli.bench import Runs

if TYPE_CHECKING:
    from qcomp.reports.compare.gate import Limits
    from qcomp.reports.compare.result import Comparison

DataPath = Annotated[
    Path,
    typer.Option("--data", metavar="DATA", show_default=False,
                 help="Samples to compare on: an .npz or .npy, a folder of them, or a folder of images."),
]  # fmt: skip
Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", show_default=False,
                 help="Right classes, integers: an .npy or .npz [n] or [n, k], or a text with a line a sample."),
]  # fmt: skip
Html = Annotated[
    Path | None, typer.Option("--html", metavar="REPORT.html", show_default=False, help="Write a page that shows it.")
]
GraphPath = Annotated[
    Path | None,
    typer.Option("--graph", metavar="GRAPH.qir", show_default=False,
                 help="The artifact's integer graph (compile --save-graph): errors of every layer, memory plan."),
]  # fmt: skip
Front = Annotated[
    Path | None,
    typer.Option("--front", metavar="FILE", show_default=False,
                 help="What a search found: a JSON list of {accuracy, latency_ms, size, label}."),
]  # fmt: skip
MaxDrop = Annotated[
    str | None,
    typer.Option("--max-drop", metavar="1%", show_default=False,
                 help="Most accuracy that may be lost; exit status 1 otherwise. Needs --labels."),
]  # fmt: skip
MinAgreement = Annotated[
    str | None,
    typer.Option("--min-agreement", metavar="99%", show_default=False,
                 help="Least share of decisions that are the float model's; exit status 1 otherwise."),
]  # fmt: skip
MinSqnr = Annotated[
    float | None,
    typer.Option("--min-sqnr", metavar="DB", show_default=False,
                 help="Least signal to noise of every output; exit status 1 otherwise."),
]  # fmt: skip
ClassAxis = Annotated[
    int | None,
    typer.Option("--class-axis", metavar="AXIS", show_default=False,
                 help="Axis of the first output that counts classes; without it 1 for rank 4, else the last."),
]  # fmt: skip
LayerSamples = Annotated[
    int, typer.Option("--layer-samples", metavar="N", help="Samples on which every layer is looked at.")
]


def compare(
    model: ModelPath,
    artifact: ArtifactPath,
    data: DataPath,
    labels: Labels = None,
    html: Html = None,
    graph: GraphPath = None,
    calibrate: Calibrate = None,
    front: Front = None,
    max_drop: MaxDrop = None,
    min_agreement: MinAgreement = None,
    min_sqnr: MinSqnr = None,
    class_axis: ClassAxis = None,
    layer_samples: LayerSamples = 8,
    threads: Threads = 1,
    runs: Runs = 0,
    level: Level = None,
    shape: Shapes = None,
    method: Method = "auto",
    effort: EffortLevel = "normal",
    per_tensor: PerTensor = False,
    image_mean: ImageMean = None,
    image_std: ImageStd = None,
    image_size: ImageSize = None,
    image_order: ImageOrder = Order.RGB,
    image_resize: ImageResize = Resize.CROP,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a float model with its artifact: accuracy, latency, size, memory, and errors of layers."""
    from qcomp.cli.arguments import parse_shapes
    from qcomp.cli.comparison import Request, measure
    from qcomp.cli.files import check_input, check_outputs, write_file
    from qcomp.cli.goal_options import check_unused
    from qcomp.cli.output import print_json
    from qcomp.cli.progress import Stages
    from qcomp.errors import QcompError

    shapes = parse_shapes(shape)
    for path in filter(None, (model, artifact, labels, graph, front)):
        check_input(path)
    check_outputs({"--html": html}, (model, artifact, data, labels, graph, calibrate, front))
    if runs < 0:
        raise QcompError(f"{runs} is negative", where="--runs", fix="give a positive number, or 0 for the default")
    if layer_samples < 1:
        raise QcompError(f"{layer_samples} samples", where="--layer-samples", fix="give 1 or more")
    if calibrate is None:
        unused = {
            "--method": None if method == "auto" else method, "--effort": None if effort == "normal" else effort,
            "--per-tensor": per_tensor or None,
        }  # fmt: skip
        check_unused(unused, "--calibrate", "--calibrate DATA")
    limits = _limits(max_drop, min_agreement, min_sqnr)
    if limits.max_drop is not None and labels is None:
        raise QcompError("accuracy needs labels", where="--max-drop", fix="give --labels FILE, or --min-agreement")
    request = Request(
        model, artifact, data, labels, graph, calibrate, front, limits, class_axis, layer_samples, threads, runs,
        level, shapes, method, effort, per_tensor, (image_mean, image_std, image_size, image_order, image_resize),
    )  # fmt: skip
    with Stages(quiet) as progress:
        found = measure(request, progress)
        if html is not None:
            from qcomp.reports.compare.page import page

            progress("page", 0, 1)
            text = page(found)
            write_file(html, lambda file: file.write(text.encode()))
    if json:
        from qcomp.reports.compare.facts import facts

        print_json(facts(found) | {"html": None if html is None else str(html)})
    elif not quiet:
        _show(found)
        if html is not None:
            print(f"page: {html}")
    if not found.passed:
        raise typer.Exit(1)


def _limits(max_drop: str | None, min_agreement: str | None, min_sqnr: float | None) -> Limits:
    import math

    from qcomp.errors import QcompError
    from qcomp.reports.compare.gate import Limits, parse_share

    if min_sqnr is not None and not math.isfinite(min_sqnr):
        raise QcompError(f"{min_sqnr} is no number of dB", where="--min-sqnr", fix="give a number such as 20")
    return Limits(
        None if max_drop is None else parse_share("--max-drop", max_drop),
        None if min_agreement is None else parse_share("--min-agreement", min_agreement),
        min_sqnr,
    )


def _show(found: Comparison) -> None:
    from qcomp.cli.islands import show_islands
    from qcomp.cli.output import print_table
    from qcomp.reports.compare.summary import check_text, rows, verdict, worst_layers
    from qcomp.reports.coverage import reason_text

    for note in found.notes:
        print(f"note: {note}")
    print(f"{verdict(found)}\n")
    before, after = f"onnxruntime, {found.model_precision}", f"qcomp, {found.precision}"
    print_table("", ("", before, after, "change"), [row.cells for row in rows(found)])
    outputs = [
        (o.name, "exact" if o.sqnr_db is None else f"{o.sqnr_db:.1f}", f"{o.cosine:.6f}", f"{o.max_error:.4g}",
         f"{o.rms_error:.4g}")
        for o in found.outputs
    ]  # fmt: skip
    print_table("", ("output", "SQNR dB", "cosine", "largest error", "rms error"), outputs)
    if found.study is not None:
        worst = [
            (s.name, s.op, _db(s.error.accumulated_db), _db(s.error.isolated_db), f"{s.milliseconds:.4f}")
            for s in worst_layers(found)[:8]
            if s.error is not None
        ]
        print_table("", ("worst layers", "op", "SQNR dB", "alone dB", "ms"), worst)
    if found.calibration is not None:
        for _, message in found.calibration.findings:
            print(f"calibration: {message}")
        parts: list[tuple[Any, ...]] = [
            (p.samples, _percent(p.top1), _percent(p.agreement), _db(p.sqnr_db), f"{p.settled} of {p.scales}")
            for p in found.calibration.parts
        ]
        print_table("", ("calibration samples", "top-1", "agreement", "SQNR dB", "scales as with all"), parts)
    islands = [{**island, "detail": reason_text(island.get("reason", "")), "macs": 0} for island in found.islands]
    show_islands("float32  ", islands, ())
    for check in found.checks:
        print(check_text(check))


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
