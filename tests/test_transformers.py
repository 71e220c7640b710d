"""Encoders from ONNX to artifacts: products on integers, the interpreter's bits, the float model's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from transformer_models import encoder, sentences

import qcomp
from qcomp.ir import run


def float_results(model, data: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {k: v[i] for k, v in data.items()})[0] for i in range(len(data["ids"]))])


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.mark.parametrize("target", ["native", "x86_64-avx512vnni", "x86_64-avx2"])
def test_an_encoder_runs_on_integers(model, target: str, tmp_path: Path) -> None:
    artifact = qcomp.compile(model, target=target, calibration=sentences(48))
    assert artifact.coverage.integer_share == 1.0
    ops = [n.op.name for n in artifact.graph.nodes]
    assert ops.count("qattention") == 2 and ops.count("qgemm") == 13
    # heads are views, and GELU is part of the product before it
    assert "transpose" not in ops and not {"table", "gelu", "erf", "softmax", "matmul"} & set(ops)
    path = artifact.save(tmp_path / "encoder.so")
    data = sentences(12, seed=5)
    expected = float_results(model, data)
    try:
        loaded = qcomp.load(str(path), threads=2)
    except qcomp.QcompError as error:
        pytest.skip(str(error))
    found = []
    for i in range(12):
        feed = {name: array[i] for name, array in data.items()}
        got, interpreted = loaded.run(feed), run(artifact.graph, feed)
        assert got.keys() == interpreted.keys()
        assert all(np.array_equal(got[name], interpreted[name]) for name in got)
        found.append(next(iter(got.values())))
    error = np.concatenate(found) - expected
    assert 10 * np.log10((expected**2).mean() / (error**2).mean()) > 20


def test_words_that_are_masked_change_nothing(model, tmp_path: Path) -> None:
    artifact = qcomp.compile(model, calibration=sentences(16))
    feed = {name: array[0] for name, array in sentences(1, seed=8).items()}
    feed["mask"][:, 7:] = 0
    other = {**feed, "ids": feed["ids"].copy()}
    other["ids"][:, 7:] = 3
    first, second = (next(iter(run(artifact.graph, f).values())) for f in (feed, other))
    assert np.array_equal(first, second)


def test_embeddings_are_stored_as_int8(tmp_path: Path) -> None:
    model = encoder(layers=1, words=4000)
    artifact = qcomp.compile(model, calibration=sentences(8, words=4000))
    size = artifact.save(tmp_path / "encoder.so").stat().st_size
    assert size < 0.45 * model.ByteSize()
