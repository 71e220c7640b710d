"""The method that chooses for each tensor by the layers behind it (qcomp.quantize.choice); mse where nothing speaks."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.quantize.mse import Mse


@dataclass(frozen=True)
class Auto(Mse):
    """The range of least mean squared error, for `choose_ranges` to change."""

    name = "auto"
