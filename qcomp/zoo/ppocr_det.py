"""The PP-OCRv4 text detector on rendered pages whose lines are known."""

from __future__ import annotations

import numpy as np

from qcomp.zoo import packages, text
from qcomp.zoo.case import Array, Case

INPUT = "x"
SIDE = 640
TEST_PAGES, CALIBRATION_PAGES = 30, 16
TEST_SEED, CALIBRATION_SEED = 30, 16
# The detector's own settings (differentiable binarization, arXiv:1911.08947, as its package has them).
THRESHOLD, BOX_THRESHOLD, UNCLIP_RATIO, SMALLEST_SIDE = 0.3, 0.5, 1.6, 3

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; right and bottom are one past the last pixel."""


def case() -> Case:
    """30 rendered pages; precision, recall and F1 of boxes that overlap a true line by IoU 0.5 or more."""
    package = packages.python_package("rapidocr-onnxruntime")
    rendered = pages(TEST_PAGES, TEST_SEED)
    true: list[list[Box]] = [list(page.boxes) for page in rendered]

    def found(outputs: Array) -> list[list[Box]]:
        return [boxes(plane) for plane in np.reshape(outputs, (-1, SIDE, SIDE))]

    return Case(
        name="ppocr_det",
        onnx_path=packages.resource(package, "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"),
        shapes={INPUT: (1, 3, SIDE, SIDE)},
        calibration_inputs={INPUT: to_tensor(pages(CALIBRATION_PAGES, CALIBRATION_SEED))},
        test_inputs={INPUT: to_tensor(rendered)},
        labels=true,
        metric=lambda outputs: score(found(outputs), true),
        answers=lambda outputs: [f"{len(page)} lines" for page in found(outputs)],
        reference={"f1": 0.997, "onnxruntime_int8_f1": 0.993},
        notes=["pages rendered in DejaVu and STIX fonts; calibration: 16 other pages of another seed"],
    )


def pages(count: int, seed: int) -> list[text.Page]:
    """``count`` rendered pages, slightly blurred and noisy; the same for the same seed."""
    random = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        page = text.page(random, SIDE)
        out.append(text.Page(text.degrade(page.image, random, blur=1.0, noise=10.0), page.boxes))
    return out


def to_tensor(rendered: list[text.Page]) -> Array:
    """float32 [n, 3, 640, 640]: blue, green, red in [-1, 1]."""
    tensor = np.empty((len(rendered), 3, SIDE, SIDE), np.float32)
    for row, page in zip(tensor, rendered, strict=True):
        pixels = np.asarray(page.image, np.float32)[:, :, ::-1].transpose(2, 0, 1)
        row[:] = pixels / np.float32(127.5) - np.float32(1)
    return tensor


def boxes(probability: Array) -> list[Box]:
    """Upright boxes around the connected regions of text in a map of probabilities, float32 [640, 640].

    The model marks shrunken lines; each box grows by area * 1.6 / perimeter on every side.
    """
    found: list[Box] = []
    for left, top, right, bottom in _components(probability > THRESHOLD):
        width, height = right - left, bottom - top
        if min(width, height) < SMALLEST_SIDE or probability[top:bottom, left:right].mean() < BOX_THRESHOLD:
            continue
        grow = width * height * UNCLIP_RATIO / (2 * (width + height))
        found.append(
            (max(left - grow, 0), max(top - grow, 0), min(right + grow, SIDE), min(bottom + grow, SIDE))
        )
    return found


def score(found: list[list[Box]], true: list[list[Box]]) -> dict[str, float]:
    """Precision, recall and F1 over all pages; a true box is matched once, best overlap first."""
    matched = sum(_matches(page, lines) for page, lines in zip(found, true, strict=True))
    all_found, all_true = sum(map(len, found)), sum(map(len, true))
    precision, recall = matched / max(all_found, 1), matched / max(all_true, 1)
    return {"f1": 2 * matched / max(all_found + all_true, 1), "precision": precision, "recall": recall}


def _matches(found: list[Box], true: list[Box]) -> int:
    overlaps = [(_overlap(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(true)]
    used_found: set[int] = set()
    used_true: set[int] = set()
    for overlap, i, j in sorted(overlaps, reverse=True):
        if overlap >= 0.5 and i not in used_found and j not in used_true:
            used_found.add(i)
            used_true.add(j)
    return len(used_found)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def _components(mask: Array) -> list[tuple[int, int, int, int]]:
    """Bounding boxes (left, top, right, bottom) of the regions of True, neighbours by side or corner.

    Runs of True in a row are joined with the runs of the row above that they touch.
    """
    grown: list[list[int]] = []
    parents: list[int] = []

    def find(index: int) -> int:
        while parents[index] != index:
            index = parents[index]
        return index

    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        here = []
        for start, end in edges.reshape(-1, 2).tolist():
            index = len(parents)
            parents.append(index)
            grown.append([start, y, end, y + 1])
            for other_start, other_end, other in above:
                if other_start <= end and start <= other_end:
                    parents[find(index)] = find(other)
            here.append((start, end, index))
        above = here
    merged: dict[int, list[int]] = {}
    for index, box in enumerate(grown):
        whole = merged.setdefault(find(index), list(box))
        whole[:] = [
            min(whole[0], box[0]), min(whole[1], box[1]), max(whole[2], box[2]), max(whole[3], box[3])
        ]  # fmt: skip
    return [(box[0], box[1], box[2], box[3]) for box in merged.values()]
