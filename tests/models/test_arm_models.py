"""Real models compiled for 64-bit ARM give the interpreter's bits on real inputs, run by qemu."""

from __future__ import annotations

from pathlib import Path

import pytest

import qcomp
import qcomp.zoo
from qcomp.emulation import EmulatedModel, emulator_command
from qcomp.errors import QcompError
from qcomp.ir import run
from qcomp.targets import target

INPUTS = 3
MODELS = ("efficientnet_lite0", "mnist_resnet8", "mnist_dscnn", "ppocr_rec")
# target and processor: the levels by themselves, and the file that carries all on processors of each kind
RUNS = [
    ("aarch64-i8mm", None), ("aarch64-dotprod", None), ("aarch64", "max"), ("aarch64", "neoverse-n1"),
    ("aarch64", "cortex-a53"),
]  # fmt: skip


def _missing() -> str:
    try:
        emulator_command(target("aarch64"))
    except QcompError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.skipif(bool(_missing()), reason=_missing())
@pytest.mark.parametrize(("name", "cpu"), RUNS)
@pytest.mark.parametrize("model", MODELS)
def test_outputs_are_the_interpreters(model: str, name: str, cpu: str | None, tmp_path: Path) -> None:
    case = qcomp.zoo.load(model)
    samples = case.calibration_samples(16)
    artifact = qcomp.compile(case.onnx_path, shapes=case.shapes, target=name, calibration=samples)
    path = artifact.save(tmp_path / "model.so")
    feeds = list(case.feeds(INPUTS))
    for feed, found in zip(feeds, EmulatedModel(path, 2, cpu).run_all(feeds), strict=True):
        for output, array in run(artifact.graph, feed).items():
            assert array.tobytes() == found[output].tobytes(), output
