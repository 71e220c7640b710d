"""The back ends against each other in one process: `python benchmarks/backends.py`.

Times of whole runs in turns: C alone, TVM without tuning, TVM tuned by MetaSchedule, and of each layer the faster one
("auto"), on this machine; ratios to C are medians over rounds."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import qcomp
import qcomp.zoo
from qcomp.cli.timing import interleave_for
from qcomp.codegen.tvm.coverage import macs_share
from qcomp.compiler import Options
from qcomp.zoo.case import Case

MODELS = ("resnet8_32", "mobilenet_v2", "resnet50", "efficientnet_lite0")


def main() -> None:
    parser = argparse.ArgumentParser(description="The C back end against TVM, batch 1, one thread.")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help="cases of the zoo")
    parser.add_argument("--target", default="native", metavar="NAME")
    parser.add_argument("--candidates", type=int, default=16, help="of a layer, for the tuned sides; 0: leave them out")
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing, each model")
    arguments = parser.parse_args()
    table = Table(title=f"Back ends, {arguments.target}: milliseconds, and ratios to C")
    for column in ("model", "C", "TVM", "TVM tuned", "auto", "MACs by TVM", "compiled in", "tuned in"):
        table.add_column(column, justify="left" if column == "model" else "right")
    console = Console(stderr=True)
    for model in arguments.models:
        with console.status(model):
            table.add_row(model, *_row(qcomp.zoo.load(model), arguments))
    Console(width=120).print(table)


def _row(case: Case, arguments: argparse.Namespace) -> list[str]:
    samples = case.calibration_samples(16)

    def compiled(options: Options) -> qcomp.Artifact:
        return qcomp.compile(
            case.onnx_path, shapes=case.shapes, target=arguments.target, calibration=samples, options=options
        )

    sides = {"c": compiled(Options())}
    start = time.perf_counter()
    sides["tvm"] = compiled(Options(backend="tvm"))
    compile_seconds = time.perf_counter() - start
    start = time.perf_counter()
    for name, backend in (("tuned", "tvm"), ("auto", "auto")):
        if arguments.candidates:
            measured = qcomp.tune(
                sides["c"].graph, target=arguments.target, candidates=arguments.candidates,
                options=Options(backend=backend),
            )  # fmt: skip
            sides[name] = compiled(Options(backend=backend, tuning=measured.tuning))
    tune_seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        models = {name: qcomp.load(artifact.save(Path(folder) / f"{name}.so")) for name, artifact in sides.items()}
        feed = case.feed(0)
        results = {name: model.run(feed) for name, model in models.items()}
        for outputs in results.values():
            assert all(np.array_equal(outputs[key], array) for key, array in results["c"].items())
        runs = {name: (lambda model=model: model.run(feed)) for name, model in models.items()}
        timings = interleave_for(runs, arguments.seconds)
    cells = [f"{timings.median('c'):.3f}"]
    cells += [f"{timings.ratio(name, 'c'):.3f}" if name in sides else "" for name in ("tvm", "tuned", "auto")]
    shares = [f"{macs_share(sides[name].metadata['steps']):.0%}" for name in ("tvm", "auto") if name in sides]
    return [*cells, ", ".join(shares), f"{compile_seconds:.1f} s", f"{tune_seconds:.0f} s"]


if __name__ == "__main__":
    main()
