"""Options that fit a model to a small target: arithmetic, what goes in and out, memory."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Requantize(StrEnum):
    """How results are rounded."""

    FLOAT = "float"
    FIXED = "fixed"


class Io(StrEnum):
    """What a model's inputs and outputs are."""

    FLOAT = "float"
    INT8 = "int8"


RequantizeForm = Annotated[
    Requantize | None,
    typer.Option("--requantize", show_default=False,
                 help="Round results with float32, or in integers alone; without it, what fits the target."),
]  # fmt: skip
IoForm = Annotated[
    Io | None,
    typer.Option("--io", show_default=False,
                 help="Inputs and outputs as in the model, or the int8 that it computes with; without it, float but "
                      "for targets without floating point."),
]  # fmt: skip
MaxRam = Annotated[
    str | None,
    typer.Option("--max-ram", metavar="BYTES|KB|KiB", show_default=False,
                 help="Most bytes of RAM: arena, inputs and outputs; without it, what the target has."),
]  # fmt: skip
MaxRom = Annotated[
    str | None,
    typer.Option("--max-rom", metavar="BYTES|KB|KiB", show_default=False,
                 help="Most bytes of flash: code and constants; without it, what the target has."),
]  # fmt: skip
