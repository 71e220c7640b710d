"""What a new process takes to load a model and run it once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

_PROCESSES = 5


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
