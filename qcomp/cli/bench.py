"""`qcomp bench`: how fast an artifact runs, alone or against another engine in the same process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import ArtifactPath, Json, Level, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from qcomp.cli.timing import Timing
    from qcomp.runtime.loader import Model, StepTime

Runs = Annotated[
    int, typer.Option("--runs", metavar="N", help="Runs of each side; 0 takes as many as fit into two seconds.")
]
Against = Annotated[
    str | None,
    typer.Option("--against", metavar="ENGINE", help="Compare with: onnxruntime, openvino.", show_default=False),
]
PeerModel = Annotated[
    Path | None,
    typer.Option("--model", metavar="MODEL.onnx", help="What the other engine runs, float or quantized.",
                 show_default=False),
]  # fmt: skip
Input = Annotated[
    Path | None,
    typer.Option("--input", "-i", metavar="IN", help="Inputs (.npz or .npy); random ones without it.",
                 show_default=False),
]  # fmt: skip
Profile = Annotated[
    bool, typer.Option("--profile", help="Show the time of every step, and its share of what this machine can compute.")
]  # fmt: skip


def bench(
    artifact: ArtifactPath,
    threads: Threads = 1,
    level: Level = None,
    runs: Runs = 0,
    against: Against = None,
    model: PeerModel = None,
    input: Input = None,
    profile: Profile = False,
    json: Json = False,
) -> None:
    """Time an artifact: median and fastest run."""
    from qcomp.cli.files import check_input, read_arrays
    from qcomp.cli.output import print_json
    from qcomp.cli.peers import peer
    from qcomp.cli.timing import interleave
    from qcomp.errors import QcompError
    from qcomp.runtime.loader import load

    check_input(artifact)
    if runs < 0:
        raise QcompError(f"{runs} runs", where="--runs", fix="give a positive number, or 0 for two seconds")
    _check_peer(against, model)
    with load(artifact, threads, level) as own:
        feed = read_arrays(input, [t.name for t in own.inputs]) if input is not None else _random_inputs(own)
        own.run(feed)  # finds unfit inputs before the other engine is loaded
        sides: dict[str, Callable[[], object]] = {"qcomp": lambda: own.run(feed)}
        if against is not None and model is not None:
            sides[against] = peer(against, model, own.threads, feed)
        times = interleave(sides, runs)
        steps = own.profile(feed, runs=max(3, min(100, times["qcomp"].runs))) if profile else []
        peak = _peak(own) if profile else None
        facts = _facts(own, times, steps, peak, artifact, against, model)
    if json:
        print_json(facts)
    else:
        _show(facts)


def _check_peer(against: str | None, model: Path | None) -> None:
    from qcomp.cli.files import check_input
    from qcomp.cli.peers import PEERS
    from qcomp.errors import QcompError

    if against is None:
        if model is not None:
            raise QcompError("nothing runs the model", where="--model", fix=f"give --against {' or '.join(PEERS)}")
        return
    if against not in PEERS:
        raise QcompError(f"no engine is called {against!r}", where="--against", fix=f"use {' or '.join(PEERS)}")
    if model is None:
        raise QcompError("it needs a model to run", where=f"--against {against}", fix="give --model MODEL.onnx")
    check_input(model)


def _random_inputs(model: Model) -> dict[str, np.ndarray]:
    """Standard normal numbers for float inputs, all values of the type for integers."""
    import numpy as np

    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for info in model.inputs:
        if info.dtype.kind == "f":
            arrays[info.name] = generator.standard_normal(info.shape).astype(info.dtype)
        elif info.dtype.kind == "b":
            arrays[info.name] = generator.integers(0, 2, info.shape).astype(np.bool_)
        else:
            limits = np.iinfo(info.dtype)
            arrays[info.name] = generator.integers(limits.min, limits.max, info.shape, info.dtype, endpoint=True)
    return arrays


def _peak(own: Model) -> float | None:
    """GOPS that the artifact's threads could reach with nothing but products; None where that is not known."""
    import importlib.util

    from qcomp.codegen.c.x86.peak import measured_peak
    from qcomp.targets import target, target_names

    if own.info.target not in target_names() or importlib.util.find_spec("ziglang") is None:
        return None
    one = measured_peak(target(own.info.target))
    return None if one is None else one * own.threads


def _facts(
    own: Model,
    times: dict[str, Timing],
    steps: list[StepTime],
    peak: float | None,
    artifact: Path,
    against: str | None,
    model: Path | None,
) -> dict[str, Any]:
    ours = times["qcomp"]
    macs = sum(step.macs for step in own.info.steps)
    facts: dict[str, Any] = {
        "artifact": str(artifact),
        "target": own.info.target,
        "threads": own.threads,
        "macs": macs,
        "qcomp": ours.facts() | {"gops": _gops(macs, ours.median_ms)},
    }
    if against is not None:
        facts["against"] = {"engine": against, "model": str(model)} | times[against].facts()
        facts["speedup"] = times[against].median_ms / ours.median_ms
    if steps:
        facts["peak_gops"] = peak
        facts["steps"] = [
            {"name": s.name, "op": s.op, "kernel": s.kernel, "ms": s.milliseconds,
             "gops": _gops(s.macs, s.milliseconds), "share": s.share}
            | ({} if peak is None else {"of_peak": _gops(s.macs, s.milliseconds) / peak})
            for s in steps
        ]  # fmt: skip
    return facts


def _gops(macs: int, milliseconds: float) -> float:
    """10^9 operations a second; a multiply-accumulate counts as two."""
    return 2 * macs / (milliseconds * 1e6) if milliseconds else 0.0


def _gops_text(gops: float) -> str:
    return f"{gops:.1f}" if gops else ""


def _show(facts: dict[str, Any]) -> None:
    from qcomp.cli.output import plural, print_table

    print(f"{facts['artifact']}: {facts['target']}, {plural(facts['threads'], 'thread')}\n")
    rows = [("qcomp", facts["qcomp"]["median_ms"], facts["qcomp"]["min_ms"], facts["qcomp"]["runs"])]
    if "against" in facts:
        peer = facts["against"]
        rows.append((peer["engine"], peer["median_ms"], peer["min_ms"], peer["runs"]))
    print_table("", ("engine", "median ms", "min ms", "runs"), rows)
    if facts["qcomp"]["gops"]:
        print(f"{facts['qcomp']['gops']:.1f} GOPS")
    if "speedup" in facts:
        word = "faster" if facts["speedup"] >= 1 else "slower"
        factor = facts["speedup"] if facts["speedup"] >= 1 else 1 / facts["speedup"]
        print(f"qcomp is {factor:.2f} times {word} than {facts['against']['engine']}")
    if "steps" in facts:
        print()
        peak = facts["peak_gops"]
        rows_of_steps = [
            (s["name"], s["op"], s["kernel"], f"{s['ms']:.4f}", _gops_text(s["gops"]),
             *([f"{s['of_peak']:.0%}" if s["gops"] else ""] if peak else []), f"{s['share']:.1%}")
            for s in facts["steps"]
        ]  # fmt: skip
        of_peak = ("of peak",) if peak else ()
        print_table("", ("step", "op", "kernel", "ms", "GOPS", *of_peak, "share"), rows_of_steps)
        if peak:
            print(f"peak: {peak:.0f} GOPS of nothing but int8 products ({plural(facts['threads'], 'thread')})")
