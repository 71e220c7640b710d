"""Requantization without floating point, for cores that lack it.

    fixed(acc, m) = floor(acc · M / 2^n + 1/2),    M = rne(m · 2^n)

M are int32 factors and n one shift for a node: the largest with which no |M| of the node reaches 2^31, and at most 62,
so that float32's precision is kept and the product fits in 64 bits.  Terms that are added before rounding share n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.errors import QcompError

MOST_SHIFT = 62
_BITS = 31


@dataclass(frozen=True)
class FixedFactors:
    """int64 integers within int32, and the shift that they share; 0 < shift <= 62."""

    factors: tuple[np.ndarray, ...]
    shift: int

    def rounded(self, *terms: np.ndarray) -> np.ndarray:
        """floor(Σ term·factor / 2^shift + 1/2) as int64; terms are integers within int32."""
        total = np.asarray(np.int64(1) << np.int64(self.shift - 1))
        for term, factor in zip(terms, self.factors, strict=True):
            total = total + np.asarray(term).astype(np.int64) * factor
        return np.asarray(total >> np.int64(self.shift))


def fixed_factors(*mults: np.ndarray | np.float32 | float) -> FixedFactors:
    """Of the factors of terms that are added: float32 arrays or numbers.  Raises QcompError from 2^29 on."""
    return _with_bits(_BITS if len(mults) == 1 else _BITS - 1, MOST_SHIFT - (len(mults) > 1), mults)


def fixed_sum_factors(term_bits: int, *mults: float) -> FixedFactors:
    """Of a sum of terms below 2^term_bits that, rounding included, stays in 32 bits."""
    total = sum(abs(float(m)) for m in mults)
    return _with_bits(_BITS - 1 - term_bits, _BITS - 1, (*mults, total), keep=len(mults))


def _with_bits(bits: int, most: int, mults: tuple[object, ...], keep: int | None = None) -> FixedFactors:
    arrays = [np.asarray(m, np.float64) for m in mults]
    largest = max((float(np.abs(a).max(initial=0.0)) for a in arrays), default=0.0)
    shift = most
    if largest > 0.0:
        shift = min(most, bits - math.frexp(largest)[1])
        if largest * 2.0**shift > 2.0**bits - 1:  # it would be rounded up to the power of two
            shift -= 1
    if shift < 1:
        raise QcompError(f"a factor of {largest:g} is too large for fixed-point arithmetic")
    return FixedFactors(tuple(np.rint(a * 2.0**shift).astype(np.int64) for a in arrays[:keep]), shift)
