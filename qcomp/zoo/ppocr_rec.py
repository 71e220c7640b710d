"""The PP-OCRv4 text recognizer on rendered lines whose text is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from qcomp.zoo import packages, text
from qcomp.zoo.case import Array, Case

INPUT = "x"
HEIGHT, WIDTH = 48, 320
# Columns of the output: one for every 8 pixels.
STEPS = 40
TEST_LINES, CALIBRATION_LINES = 300, 64
TEST_SEED, CALIBRATION_SEED = 2024, 64


def case() -> Case:
    """300 rendered lines; a line counts when it is read without a mistake, spaces aside."""
    package = packages.python_package("rapidocr-onnxruntime")
    model = packages.resource(package, "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx")
    images, texts = lines(TEST_LINES, TEST_SEED)
    alphabet = characters(model)

    def read(outputs: Array) -> list[str]:
        return [line.strip() for line in decode(np.reshape(outputs, (-1, STEPS, len(alphabet))), alphabet)]

    def metric(outputs: Array) -> dict[str, float]:
        right = [
            got.replace(" ", "") == true.replace(" ", "")
            for got, true in zip(read(outputs), texts, strict=True)
        ]
        return {"exact_match": float(np.mean(right))}

    return Case(
        name="ppocr_rec",
        onnx_path=model,
        shapes={INPUT: (1, 3, HEIGHT, WIDTH)},
        calibration_inputs={INPUT: to_tensor(lines(CALIBRATION_LINES, CALIBRATION_SEED)[0])},
        test_inputs={INPUT: to_tensor(images)},
        labels=texts,
        metric=metric,
        answers=read,
        reference={"exact_match": 0.97, "onnxruntime_int8_exact_match": 0.677},
        notes=["lines rendered in DejaVu and STIX fonts; calibration: 64 other lines of another seed"],
    )


def lines(count: int, seed: int) -> tuple[list[Image.Image], list[str]]:
    """``count`` rendered lines (RGB) and their texts; the same for the same seed."""
    random = np.random.default_rng(seed)
    rendered = [text.line(random) for _ in range(count)]
    return [image for image, _ in rendered], [content for _, content in rendered]


def to_tensor(images: list[Image.Image]) -> Array:
    """float32 [n, 3, 48, 320]: blue, green, red in [-1, 1], height 48, padded with 0 on the right."""
    tensor = np.zeros((len(images), 3, HEIGHT, WIDTH), np.float32)
    for row, image in zip(tensor, images, strict=True):
        width = min(WIDTH, max(1, round(image.width * HEIGHT / image.height)))
        pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
        row[:, :, :width] = pixels[:, :, ::-1].transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)
    return tensor


def characters(model: Path) -> list[str]:
    """What the model's output classes mean: "" for the blank, the list in its metadata, and a space."""
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(str(model)).metadata_props}
    return ["", *properties["character"].splitlines(), " "]


def decode(outputs: Array, alphabet: list[str]) -> list[str]:
    """Greedy CTC: float32 [n, steps, classes] to n texts (best class a step, repeats once, no blanks)."""
    best = np.argmax(outputs, axis=2)
    kept = np.ones_like(best, dtype=bool)
    kept[:, 1:] = best[:, 1:] != best[:, :-1]
    return ["".join(alphabet[index] for index in row[mask]) for row, mask in zip(best, kept, strict=True)]
