"""`qcomp bench`: how fast an artifact runs, alone or against other engines in the same process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import ArtifactPath, Json, Level, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from qcomp.cli.timing import Timings
    from qcomp.runtime.loader import Model, StepTime

Runs = Annotated[
    int, typer.Option("--runs", metavar="N", help="Runs of each side; 0 takes as many as fit into two seconds.")
]
Against = Annotated[
    str | None,
    typer.Option("--against", metavar="ENGINES", show_default=False,
                 help="Compare with some of onnxruntime, openvino, litert; commas between them."),
]  # fmt: skip
PeerModels = Annotated[
    list[Path] | None,
    typer.Option("--model", metavar="MODEL", show_default=False,
                 help="What the other engines run, float or quantized: .onnx, for litert .tflite. May be repeated; "
                 "every engine runs every file that it takes."),
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
    model: PeerModels = None,
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
    peers = _peers(against, model or [])
    with load(artifact, threads, level) as own:
        feed = read_arrays(input, [t.name for t in own.inputs]) if input is not None else _random_inputs(own)
        own.run(feed)  # finds unfit inputs before the other engine is loaded
        sides: dict[str, Callable[[], object]] = {"qcomp": own.bind(feed).run}
        for side, (engine, file) in peers.items():
            sides[side] = peer(engine, file, own.threads, feed)
        times = interleave(sides, runs)
        steps = own.profile(feed, runs=max(3, min(100, times.runs("qcomp")))) if profile else []
        peak = _peak(own) if profile else None
        facts = _facts(own, times, steps, peak, artifact, peers)
    if json:
        print_json(facts)
    else:
        _show(facts)


def _peers(against: str | None, models: list[Path]) -> dict[str, tuple[str, Path]]:
    """Engine and model of every side; a side is called as its engine, with the file where an engine runs several."""
    from qcomp.cli.files import check_input
    from qcomp.cli.peers import PEERS, pairs
    from qcomp.errors import QcompError

    if against is None:
        if models:
            raise QcompError("nothing runs the model", where="--model", fix=f"give --against {' or '.join(PEERS)}")
        return {}
    found = pairs(against, models)
    for model in models:
        check_input(model)
    alone = {engine for engine, count in Counter(engine for engine, _ in found).items() if count == 1}
    return {engine if engine in alone else f"{engine} {model}": (engine, model) for engine, model in found}


def _random_inputs(model: Model) -> dict[str, np.ndarray]:
    """Standard normal numbers for float inputs, all values for bytes; 0 and 1 for wider integers, which are mostly
    indices and masks."""
    import numpy as np

    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for info in model.inputs:
        if info.dtype.kind == "f":
            arrays[info.name] = generator.standard_normal(info.shape).astype(info.dtype)
        elif info.dtype.kind == "b" or info.dtype.itemsize > 1:
            arrays[info.name] = generator.integers(0, 2, info.shape).astype(info.dtype)
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
    times: Timings,
    steps: list[StepTime],
    peak: float | None,
    artifact: Path,
    peers: dict[str, tuple[str, Path]],
) -> dict[str, Any]:
    """`against` and `speedup` are of the fastest peer; `peers` has all of them."""
    macs = sum(step.macs for step in own.info.steps)
    facts: dict[str, Any] = {
        "artifact": str(artifact),
        "target": own.info.target,
        "threads": own.threads,
        "macs": macs,
        "qcomp": _times(times, "qcomp") | {"gops": _gops(macs, times.median("qcomp"))},
    }
    if peers:
        rows = {
            side: {"engine": engine, "model": str(model)} | _times(times, side)
            for side, (engine, model) in peers.items()
        }
        speedups = {side: times.median(side) / times.median("qcomp") for side in rows}
        fastest = min(rows, key=times.median)
        facts["against"], facts["speedup"] = rows[fastest], speedups[fastest]
        facts["peers"] = [row | {"side": side, "speedup": speedups[side]} for side, row in rows.items()]
    if steps:
        facts["peak_gops"] = peak
        facts["steps"] = [
            {"name": s.name, "op": s.op, "kernel": s.kernel, "ms": s.milliseconds,
             "gops": _gops(s.macs, s.milliseconds), "share": s.share}
            | ({} if peak is None else {"of_peak": _gops(s.macs, s.milliseconds) / peak})
            for s in steps
        ]  # fmt: skip
    return facts


def _times(times: Timings, side: str) -> dict[str, Any]:
    return {"median_ms": times.median(side), "min_ms": times.least(side), "runs": times.runs(side)}


def _gops(macs: int, milliseconds: float) -> float:
    """10^9 operations a second; a multiply-accumulate counts as two."""
    return 2 * macs / (milliseconds * 1e6) if milliseconds else 0.0


def _gops_text(gops: float) -> str:
    return f"{gops:.1f}" if gops else ""


def _show(facts: dict[str, Any]) -> None:
    from qcomp.cli.output import plural, print_table

    print(f"{facts['artifact']}: {facts['target']}, {plural(facts['threads'], 'thread')}\n")
    peers = facts.get("peers", [])
    rows = [("qcomp", facts["qcomp"]), *((peer["side"], peer) for peer in peers)]
    cells = [(name, f"{row['median_ms']:#.4g}", f"{row['min_ms']:#.4g}", row["runs"]) for name, row in rows]
    print_table("", ("engine", "median ms", "min ms", "runs"), cells)
    if facts["qcomp"]["gops"]:
        print(f"{facts['qcomp']['gops']:.1f} GOPS")
    for peer in peers:
        word = "faster" if peer["speedup"] >= 1 else "slower"
        factor = peer["speedup"] if peer["speedup"] >= 1 else 1 / peer["speedup"]
        print(f"qcomp is {factor:.2f} times {word} than {peer['side']}")
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
