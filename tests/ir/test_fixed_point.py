"""Requantization in integers: the definition, next to exact rational arithmetic and to float32's."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcomp.errors import QcompError
from qcomp.ir.fixed_point import MOST_SHIFT, fixed_factors, fixed_sum_factors

MULTS = st.floats(2.0**-40, 2.0**20, width=32)
ACCUMULATORS = st.integers(-(2**31), 2**31 - 1)


@given(st.lists(MULTS, min_size=1, max_size=5), ACCUMULATORS)
def test_factors_use_their_bits_and_round_exactly(mults: list[float], acc: int) -> None:
    found = fixed_factors(np.asarray(mults, np.float32))
    (factors,) = found.factors
    assert 0 < found.shift <= MOST_SHIFT and factors.max() < 2**31
    assert factors.max() >= 2**30 or found.shift == MOST_SHIFT
    for mult, factor in zip(mults, factors.tolist(), strict=True):
        assert abs(Fraction(factor) - Fraction(mult) * 2**found.shift) <= Fraction(1, 2)
    steps = found.rounded(np.full(len(mults), acc, np.int32))
    expected = [floor(Fraction(acc * factor, 2**found.shift) + Fraction(1, 2)) for factor in factors.tolist()]
    assert steps.tolist() == expected


@given(MULTS, st.floats(2.0**-20, 2.0**13, width=32), ACCUMULATORS, st.integers(-255, 255))
def test_two_terms_are_added_before_they_are_rounded(mult: float, other: float, acc: int, term: int) -> None:
    found = fixed_factors(np.float32(mult), other)
    a, b = (int(factor) for factor in found.factors)
    total = Fraction(acc * a + term * b, 2**found.shift)
    assert found.rounded(np.int32(acc), np.int32(term)) == floor(total + Fraction(1, 2))
    assert max(a, b) < 2**30


@given(st.sampled_from([8, 16]), st.floats(0, 32, width=32), st.floats(0, 32, width=32))
def test_sums_of_short_terms_stay_in_32_bits(bits: int, a: float, b: float) -> None:
    found = fixed_sum_factors(bits, a, b)
    worst = sum(int(factor) for factor in found.factors) * (2**bits - 1) + 2 ** (found.shift - 1)
    assert worst < 2**31


@given(st.floats(2.0**-14, 0.5, width=32), st.integers(-(2**23), 2**23))
def test_away_from_ties_float32_rounds_to_the_same_step(mult: float, acc: int) -> None:
    exact = Fraction(mult) * acc
    distance = abs(exact - floor(exact) - Fraction(1, 2))
    if distance > abs(exact) / 2**20 + Fraction(1, 2**20):
        assert int(fixed_factors(mult).rounded(np.int32(acc))) == int(np.rint(np.float32(acc) * np.float32(mult)))


def test_all_zero_multipliers_give_zero() -> None:
    assert fixed_factors(np.zeros(3, np.float32)).rounded(np.array([5, -5, 2**31 - 1])).tolist() == [0, 0, 0]


def test_a_factor_that_is_too_large_is_refused() -> None:
    with pytest.raises(QcompError, match="too large for fixed-point"):
        fixed_factors(np.float32(2.0**31))
