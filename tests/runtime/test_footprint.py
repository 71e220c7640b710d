"""What a process that only loads and runs an artifact takes: memory above numpy alone, and modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qcomp
import qcomp.zoo
from qcomp.ir import Graph, TensorType

MEGABYTE = 1 << 20

# Prints, as JSON, the private and proportional kilobytes of a process after numpy, and after load and three runs.
SCRIPT = """
import json, sys
import numpy as np
def resident():
    lines = open("/proc/self/smaps_rollup").read().splitlines()[1:]
    table = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return table["Pss"], table["Rss"]
before = resident()
import qcomp
with qcomp.load(sys.argv[1]) as model:
    feed = {t.name: np.ones(t.shape, t.dtype) for t in model.inputs}
    for _ in range(3):
        model.run(feed)
    after = resident()
print(json.dumps([before, after]))
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps_rollup")


def growth(artifact: Path) -> tuple[int, int]:
    """Bytes of proportional and of resident memory above a process that has imported numpy."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(artifact)], check=True, capture_output=True, text=True)
    before, after = json.loads(done.stdout)
    return (after[0] - before[0]) * 1024, (after[1] - before[1]) * 1024


def test_a_small_model_takes_less_than_four_megabytes(tmp_path: Path) -> None:
    graph = Graph("small")
    x = graph.input("x", TensorType.f32(1, 32))
    w = graph.constant(np.random.default_rng(0).normal(0, 1, (8, 32)).astype(np.float32))
    graph.outputs = [graph.add("gemm", [x, w], {"trans_b": True}, names=["y"]).output]
    data = np.random.default_rng(1).normal(0, 1, (8, 1, 32)).astype(np.float32)
    path = qcomp.compile(graph, calibration=[{"x": row} for row in data]).save(tmp_path / "small.so")
    proportional, resident = growth(path)
    print(f"small model: {proportional / MEGABYTE:.2f} MB proportional, {resident / MEGABYTE:.2f} MB resident")
    assert resident <= 4 * MEGABYTE


@pytest.mark.slow
def test_mobilenet_takes_less_than_ten_megabytes(tmp_path: Path) -> None:
    case = qcomp.zoo.load("mobilenet_v2")
    artifact = qcomp.compile(case.onnx_path, calibration=case.calibration[:16], shapes=case.shapes)
    proportional, resident = growth(artifact.save(tmp_path / "mobilenet.so"))
    print(f"MobileNetV2: {proportional / MEGABYTE:.2f} MB proportional, {resident / MEGABYTE:.2f} MB resident")
    assert resident <= 10 * MEGABYTE
