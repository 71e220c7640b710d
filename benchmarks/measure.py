"""Timings that hold on a machine that is not quite quiet: sides take turns in short rounds, ratios are taken inside
each round."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

_PAUSE_SECONDS = 0.005
_SIDE_SECONDS = 0.06
_PROCESSES = 5


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each side: one list a round."""

    rounds: Mapping[str, list[list[float]]]

    def median(self, side: str) -> float:
        return statistics.median(t for times in self.rounds[side] for t in times)

    def least(self, side: str) -> float:
        return min(t for times in self.rounds[side] for t in times)

    def ratio(self, side: str, base: str) -> float:
        """How many times longer `side` takes than `base`: the median over the rounds of the ratio of medians."""
        pairs = zip(self.rounds[side], self.rounds[base], strict=True)
        return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)


def interleave(sides: Mapping[str, Callable[[], object]], seconds: float) -> Timings:
    """Times all sides in rounds that take turns, for about `seconds` in all, at least three rounds.

    A pause before each turn lets the worker threads of the side before go to sleep; one run then fills the caches and
    is not counted.
    """
    once = {name: _seconds(side) for name, side in sides.items()}
    counts = {name: max(1, round(_SIDE_SECONDS / t)) for name, t in once.items()}
    round_seconds = sum((counts[name] + 1) * t + _PAUSE_SECONDS for name, t in once.items())
    rounds: dict[str, list[list[float]]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(max(3, round(seconds / round_seconds))):
        for name in order if turn % 2 == 0 else reversed(order):
            time.sleep(_PAUSE_SECONDS)
            sides[name]()
            rounds[name].append([_seconds(sides[name]) * 1e3 for _ in range(counts[name])])
    return Timings(rounds)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Start:
    """A process that loads a model and runs it once: milliseconds for that, memory above numpy's in bytes."""

    milliseconds: float
    resident: int


# argv: engine, model, a .npz with the inputs.  The modules are imported before the clock starts.
_START = """
import json, sys, time
import numpy as np
def resident():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024
engine, path, data = sys.argv[1:]
feed = dict(np.load(data))
before = resident()
if engine == "qcomp":
    import qcomp
    qcomp.load
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
start = time.perf_counter()
if engine == "qcomp":
    model = qcomp.load(path)
    model.run(feed)
else:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, feed)
print(json.dumps([(time.perf_counter() - start) * 1e3, resident() - before]))
"""


def start(engine: str, model: str, feed: str) -> Start:
    """Medians over processes of their own; `engine` is "qcomp" or "onnxruntime", `feed` an .npz file."""
    rows = []
    for _ in range(_PROCESSES):
        command = [sys.executable, "-c", _START, engine, model, feed]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
    milliseconds, resident = np.median(np.asarray(rows, np.float64), axis=0)
    return Start(float(milliseconds), int(resident))
