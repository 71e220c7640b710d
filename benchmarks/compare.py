"""qcomp against other engines in one process: `python benchmarks/compare.py`.  See README.md beside it."""

from __future__ import annotations

import argparse
import fcntl
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from chart import ratio_chart
from measure import start
from peers import ENGINES, installed, onnxruntime_files, sides
from prepare import CALIBRATION_SAMPLES, Compiled, compile_case, feed_of
from rich.console import Console
from rich.table import Table

import qcomp
import qcomp.zoo
from qcomp.cli.timing import interleave_for
from qcomp.runtime.features import cpu_features, machine
from qcomp.zoo.case import Case

MODELS = ("resnet50", "mobilenet_v2", "efficientnet_lite0", "yolov8n_320", "resnet8_32", "dscnn_49x10", "ppocr_rec",
          "ppocr_det", "page_orientation", "mnist_resnet8", "mnist_dscnn", "mnist_dscnn_qat", "digits_mlp",
          "minilm_sentiment", "minilm_128", "wakeword_embedding", "magika")  # fmt: skip
MEGABYTE = 1 << 20
Row = dict[str, Any]


def main() -> None:
    arguments = _arguments()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = []
        for model in arguments.models:
            with console.status(f"compiling {model}"):
                case = qcomp.zoo.load(model)
                prepared.append((case, compile_case(case, folder)))
        rows = []
        for (case, compiled), threads in product(prepared, arguments.threads):
            with console.status(f"timing {case.name}, threads {threads}"):
                rows.append(_measure(case, compiled, threads, arguments))
        with _exclusive(arguments.lock), console.status("starting processes"):
            starts = [_starts(case, compiled, folder) for case, compiled in prepared] if arguments.starts else []
    output = Console(width=120)
    for threads in arguments.threads:
        output.print(_speed([row for row in rows if row["threads"] == threads], arguments.engines, threads))
    if starts:
        output.print(_deployment(starts))
    if arguments.json is not None:
        facts = {"machine": machine(), "cpu": sorted(cpu_features()), "calibration_samples": CALIBRATION_SAMPLES}
        arguments.json.write_text(json.dumps({**facts, "speed": rows, "deployment": starts}, indent=2) + "\n")
    if arguments.chart is not None:
        bars = [(f"{r['model']}, {r['threads']} thr.", r["speedup"], r["best"]) for r in rows]
        arguments.chart.write_text(ratio_chart("Time of the fastest peer / time of qcomp, batch 1", bars))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="qcomp against other engines, batch 1.")
    known = installed()
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=known, metavar="NAME",
                        help=f"peers: {', '.join(ENGINES)}; installed here: {', '.join(known)}")  # fmt: skip
    parser.add_argument("--threads", nargs="+", type=int, default=[1], metavar="N", help="numbers of threads")
    parser.add_argument("--seconds", type=float, default=6.0, help="timing of one model, all sides together")
    parser.add_argument("--starts", action="store_true", help="also time new processes that load and run once")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="write a bar chart of the ratios")
    parser.add_argument("--lock", type=Path, help="hold an exclusive lock on this file while timing a model")
    arguments = parser.parse_args()
    for name in set(arguments.engines) - set(known):
        parser.error(f"--engines {name}: not installed; pip install {' '.join(ENGINES[name][0])}")
    return arguments


@contextmanager
def _exclusive(path: Path | None) -> Iterator[None]:
    """Keeps other jobs that take the same lock away while the body runs."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _measure(case: Case, compiled: Compiled, threads: int, arguments: argparse.Namespace) -> Row:
    feed = feed_of(case)
    with qcomp.load(compiled.path, threads=threads) as model:
        runs = {"qcomp": model.bind(feed).run, **sides(arguments.engines, case, feed, threads)}
        with _exclusive(arguments.lock):
            times = interleave_for(runs, arguments.seconds)
    peers = [name for name in runs if name != "qcomp"]
    best = min(peers, key=times.median)
    return {
        "model": case.name,
        "threads": threads,
        "ms": {n: {"median": times.median(n), "min": times.least(n)} for n in runs},
        "best": best,
        "speedup": times.ratio(best, "qcomp"),
        "speedup_least": min(times.least(n) for n in peers) / times.least("qcomp"),
        "speedups": {n: times.ratio(n, "qcomp") for n in peers},
    }


def _starts(case: Case, compiled: Compiled, folder: Path) -> Row:
    """Seconds of compiling, bytes on disk, and what a new process takes to load and run."""
    np.savez(folder / "feed.npz", allow_pickle=False, **feed_of(case))
    theirs = next(iter(onnxruntime_files(case).values()))
    size = compiled.path.stat().st_size
    started = {
        "qcomp": start("qcomp", str(compiled.path), str(folder / "feed.npz")),
        "onnxruntime": start("onnxruntime", str(theirs), str(folder / "feed.npz")),
    }
    return {
        "model": case.name,
        "compile_seconds": compiled.seconds,
        "artifact_bytes": size,
        "artifact_ratio": size / case.onnx_path.stat().st_size,
        "start": {n: {"ms": s.milliseconds, "resident_bytes": s.resident} for n, s in started.items()},
    }


def _speed(rows: list[Row], engines: list[str], threads: int) -> Table:
    table = Table(title=f"Batch 1, threads {threads}: median milliseconds, and how often qcomp fits in")
    forms = [f"{engine} {kind}" for engine in engines for kind in ("int8", "float")]
    _columns(table, "model", "qcomp", *(f.replace(" ", "\n") for f in forms), "fastest peer", "x", "x least", "x fp32")
    for row in rows:
        cells = [_best(row["ms"], *form.split()) for form in forms]
        fp32 = row["speedups"].get("onnxruntime fp32")
        table.add_row(
            row["model"], _milliseconds(row["ms"]["qcomp"]), *cells, row["best"].replace(" ", "\n", 1),
            f"{row['speedup']:.2f}", f"{row['speedup_least']:.2f}", f"{fp32:.2f}" if fp32 else "",
        )  # fmt: skip
    if rows:
        means = (statistics.geometric_mean(row[key] for row in rows) for key in ("speedup", "speedup_least"))
        table.add_section()
        table.add_row("geometric mean", *[""] * (len(forms) + 2), *(f"{mean:.2f}" for mean in means), "")
    return table


def _best(times: dict[str, dict[str, float]], engine: str, kind: str) -> str:
    """The fastest int8 form of an engine, or its fastest float one."""
    own = [t for n, t in times.items() if n.startswith(f"{engine} ") and (" int8" in n) == (kind == "int8")]
    return _milliseconds(min(own, key=lambda t: t["median"])) if own else ""


def _deployment(rows: list[Row]) -> Table:
    table = Table(title="Compiling; a new process that loads the model and runs it once (onnxruntime int8 behind /)")
    _columns(table, "model", "compile s", "of which cc", "size / float file", "load and run ms", "memory MB")
    for row in rows:
        ours, theirs = row["start"]["qcomp"], row["start"]["onnxruntime"]
        table.add_row(
            row["model"],
            f"{row['compile_seconds']['total']:.1f}",
            f"{row['compile_seconds']['cc']:.1f}",
            f"{row['artifact_ratio']:.3f}",
            f"{ours['ms']:.1f} / {theirs['ms']:.1f}",
            f"{ours['resident_bytes'] / MEGABYTE:.1f} / {theirs['resident_bytes'] / MEGABYTE:.1f}",
        )
    return table


def _columns(table: Table, *headings: str) -> None:
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("model", "fastest peer") else "right")


def _milliseconds(entry: dict[str, float]) -> str:
    return f"{entry['median']:#.3g}"


if __name__ == "__main__":
    main()
