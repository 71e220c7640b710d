"""Magika, Google's classifier of file types, on files of known extension that the zoo's packages hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qcomp.zoo import cache, packages
from qcomp.zoo.case import Array, Case, Metric

INPUT = "bytes"
MODEL = "magika/models/standard_v3_3"
# The model sees the first and last 1,024 bytes of the first and last 4,096, white space at the ends aside.
PART, BLOCK, PADDING, LEAST_BYTES = 1024, 4096, 256, 8
TEST_FILES, CALIBRATION_FILES = 1200, 128
# No type has more than this share of the files.
MOST_OF_A_TYPE = 170

WHEELS = ("Sphinx", "foolbox", "matplotlib", "mlxtend", "rapidocr-onnxruntime", "scikit-image", "scikit-learn", "timm")
SOURCES = ("Pygments",)
# File name ending -> the labels that are right for it; pages of HTML are mostly templates, which Twig's look like.
TYPES: dict[str, tuple[str, ...]] = {
    "asm": ("asm",), "bat": ("batch",), "c": ("c",), "clj": ("clojure",), "cmake": ("cmake",),
    "coffee": ("coffeescript",), "cpp": ("cpp",), "cs": ("cs",), "css": ("css",), "csv": ("csv",),
    "eml": ("eml",), "erl": ("erlang",), "f90": ("fortran",), "gif": ("gif",), "go": ("go",),
    "groovy": ("groovy",), "gz": ("gzip",), "h": ("c", "cpp"), "hs": ("haskell",), "html": ("html", "jinja", "twig"),
    "ini": ("ini",), "java": ("java",), "jpg": ("jpeg",), "js": ("javascript",),
    "json": ("json",), "kt": ("kotlin",), "lua": ("lua",), "md": ("markdown",), "npy": ("npy",), "npz": ("npz",),
    "onnx": ("onnx",), "pas": ("pascal",), "pdf": ("pdf",), "php": ("php",), "pl": ("perl", "prolog"), "png": ("png",),
    "po": ("po",), "ps1": ("powershell",), "py": ("python",), "pyi": ("python",), "rb": ("ruby",), "rs": ("rust",),
    "rst": ("rst",), "scala": ("scala",), "sh": ("shell",), "so": ("elf",), "sql": ("sql",), "sty": ("latex",),
    "svg": ("svg",), "swift": ("swift",), "tif": ("tiff",), "toml": ("toml",),
    "ts": ("typescript",), "ttf": ("ttf",), "vhdl": ("vhdl",), "vue": ("vue",), "xml": ("xml",),
    "yaml": ("yaml",), "yml": ("yaml",),
}  # fmt: skip


def case() -> Case:
    """1,200 files of 57 types; a file counts when the likeliest label is one of those of its extension."""
    names = labels()
    data = cache.cached_arrays("data/magika-v1.npz", _files)
    endings = [str(ending) for ending in data["endings"]]

    def answers(outputs: Array) -> list[str]:
        return [names[index] for index in np.argmax(np.reshape(outputs, (-1, len(names))), axis=1)]

    def metric(outputs: Array) -> dict[str, float]:
        right = [answer in TYPES[ending] for answer, ending in zip(answers(outputs), endings, strict=True)]
        return {"top1": float(np.mean(right))}

    judged: Metric = metric
    return Case(
        name="magika",
        onnx_path=packages.resource(packages.python_package("magika"), f"{MODEL}/model.onnx"),
        shapes={INPUT: (1, 2 * PART)},
        calibration_inputs={INPUT: data["calibration"].astype(np.int32)},
        test_inputs={INPUT: data["test"].astype(np.int32)},
        labels=endings,
        metric=judged,
        answers=answers,
        reference={"top1": 0.964},
        notes=[
            f"files of the zoo's own packages, labelled by extension; at most {MOST_OF_A_TYPE} of a type",
            f"calibration: {CALIBRATION_FILES} other files of the same packages",
        ],
    )


def labels() -> list[str]:
    """Names of the model's 214 outputs."""
    config = packages.resource(packages.python_package("magika"), f"{MODEL}/config.min.json")
    return [str(name) for name in json.loads(config.read_text("utf-8"))["target_labels_space"]]


def features(content: bytes) -> Array:
    """int32 [2048]: the first and last bytes, padded in between where the file is short."""
    first, last = content[:BLOCK].lstrip()[:PART], content[-BLOCK:].rstrip()[-PART:]
    row = np.full(2 * PART, PADDING, np.int32)
    row[: len(first)] = np.frombuffer(first, np.uint8)
    row[2 * PART - len(last) :] = np.frombuffer(last, np.uint8)
    return row


def _files() -> dict[str, Array]:
    """Features uint16 [n, 2048] of test and calibration files, and the name endings of the former."""
    cache.progress("reading files for magika")
    random = np.random.default_rng(2048)
    by_ending: dict[str, list[Array]] = {}
    seen: set[bytes] = set()
    for path in _paths():
        row = features(path.read_bytes())
        if row[LEAST_BYTES - 1] != PADDING and row.tobytes() not in seen:
            seen.add(row.tobytes())
            by_ending.setdefault(path.suffix[1:], []).append(row)
    chosen = []
    for ending, rows in sorted(by_ending.items()):
        chosen += [(ending, rows[index]) for index in random.permutation(len(rows))[:MOST_OF_A_TYPE]]
    order = random.permutation(len(chosen))[: TEST_FILES + CALIBRATION_FILES]
    table = np.stack([chosen[index][1] for index in order]).astype(np.uint16)
    return {
        "test": table[:TEST_FILES],
        "calibration": table[TEST_FILES:],
        "endings": np.array([chosen[index][0] for index in order[:TEST_FILES]]),
    }


def _paths() -> Iterator[Path]:
    """Files with an ending of TYPES, in the same order on every machine."""
    folders = [packages.python_package(name) for name in WHEELS] + [packages.source_package(name) for name in SOURCES]
    for folder in folders:
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        # Pygments keeps pieces of programs in text files.
        yield from (p for name, p in sorted(found.items()) if p.suffix[1:] in TYPES and "/tests/snippets/" not in name)
