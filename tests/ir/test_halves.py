"""Multipliers as halves times a shared power of two."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcomp.ir.halves import from_halves, to_halves

floats = st.floats(2.0**-60, 2.0**60, width=32)


@given(st.lists(floats, min_size=1, max_size=20), st.integers(0, 28))
def test_values_near_the_largest_are_rounded_to_eleven_bits(values, spread):
    array = np.array(values, np.float32)
    array = np.clip(array, array.max() / np.float32(2.0**spread), None)
    rounded = from_halves(*to_halves(array))
    assert np.all(np.abs(rounded - array) <= 2.0**-11 * array)
    mantissas = np.frexp(rounded)[0] * 2.0**11
    assert np.array_equal(mantissas, np.rint(mantissas))


@given(st.lists(floats, min_size=1, max_size=20))
def test_rounded_values_stay_as_they_are(values):
    once = from_halves(*to_halves(np.array(values, np.float32)))
    assert np.array_equal(from_halves(*to_halves(once)), once)


def test_a_largest_value_that_rounds_up_takes_the_next_power_of_two():
    halves, unit = to_halves(np.array([0.99999, -0.25], np.float32))
    assert from_halves(halves, unit).tolist() == [1.0, -0.25]


@pytest.mark.parametrize("values", [[0.0, 0.0], [], [-0.0]])
def test_zeros_have_halves(values):
    array = np.array(values, np.float32)
    assert np.array_equal(from_halves(*to_halves(array)), array)


def test_values_that_are_too_small_beside_the_largest_become_zero():
    assert from_halves(*to_halves(np.array([1.0, 1e-20], np.float32))).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("values", [[1e30, 1.0], [1e-40, 1e-38], [3e38]])
def test_extreme_values_have_no_exact_halves_and_nothing_is_raised(values):
    array = np.array(values, np.float32)
    assert not np.array_equal(from_halves(*to_halves(array)), array)
