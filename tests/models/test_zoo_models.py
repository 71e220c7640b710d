"""The zoo's models, compiled: the interpreter's integers, the float model's accuracy, a quarter of its size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import qcomp
import qcomp.zoo
from qcomp.compiler import Artifact
from qcomp.ir import run
from qcomp.runtime.features import cpu_features, machine
from qcomp.runtime.loader import Model
from qcomp.zoo.case import Case
from qcomp.zoo.onnxruntime_float import reference_outputs

CALIBRATION_SAMPLES = 64
# Largest artifact as a share of the float file: weights are a quarter of it, biases and multipliers of many small
# channels a hundredth more, and code does not shrink with the weights.
SIZE_RATIO = {
    "efficientnet_lite0": 0.27,
    "mobilenet_v2": 0.27,
    "resnet50": 0.27,
    "page_orientation": 0.27,
    "yolov8n_320": 0.27,
    "ppocr_rec": 0.27,
    "ppocr_det": 0.295,
    "mnist_resnet8": 0.35,
    "wakeword_embedding": 0.29,
    "magika": 0.27,
}


@dataclass(frozen=True)
class Row:
    """What to ask of one case: inputs compared with the interpreter, and least figures of its metric."""

    name: str
    compared: int = 20
    judged: int | None = None
    """Inputs the metric is taken over; None: all."""
    least: tuple[tuple[str, float], ...] = ()
    loss: float = 0.02
    """How far each figure may fall below the float model's."""


# Random networks have no accuracy: only their distance from float32 is judged (docs/models.md has onnxruntime's).
ROWS = {
    "digits_mlp": Row("digits_mlp", 200),
    "ppocr_rec": Row("ppocr_rec", least=(("exact_match", 0.92),), loss=0.05),
    "efficientnet_lite0": Row("efficientnet_lite0", loss=0.02),
    "efficientnet_lite0_views": Row("efficientnet_lite0_views", least=(("agreement", 0.95),), loss=0.02),
    "mnist_resnet8": Row("mnist_resnet8", 40, loss=0.005),
    "mnist_dscnn": Row("mnist_dscnn", 40, loss=0.005),
    "mnist_dscnn_qat": Row("mnist_dscnn_qat", 40, loss=0.005),
    "mobilenet_v2": Row("mobilenet_v2", least=(("cosine", 0.93),), loss=1.0),
    "resnet50": Row("resnet50", least=(("cosine", 0.985),), loss=1.0),
    "yolov8n_320": Row("yolov8n_320", least=(("cosine", 0.85),), loss=1.0),
    "resnet8_32": Row("resnet8_32", 40, least=(("cosine", 0.99),), loss=1.0),
    "dscnn_49x10": Row("dscnn_49x10", 40, least=(("cosine", 0.99),), loss=1.0),
    "ppocr_det": Row("ppocr_det", loss=0.02),
    "page_orientation": Row("page_orientation", loss=0.04),
    "minilm_sentiment": Row("minilm_sentiment", loss=0.03),
    "minilm_128": Row("minilm_128", loss=0.03),
    "wakeword_embedding": Row("wakeword_embedding", least=(("cosine", 0.99),), loss=0.03),
    "magika": Row("magika", 5, loss=0.02),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ROWS]


@cache
def case_of(name: str) -> Case:
    return qcomp.zoo.load(name)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """`compiled(name)`: the artifact and its file, made once."""
    folder = tmp_path_factory.mktemp("artifacts")

    @cache
    def make(name: str) -> tuple[Artifact, Path]:
        case = case_of(name)
        quantized = name.endswith("_qat")
        samples = None if quantized else case.calibration_samples(CALIBRATION_SAMPLES)
        artifact = qcomp.compile(case.onnx_path, calibration=samples, shapes=case.shapes)
        return artifact, artifact.save(folder / f"{name}.so")

    return lambda name: make("efficientnet_lite0" if name == "efficientnet_lite0_views" else name)


def outputs(model: Model, case: Case, count: int | None = None) -> np.ndarray:
    """The first output for the case's inputs, stacked."""
    first = model.outputs[0].name
    return np.concatenate([model.run(feed)[first] for feed in case.feeds(count)])


def check_bits(artifact: Artifact, path: Path, case: Case, count: int) -> None:
    with qcomp.load(path, threads=2) as model:
        for i, feed in enumerate(case.feeds(count)):
            expected, found = run(artifact.graph, feed), model.run(feed)
            assert [n for n, a in expected.items() if a.tobytes() != found[n].tobytes()] == [], f"input {i}"


def check_figures(path: Path, case: Case, row: Row) -> None:
    with qcomp.load(path, threads=2) as model:
        figures = case.metric(outputs(model, case))
    floats = case.metric(reference_outputs(case))
    print(f"{row.name}: {figures}, float32 {floats}")
    for key, value in floats.items():
        if key not in ("agreement", "cosine"):
            assert figures[key] >= value - row.loss, key
    for key, least in row.least:
        assert figures[key] >= least, key


@pytest.mark.parametrize(("name", "count"), [("digits_mlp", 50), ("ppocr_rec", 3)])
def test_quick_models_give_the_interpreters_integers(name: str, count: int, compiled) -> None:  # type: ignore[no-untyped-def]
    check_bits(*compiled(name), case_of(name), count)


def test_digits_are_read_as_well_as_by_the_float_model(compiled) -> None:  # type: ignore[no-untyped-def]
    check_figures(compiled("digits_mlp")[1], case_of("digits_mlp"), ROWS["digits_mlp"])


@pytest.mark.parametrize("name", SLOW)
def test_every_model_gives_the_interpreters_integers(name: str, compiled) -> None:  # type: ignore[no-untyped-def]
    check_bits(*compiled(name), case_of(name), ROWS[name].compared)


SMALL = ("mnist_resnet8", "mnist_dscnn", "mnist_dscnn_qat", "resnet8_32", "dscnn_49x10")


@pytest.mark.skipif(machine() != "x86_64", reason="needs an x86 CPU")
@pytest.mark.parametrize("name", ["digits_mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in SMALL)])
def test_every_level_of_a_portable_artifact_gives_the_interpreters_integers(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    samples = None if name.endswith("_qat") else case.calibration_samples(CALIBRATION_SAMPLES)
    artifact = qcomp.compile(case.onnx_path, target="x86_64", calibration=samples, shapes=case.shapes)
    path = artifact.save(tmp_path / "model.so")
    here = [level.name for level in artifact.package.levels if level.features <= cpu_features()]
    feeds = list(case.feeds(5))
    expected = [run(artifact.graph, feed) for feed in feeds]
    for level in here:
        with qcomp.load(path, level=level) as model:
            found = [model.run(feed) for feed in feeds]
        for wanted, given in zip(expected, found, strict=True):
            assert [n for n, a in wanted.items() if a.tobytes() != given[n].tobytes()] == [], level
    with qcomp.load(path) as model:
        assert model.info.target == here[0]


@pytest.mark.parametrize("name", SLOW)
def test_every_model_keeps_its_accuracy(name: str, compiled) -> None:  # type: ignore[no-untyped-def]
    check_figures(compiled(name)[1], case_of(name), ROWS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZE_RATIO)
def test_an_artifact_takes_little_more_than_a_quarter_of_the_float_file(name: str, compiled) -> None:  # type: ignore[no-untyped-def]
    ratio = compiled(name)[1].stat().st_size / case_of(name).onnx_path.stat().st_size
    print(f"{name}: {ratio:.4f}")
    assert ratio <= SIZE_RATIO[name]
