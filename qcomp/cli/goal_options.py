"""Options of the search for a mix of precisions, and of what judges outputs; how their texts are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcomp.errors import QcompError

if TYPE_CHECKING:
    from qcomp.cli.arguments import Order, Resize
    from qcomp.ir.graph import Graph
    from qcomp.quantize.goals import Goal
    from qcomp.quantize.judging import Judging

MaxDrop = Annotated[
    str | None,
    typer.Option("--max-drop", metavar="0.5%", show_default=False,
                 help="Goal: how far accuracy (without labels: agreement) may fall below float32."),
]  # fmt: skip
MinSqnr = Annotated[
    float | None,
    typer.Option("--min-sqnr", metavar="DB", show_default=False, help="Goal: least signal to noise ratio of outputs."),
]
MaxLatency = Annotated[
    float | None,
    typer.Option("--max-latency", metavar="MS", show_default=False, help="Goal: most milliseconds of a run."),
]
MaxSize = Annotated[
    str | None,
    typer.Option("--max-size", metavar="BYTES|KB|MB", show_default=False, help="Goal: most bytes of the artifact."),
]
Validate = Annotated[
    Path | None,
    typer.Option("--validate", metavar="DATA", show_default=False,
                 help="Samples to judge mixes on; without it, those of --calibrate."),
]  # fmt: skip
LabelsFile = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", show_default=False,
                 help="The right class of each of these samples: .npy, .npz, .json or .txt."),
]  # fmt: skip
Decode = Annotated[
    str,
    typer.Option("--decode", metavar="argmax|ctc", help="How outputs become answers: a class a row, or a sequence."),
]
Ignore = Annotated[
    str,
    typer.Option("--ignore", metavar="N[,N]", show_default=False, help="Classes left out of sequences (--decode ctc)."),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", show_default=False,
                 help="A Dask scheduler: measure on its machines."),
]  # fmt: skip
SavePrecision = Annotated[
    Path | None,
    typer.Option("--save-precision", metavar="FILE", show_default=False,
                 help="Write the mix that was found, for --precision."),
]  # fmt: skip

_UNITS = {"kib": 1 << 10, "mib": 1 << 20, "kb": 1000, "mb": 1000**2, "k": 1000, "m": 1000**2, "b": 1, "": 1}

Images = tuple[str | None, str | None, str | None, "Order", "Resize"]


def parse_share(option: str, text: str) -> float:
    """`0.5%` or `0.005` -> 0.005."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise QcompError(f"{text!r} is no share", where=option, fix="write 0.5% or 0.005") from None


def parse_bytes(option: str, text: str) -> int:
    """`300KB` -> 300000, `1.5MiB` -> 1572864."""
    number = text.lower().rstrip("kmib")
    try:
        size = round(float(number) * _UNITS[text.lower()[len(number) :].strip()])
    except (ValueError, KeyError, OverflowError):
        size = -1
    if size < 0:
        raise QcompError(f"{text!r} is no size", where=option, fix="write 300000, 300KB, 64KiB or 1.5MB")
    return size


def goal_of(drop: str | None, sqnr: float | None, latency: float | None, size: str | None) -> Goal:
    """The goal that the options describe; it may bound nothing."""
    from qcomp.quantize.goals import Goal

    return Goal(
        None if drop is None else parse_share("--max-drop", drop),
        sqnr,
        latency,
        None if size is None else parse_bytes("--max-size", size),
    )


def judging_of(
    graph: Graph, validate: Path | None, labels: Path | None, decode: str, ignore: str, scheduler: str | None,
    threads: int, images: Images,
) -> Judging:  # fmt: skip
    """What judges the outputs of a graph."""
    from qcomp.cli.arguments import samples_for
    from qcomp.quantize.answers import Answers
    from qcomp.quantize.judging import Judging
    from qcomp.quantize.labels import read_labels

    try:
        left_out = tuple(int(word) for word in ignore.split(",")) if ignore else ()
    except ValueError:
        raise QcompError(f"{ignore!r} are no classes", where="--ignore", fix="write 0 or 3,7") from None
    return Judging(
        None if validate is None else samples_for(graph, validate, *images),
        None if labels is None else read_labels(labels),
        Answers(decode, left_out),
        threads,
        scheduler,
        "labels" if labels is None else str(labels),
    )


def check_search(given: Mapping[str, object], search: str) -> None:
    """QcompError for options of a search, by name (None: not given), where there is none."""
    check_unused(given, "a search", search)


def check_unused(given: Mapping[str, object], purpose: str, needed: str) -> None:
    """QcompError for options, by name (None: not given), whose purpose is not there."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        them = "it" if len(names) == 1 else "them"
        verb = "is" if len(names) == 1 else "are"
        raise QcompError(f"{', '.join(names)} {verb} for {purpose}", fix=f"give {needed} as well, or leave {them} out")


def check_precision_options(precision: str | None, calibrate: Path | None, given: Mapping[str, object]) -> None:
    """QcompError for options of a search without one (`given`: by name, None where they are not), and for a precision
    without data."""
    from qcomp.passes.precision import read_precision

    if precision != "auto":
        check_search(given, "--precision auto")
    if precision is None:
        return
    if calibrate is None:
        raise QcompError("there is no data to quantize with", where="--precision", fix="give --calibrate DATA")
    if precision != "auto":
        read_precision(Path(precision))
