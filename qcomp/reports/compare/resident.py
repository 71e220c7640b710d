"""Resident memory that an engine takes for one model, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError

_RUNS = 3
_SECONDS = 600


@dataclass(frozen=True)
class Resident:
    """Bytes: growth of the resident set from before the model was loaded to after some runs, and to its peak."""

    growth: int
    peak: int


def resident(
    engine: str, model: Path, threads: int, feed: Mapping[str, NDArray[Any]], level: str | None = None
) -> Resident | None:
    """Loads `model` in a new process ("onnxruntime": .onnx, "qcomp": an artifact, at a level of it), runs it on `feed`;
    None where the system does not tell a process its memory (only Linux does).

    QcompError if the process fails.
    """
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory(prefix="qcomp-") as folder:
        arrays = Path(folder) / "feed.npz"
        np.savez(arrays, allow_pickle=False, **{f"input{i}": a for i, a in enumerate(feed.values())})
        names = json.dumps(list(feed))
        command = [sys.executable, "-m", __name__, engine, str(model), str(threads), str(arrays), names, level or ""]
        roots = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots))}
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise QcompError(f"{engine} did not end within {_SECONDS} s", where=str(model)) from None
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise QcompError(f"{engine} failed in a process of its own ({line})", where=str(model), fix="check the model")
    growth, peak = json.loads(done.stdout.splitlines()[-1])
    return Resident(growth, peak)


def _status(key: str) -> int:
    """Bytes that /proc/self/status says."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


def _forget_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass  # the peak then counts what importing took besides: never too little


def _measure(
    engine: str, model: str, threads: int, feed: Mapping[str, NDArray[Any]], level: str | None
) -> tuple[int, int]:
    if engine == "onnxruntime":
        import onnxruntime

        _forget_peak()
        before = _status("VmRSS")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(_RUNS):
            session.run(None, dict(feed))
    else:
        from qcomp.runtime.loader import load

        _forget_peak()
        before = _status("VmRSS")
        loaded = load(model, threads, level)
        for _ in range(_RUNS):
            loaded.run(feed)
    return max(0, _status("VmRSS") - before), max(0, _status("VmHWM") - before)


def _main() -> None:
    engine, model, threads, arrays, names, level = sys.argv[1:]
    with np.load(arrays) as stored:
        feed = {name: stored[f"input{i}"] for i, name in enumerate(json.loads(names))}
    print(json.dumps(_measure(engine, model, int(threads), feed, level or None)))


if __name__ == "__main__":
    _main()
