"""What the examples share: a model in float32 by onnxruntime, and the same model compiled to int8 by qcomp."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import qcomp
from qcomp.compiler import Artifact, Options
from qcomp.zoo import Array, Case, Samples

ROUNDS, RUNS_A_ROUND = 20, 10

console = Console(highlight=False)


@dataclass(frozen=True)
class Side:
    """One way to run the model: `run` takes one sample of every input (first axis 1) and gives the first output."""

    run: Callable[[Samples], Array]
    bytes: int


def float32_side(case: Case) -> Side:
    """The model as it came, in onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(case.onnx_path), options, providers=["CPUExecutionProvider"])
    return Side(lambda feed: session.run(None, dict(feed))[0], case.onnx_path.stat().st_size)


def int8_side(artifact: Path) -> Side:
    """The compiled model on one thread; loading it needs numpy and the file, nothing of the compiler."""
    model = qcomp.load(artifact, threads=1)
    return Side(lambda feed: next(iter(model.run(feed).values())), artifact.stat().st_size)


def progress_bars() -> Progress:
    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def compile_case(case: Case, output: Path, progress: Progress) -> Artifact:
    """Calibrates on the case's samples, compiles for this machine's CPU, writes the artifact."""
    tasks = {
        stage: progress.add_task(text, total=total, start=False)
        for stage, text, total in (
            ("import", "read the ONNX file", 1),
            ("quantize", "canonicalize", 1),
            ("calibrate", "calibrate on samples", len(next(iter(case.calibration_inputs.values())))),
            ("correct", "correct biases", 1),
            ("generate", "generate C", 1),
            ("write", "compile C", 1),
        )
    }
    running = ""

    def report(stage: str, done: int, total: int) -> None:
        nonlocal running
        if stage != running:
            if running:
                finish()
            running = stage
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, start=False)
            progress.start_task(tasks[stage])
        progress.update(tasks[stage], completed=done, total=total)

    def finish() -> None:
        total = next(task.total for task in progress.tasks if task.id == tasks[running])
        progress.update(tasks[running], completed=total)
        progress.stop_task(tasks[running])

    options = Options(progress=report)
    samples = case.calibration_samples()
    artifact = qcomp.compile(case.onnx_path, shapes=case.shapes, calibration=samples, options=options)
    report("write", 0, 1)
    artifact.save(output)
    finish()
    return artifact


def outputs_of(side: Side, case: Case, progress: Progress, text: str) -> Array:
    """First output for every test sample, stacked on the first axis."""
    task = progress.add_task(text, total=case.samples)
    outputs = []
    for feed in case.feeds():
        outputs.append(side.run(feed).copy())
        progress.advance(task)
    return np.concatenate(outputs)


def median_milliseconds(before: Side, after: Side, case: Case) -> tuple[float, float]:
    """Medians of single runs; the sides take turns, so that what slows the machine for a while hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS):
        for side, found in zip((before, after), times, strict=True):
            side.run(case.feed(turn % case.samples))
            for run in range(RUNS_A_ROUND):
                feed = case.feed((turn + run) % case.samples)
                start = time.perf_counter()
                side.run(feed)
                found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def show_figures(
    scores: list[tuple[str, float, float]], milliseconds: tuple[float, float], sizes: tuple[int, int]
) -> None:
    """The table of before and after; `scores` holds (what, float32, int8) with shares between 0 and 1."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, justify in (("", "left"), ("float32, onnxruntime", "right"), ("int8, qcomp", "right"), ("", "left")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for what, before, after in scores:
        table.add_row(what, f"{before:.1%}", f"{after:.1%}", "")
    (slow, fast), (large, small) = milliseconds, sizes
    faster = f"{slow / fast:.1f}x faster" if fast <= slow else f"{fast / slow:.1f}x slower"
    table.add_row("one run, one thread", f"{slow:.2f} ms", f"{fast:.2f} ms", faster)
    table.add_row("file", f"{large / 1e6:.2f} MB", f"{small / 1e6:.2f} MB", f"{large / small:.1f}x smaller")
    console.print(table)


def show_coverage(artifact: Artifact) -> None:
    """How much runs in int8; what does not, with the reason."""
    found = artifact.coverage
    console.print(
        f"int8: {found.integer_share:.2%} of the multiply-accumulates, "
        f"{found.integer_nodes} of {found.integer_nodes + found.float_nodes} ops; target {artifact.target.name}",
        soft_wrap=True,
    )
    reasons = {island.reason: island.detail for island in found.islands}
    for reason, detail in reasons.items():
        ops = Counter(island.op for island in found.islands if island.reason == reason)
        listed = ", ".join(f"{number} {op}" for op, number in ops.most_common())
        console.print(f"float32: {listed}: {detail} ({reason})", soft_wrap=True)
    if found.float_copies:
        moved = ", ".join(f"{number} {op}" for op, number in Counter(found.float_copies).most_common())
        console.print(f"float32: {moved}: it moves data beside the others", soft_wrap=True)
    if not found.float_nodes:
        console.print("float32: nothing")
