"""Running commands in this process, and small models and data to run them on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from qcomp.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def qcomp(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`qcomp("run", artifact, ...)` runs the command line; what libraries write to the streams counts too."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Outcome(int(exit.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and data: mlp.onnx, convnet.onnx, softmax.onnx, two_inputs.onnx, mlp.npz, mlp_one.npz, ..."""
    folder = tmp_path_factory.mktemp("made")
    models.save(models.mlp(), folder / "mlp.onnx")
    models.save(models.mlp(batch="N"), folder / "dynamic.onnx")
    models.save(models.convnet(), folder / "convnet.onnx")
    models.save(models.with_softmax(), folder / "softmax.onnx")
    models.save(models.two_inputs(), folder / "two_inputs.onnx")
    models.save(models.qdq(), folder / "qdq.onnx")
    generator = np.random.default_rng(3)
    np.savez(folder / "mlp.npz", x=generator.standard_normal((40, 16)).astype(np.float32))
    np.savez(folder / "mlp_one.npz", x=generator.standard_normal((1, 16)).astype(np.float32))
    np.save(folder / "mlp_one.npy", generator.standard_normal((1, 16)).astype(np.float32))
    np.savez(folder / "convnet.npz", x=generator.standard_normal((4, 3, 8, 8)).astype(np.float32))
    return folder


@pytest.fixture(scope="session")
def artifact(made: Path) -> Path:
    """The mlp as an artifact."""
    path = made / "mlp.so"
    with pytest.raises(SystemExit) as exit:
        main(["compile", str(made / "mlp.onnx"), "-o", str(path), "--calibrate", str(made / "mlp.npz"), "--quiet"])
    assert exit.value.code == 0
    return path
