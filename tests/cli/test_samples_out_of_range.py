"""Samples that fit a model's inputs, but that it cannot be run on: a token beyond its vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from onnx import TensorProto

Run = Callable[..., Any]

MESSAGE = "far.npz: sample 5: onnxruntime cannot run "
VALUES = "check its values (of indices, whether the model has so many: ids holds 0 to 99)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """model.onnx reads 4 tokens of 20; tokens.npz holds such, and far.npz one too large in sample 5."""
    proto = models.model(
        [
            models.node("Gather", ["table", "ids"], ["rows"]),
            models.node("Flatten", ["rows"], ["flat"]),
            models.node("Gemm", ["flat", "w"], ["y"], transB=1),
        ],
        [models.tensor("ids", [1, 4], TensorProto.INT64)],
        [models.tensor("y", [1, 3])],
        [models.weights("table", 20, 6), models.weights("w", 3, 24)],
    )
    models.save(proto, tmp_path / "model.onnx")
    ids = np.random.default_rng(0).integers(0, 20, (8, 4))
    np.savez(tmp_path / "tokens.npz", ids=ids)
    ids[5] = [99, 0, 3, 4]
    np.savez(tmp_path / "far.npz", ids=ids)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "compile model.onnx -o out.so --calibrate far.npz",
        "analyze model.onnx --calibrate tokens.npz --validate far.npz",
        "compile model.onnx -o out.so --calibrate tokens.npz --precision auto --min-sqnr 9 --validate far.npz",
        "compare model.onnx model.so --data far.npz --runs 10",
    ],
)
def test_the_sample_is_named(qcomp: Run, folder: Path, words: str) -> None:
    places = [folder / word if "." in word else word for word in words.split()]
    made = ("compile", folder / "model.onnx", "-o", folder / "model.so", "--calibrate", folder / "tokens.npz", "-q")
    assert "compare" not in words or qcomp(*made).status == 0
    outcome = qcomp(*places)
    assert (outcome.status, outcome.out) == (2, "")
    assert MESSAGE in outcome.err and VALUES in outcome.err and outcome.err.count("\n") == 1
