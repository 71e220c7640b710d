"""`qcomp.tune`: a model's layers measured on this machine; `compile` follows what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.codegen.backends import check_backend
from qcomp.codegen.toolchain import replace_file
from qcomp.codegen.tune.choose import ROUNDS, Rounds
from qcomp.codegen.tune.file import Tuning
from qcomp.codegen.tune.search import CANDIDATES, Result, check_runs_here, tune_graph, tuning_of
from qcomp.compiler import Options, import_model, is_quantized, preview, quantize, read_tuning_of
from qcomp.errors import QcompError
from qcomp.ir.graph import Graph
from qcomp.quantize.samples import Data
from qcomp.reports.coverage import INTEGER_OPS
from qcomp.targets import target as target_named

if TYPE_CHECKING:
    import onnx


_DEFAULTS = Options()


@dataclass(frozen=True)
class Measured:
    """What was found: a result for each layer, and the tuning with them, merged into the one of the options.

    `preview` says that there was neither data nor a quantized model: layers whose form depends on either may differ
    from those that `compile` makes, and are then not found."""

    results: tuple[Result, ...]
    tuning: Tuning
    preview: bool

    def __repr__(self) -> str:
        spent = f"{self.default_us:.1f} us by default, {self.best_us:.1f} tuned"
        return f"<qcomp.tune of {len(self.results)} layers for {self.tuning.target}: {spent}>"

    @property
    def default_us(self) -> float:
        """Microseconds of all layers as they are computed by default."""
        return sum(result.count * result.default_us for result in self.results)

    @property
    def best_us(self) -> float:
        return sum(result.count * result.best_us for result in self.results)

    def save(self, path: str | Path) -> Path:
        """Writes the tuning as the file that `compile --tuning` takes, in one step."""
        replace_file(Path(path), self.tuning.text().encode(), 0o666)
        return Path(path)


def tune(
    model: str | Path | onnx.ModelProto | Graph,
    *,
    target: str = "native",
    calibration: Data | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    options: Options = _DEFAULTS,
    candidates: int = CANDIDATES,
    threads: int = 1,
    rounds: Rounds = ROUNDS,
) -> Measured:
    """Measures kernels and schedules of every layer of a model on this machine, up to `candidates` each.

    model, target, calibration, shapes, options: as `qcomp.compile` takes them (with `options.backend` "auto" kernels of
    both back ends take part); results are merged into `options.tuning`.  threads: what a layer is divided over, 0 for
    one a CPU.  Raises QcompError for whatever the user can mend, a target that this machine cannot run included.
    """
    if candidates < 1:
        raise QcompError(f"{candidates} candidates", where="candidates", fix="give 1 or more")
    if threads < 0:
        raise QcompError(f"{threads} threads", where="threads", fix="give a positive number, or 0 for one a CPU")
    machine = target_named(target)
    check_runs_here(machine)
    check_backend(options.backend, [machine], measured=True)
    before = read_tuning_of(options, [machine])
    nothing = tuning_of(machine, (), options.backend)
    before = (before or nothing).merged(nothing)  # refused before it costs any work
    progress = options.progress or (lambda stage, done, total: None)
    progress("import", 0, 1)
    graph = model if isinstance(model, Graph) else import_model(model, shapes)
    open_ranges = not is_quantized(graph) and not any(node.op.name in INTEGER_OPS for node in graph.nodes)
    by_preview = calibration is None and open_ranges
    progress("quantize", 0, 1)
    graph = preview(graph, options) if by_preview else quantize(graph, calibration, options)
    results = tune_graph(
        graph, machine, candidates, threads or len(os.sched_getaffinity(0)), options.cc, rounds, progress,
        backend=options.backend,
    )
    if not results:
        raise QcompError(
            f"no layer of the model has kernels with schedules on {machine.name}", fix="tune for a target with AVX2"
        )
    return Measured(tuple(results), before.merged(tuning_of(machine, results, options.backend)), by_preview)
