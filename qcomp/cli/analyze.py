"""`qcomp analyze`: what int8 costs in each layer of a model, and the mixes of precisions to choose from."""

from __future__ import annotations

import json as jsonlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import (
    Calibrate,
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
    check_threads,
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

if TYPE_CHECKING:
    from qcomp.analysis import Analysis

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", show_default=False, help="Write the JSON to a file."),
]
Search = Annotated[bool, typer.Option("--search", help="Look for a mix that reaches the goal, and show the front.")]
Threads = Annotated[
    int,
    typer.Option("--threads", metavar="N", callback=check_threads, help="Samples side by side; 0: one for each CPU."),
]


def analyze(
    model: ModelPath,
    calibrate: Calibrate = None,
    target: TargetName = "native",
    shape: Shapes = None,
    method: Method = "auto",
    per_tensor: PerTensor = False,
    image_mean: ImageMean = None,
    image_std: ImageStd = None,
    image_size: ImageSize = None,
    image_order: ImageOrder = Order.RGB,
    image_resize: ImageResize = Resize.CROP,
    validate: Validate = None,
    labels: LabelsFile = None,
    decode: Decode = "argmax",
    ignore: Ignore = "",
    search: Search = False,
    max_drop: MaxDrop = None,
    min_sqnr: MinSqnr = None,
    max_latency: MaxLatency = None,
    max_size: MaxSize = None,
    save_precision: SavePrecision = None,
    scheduler: Scheduler = None,
    threads: Threads = 0,
    output: Output = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what int8 in each layer of a model costs its output; find a mix of precisions."""
    start = time.perf_counter()
    from qcomp.cli.arguments import check_images_are_read, parse_shapes, raw_images, samples_for
    from qcomp.cli.files import batch_notes, check_input, check_outputs, read_graph, write_file
    from qcomp.cli.goal_options import check_search, goal_of, judging_of
    from qcomp.cli.output import print_json
    from qcomp.cli.progress import Stages
    from qcomp.errors import QcompError

    shapes = parse_shapes(shape)
    for path in filter(None, (model, labels)):
        check_input(path)
    check_outputs({"-o": output, "--save-precision": save_precision}, (model, calibrate, validate, labels))
    images = (image_mean, image_std, image_size, image_order, image_resize)
    check_images_are_read(calibrate, *images)
    goal = goal_of(max_drop, min_sqnr, max_latency, max_size)
    if not search:
        given = {"--max-drop": max_drop, "--min-sqnr": min_sqnr, "--max-latency": max_latency, "--max-size": max_size}
        check_search({**given, "--save-precision": save_precision}, "--search")
    if calibrate is None:
        raise QcompError("there is no calibration data", where=str(model), fix="give --calibrate DATA")

    with Stages(quiet) as progress:
        progress("load", 0, 1)
        from qcomp.analysis import analyze as measure
        from qcomp.analysis import save_precision as save
        from qcomp.compiler import Options
        from qcomp.quantize.observers import method_named
        from qcomp.targets import target as target_named

        target_named(target)
        method_named(method)
        progress("import", 0, 1)
        graph = read_graph(model, shapes)
        samples = samples_for(graph, calibrate, *images)
        judging = judging_of(graph, validate, labels, decode, ignore, scheduler, threads, images)
        options = Options(method=method, per_tensor=per_tensor, progress=progress)
        found = measure(
            graph, calibration=samples, target=target, options=options, judging=judging, goal=goal if search else None
        )
    facts = _facts(found, model, time.perf_counter() - start)
    facts["notes"] += batch_notes(graph)
    if (raw := raw_images(samples, image_mean, image_std)) is not None:
        facts["notes"].append(f"{raw.message} ({raw.code})")
    if save_precision is not None:
        assert found.search is not None
        save(found.search, save_precision)
    if output is not None:
        text = jsonlib.dumps(facts, indent=2, allow_nan=False) + "\n"
        write_file(output, lambda file: file.write(text.encode()))
    if quiet:
        return
    if json:
        print_json(facts)
    else:
        _show(facts)


def _facts(found: Analysis, model: Path, seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    from qcomp.cli.mix_report import search_facts

    rank = {row.name: index + 1 for index, row in enumerate(found.ranked())}
    whole_ms, whole_bytes = found.costs.milliseconds({}), found.costs.bytes({})
    facts: dict[str, Any] = {
        "model": str(model),
        "target": found.target.name,
        "samples": found.samples,
        "float32": found.float32.facts(),
        "int8": found.int8.facts(),
        "int8_ms": whole_ms if found.costs.timed else None,
        "int8_bytes": whole_bytes,
        "layers": [
            {
                "layer": layer.name,
                "op": layer.op,
                "macs": layer.macs,
                "parameters": layer.parameters,
                "rank": rank[layer.name],
                "alone": row.alone.facts(),
                "without": row.without.facts(),
                **_added(found, layer.name, "int16"),
                **_added(found, layer.name, "float32"),
            }
            for layer, row in zip(found.layers, found.sensitivities, strict=True)
        ],
        "search": None if found.search is None else search_facts(found.search, found.costs.timed),
        "notes": [],
        "seconds": round(seconds, 3),
    }
    return facts


def _added(found: Analysis, layer: str, precision: str) -> dict[str, Any]:
    """What a layer costs more in a wider precision; null where it has no such form, and times without rates."""
    has = precision == "float32" or layer in found.wider
    costs, choice = found.costs, {layer: precision}
    return {
        f"{precision}_adds_ms": costs.milliseconds(choice) - costs.milliseconds({}) if has and costs.timed else None,
        f"{precision}_adds_bytes": costs.bytes(choice) - costs.bytes({}) if has else None,
    }


def _milliseconds(added: float | None) -> str:
    return "-" if added is None else f"{added:.3f}"


def _show(facts: dict[str, Any]) -> None:
    from qcomp.cli.mix_report import decibels, decibels_text, share, show_search
    from qcomp.cli.output import count_text, plural, print_table

    for note in facts["notes"]:
        print(f"note: {note}")
    count = f"{plural(len(facts['layers']), 'layer')}, {plural(facts['samples'], 'sample')}"
    print(f"{facts['model']}: for {facts['target']}, {count}, {facts['seconds']:.1f} s\n")
    judged = "accuracy" if facts["int8"]["accuracy"] is not None else "agreement"
    timed = facts["int8_ms"] is not None
    rows = [
        (
            row["layer"], row["op"], count_text(row["macs"]) if row["macs"] else "",
            decibels(row["alone"]), f"{row['alone']['cosine']:.5f}", share(row["alone"][judged]),
            decibels(row["without"]), share(row["without"][judged]),
            *([_milliseconds(row["int16_adds_ms"]), _milliseconds(row["float32_adds_ms"])] if timed else []),
        )
        for row in sorted(facts["layers"], key=lambda row: row["rank"])
    ]  # fmt: skip
    head = ("layer", "op", "MACs", "alone dB", "cosine", judged, "all but it dB", judged)
    print_table("", (*head, *(["int16 adds ms", "float32 adds ms"] if timed else [])), rows)
    whole = facts["int8"]
    print(
        f"all in int8: {decibels_text(whole)}, cosine {whole['cosine']:.5f}, {judged} {share(whole[judged])}"
        + (f"; float32: {share(facts['float32'][judged])}" if judged == "accuracy" else "")
    )
    if facts["search"] is not None:
        print()
        show_search(facts["search"])
