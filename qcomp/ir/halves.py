"""Multipliers of 16 bits: IEEE half precision times a power of two that a node's channels share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: A half's largest exponent as numpy.frexp counts it (65504 = 0.9995 * 2**16).
_TOP = 16
#: Powers of two beyond this are left alone: products and quotients with them stay normal floats.
_REACH = 80


def to_halves(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float16], float]:
    """(halves, unit): values rounded to halves * unit.

    unit is a power of 2**16, so that most nodes of a graph have the same one, unless only the power of two that uses
    a half's range best keeps 11 bits of all values.  Those far smaller than the largest (2**-30 of it and below) lose
    more, down to zero; those beyond 2**80 become infinite.  Both factors and the product are exact in float32.
    """
    used = values[(values != 0) & np.isfinite(values)]
    top = int(np.clip(np.frexp(used)[1].max(), -_REACH, _REACH)) if used.size else 0
    common = _rounded(values, -(-top // 16) * 16 - _TOP)
    own = _rounded(values, top - _TOP)
    return common if np.array_equal(from_halves(*common), from_halves(*own)) else own


def _rounded(values: npt.NDArray[np.float32], exponent: int) -> tuple[npt.NDArray[np.float16], float]:
    with np.errstate(over="ignore"):
        halves = (values / np.float32(2.0**exponent)).astype(np.float16)
        if np.isinf(halves).any():  # the largest was rounded up to the next power of two
            exponent += 1
            halves = (values / np.float32(2.0**exponent)).astype(np.float16)
    return halves, 2.0**exponent


def from_halves(halves: npt.NDArray[np.float16], unit: float) -> npt.NDArray[np.float32]:
    """What `to_halves` rounded to."""
    return halves.astype(np.float32) * np.float32(unit)
