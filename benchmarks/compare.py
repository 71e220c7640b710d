"""qcomp against onnxruntime, side by side in one process: `python benchmarks/compare.py`.  See README.md beside it."""

from __future__ import annotations

import argparse
import fcntl
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measure import interleave, start
from prepare import CALIBRATION_SAMPLES, Compiled, compile_case, feed_of, peer_files, session
from rich.console import Console
from rich.table import Table

import qcomp
import qcomp.zoo
from qcomp.runtime.features import machine
from qcomp.zoo.case import Case

MODELS = ("efficientnet_lite0", "mobilenet_v2", "resnet50", "ppocr_rec", "ppocr_det", "page_orientation",
          "mnist_resnet8", "mnist_dscnn", "mnist_dscnn_qat", "digits_mlp")  # fmt: skip
MEGABYTE = 1 << 20


def main() -> None:
    arguments = _arguments()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = []
        for model in arguments.models:
            with console.status(f"compiling {model}"):
                case = qcomp.zoo.load(model)
                prepared.append((case, compile_case(case, folder), peer_files(case)))
        rows = []
        for case, compiled, peers in prepared:
            with _exclusive(arguments.lock), console.status(f"timing {case.name}"):
                rows.append(_measure(case, compiled, peers, arguments, folder))
    output = Console(width=120)
    output.print(_speed(rows, arguments.threads))
    output.print(_deployment(rows))
    if arguments.json is not None:
        facts = {"threads": arguments.threads, "machine": machine(), "calibration_samples": CALIBRATION_SAMPLES}
        arguments.json.write_text(json.dumps({**facts, "models": rows}, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="qcomp against onnxruntime, batch 1.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="timing of one model, all sides together")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--lock", type=Path, help="hold an exclusive lock on this file while timing a model")
    return parser.parse_args()


@contextmanager
def _exclusive(path: Path | None) -> Iterator[None]:
    """Keeps other jobs that take the same lock away while the body runs."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _measure(
    case: Case, compiled: Compiled, peers: dict[str, Path], arguments: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    feed = feed_of(case)
    np.savez(folder / "feed.npz", allow_pickle=False, **feed)
    with qcomp.load(compiled.path, threads=arguments.threads) as model:
        sides = {"qcomp": lambda: model.run(feed)}
        for name, path in peers.items():
            sides[name] = _runner(session(path, arguments.threads), feed)
        times = interleave(sides, arguments.seconds)
    best = min((n for n in peers if n.startswith("int8")), key=times.median)
    starts = {
        "qcomp": start("qcomp", str(compiled.path), str(folder / "feed.npz")),
        best: start("onnxruntime", str(peers[best]), str(folder / "feed.npz")),
    }
    size = compiled.path.stat().st_size
    return {
        "model": case.name,
        "ms": {n: {"median": times.median(n), "min": times.least(n)} for n in sides},
        "best_int8": best,
        "speedup_int8": times.ratio(best, "qcomp"),
        "speedup_int8_min": times.least(best) / times.least("qcomp"),
        "speedup_fp32": times.ratio("fp32", "qcomp") if "fp32" in peers else None,
        "compile_seconds": compiled.seconds,
        "artifact_bytes": size,
        "artifact_ratio": size / case.onnx_path.stat().st_size,
        "start": {n: {"ms": s.milliseconds, "resident_bytes": s.resident} for n, s in starts.items()},
    }


def _runner(session: Any, feed: dict[str, np.ndarray]) -> Any:
    return lambda: session.run(None, feed)


def _speed(rows: list[dict[str, Any]], threads: int) -> Table:
    table = Table(title=f"Batch 1, threads {threads}: median (least) milliseconds, and how often qcomp fits into them")
    _columns(table, "model", "qcomp", "ort int8", "form", "ort fp32", "x int8", "x int8, least", "x fp32")
    for row in rows:
        fp32, best = row["ms"].get("fp32"), row["best_int8"]
        table.add_row(
            row["model"],
            _times(row["ms"]["qcomp"]),
            _times(row["ms"][best]),
            best.removeprefix("int8 "),
            _times(fp32) if fp32 else "",
            f"{row['speedup_int8']:.2f}",
            f"{row['speedup_int8_min']:.2f}",
            f"{row['speedup_fp32']:.2f}" if fp32 else "",
        )
    return table


def _deployment(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Compiling; a new process that loads the model and runs it once (onnxruntime int8 behind /)")
    _columns(table, "model", "compile s", "of which cc", "size / float file", "load and run ms", "memory MB")
    for row in rows:
        ours, theirs = row["start"]["qcomp"], row["start"][row["best_int8"]]
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
        table.add_column(heading, justify="left" if heading in ("model", "form") else "right", no_wrap=True)


def _times(entry: dict[str, float]) -> str:
    return f"{entry['median']:.3f} ({entry['min']:.3f})"


if __name__ == "__main__":
    main()
