"""exp, log, erf, tanh, sin, cos and pow: accurate to the stated units in the last place, the same bits everywhere."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest

from qcomp.ir import fixed_math as fm

COUNT = 200_000


def every_size(rng: np.random.Generator) -> np.ndarray:
    """Finite float32 numbers with every exponent equally likely."""
    bits = rng.integers(0, 2**32, COUNT, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return bits[np.isfinite(bits)]


def between(low: float, high: float) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.uniform(low, high, COUNT).astype(np.float32)


def units(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Error in float32 units in the last place of the exact result."""
    return np.abs(y.astype(np.float64) - exact) / np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)


_ERF = np.vectorize(math.erf)


@pytest.mark.parametrize(
    ("ours", "exact", "draw", "ulp"),
    [
        (fm.exp, np.exp, between(-103.0, 88.7), fm.EXP_ULP),
        (fm.exp, np.exp, between(-0.4, 0.4), fm.EXP_ULP),
        (fm.log, np.log, lambda rng: np.abs(every_size(rng)) + np.float32(1e-45), fm.LOG_ULP),
        (fm.log, np.log, between(0.5, 2.0), fm.LOG_ULP),
        (fm.tanh, np.tanh, between(-10.0, 10.0), fm.TANH_ULP),
        (fm.tanh, np.tanh, every_size, fm.TANH_ULP),
        (fm.erf, _ERF, between(-4.5, 4.5), fm.ERF_ULP),
        (fm.erf, _ERF, every_size, fm.ERF_ULP),
    ],
)
def test_error_stays_below_the_stated_units(
    ours: Callable[[np.ndarray], np.ndarray],
    exact: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[np.random.Generator], np.ndarray],
    ulp: float,
) -> None:
    x = draw(np.random.default_rng(7))
    assert units(ours(x), exact(x.astype(np.float64))).max() < ulp


@pytest.mark.parametrize(("ours", "exact"), [(fm.sin, np.sin), (fm.cos, np.cos)])
@pytest.mark.parametrize("size", [4.0, 1e3, 1e6])
def test_sine_and_cosine_are_accurate(ours, exact, size: float) -> None:
    x = between(-size, size)(np.random.default_rng(8))
    reference = exact(x.astype(np.float64))
    y = ours(x)
    large = np.abs(reference) > 2.0**-10
    assert units(y[large], reference[large]).max() < fm.SIN_COS_ULP
    assert np.abs(y[~large] - reference[~large]).max(initial=0.0) < 2.0**-33


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (fm.exp, [1, 1, np.inf, 0, np.nan]),
        (fm.log, [-np.inf, -np.inf, np.inf, np.nan, np.nan]),
        (fm.tanh, [0, 0, 1, -1, np.nan]),
        (fm.erf, [0, 0, 1, -1, np.nan]),
        (fm.sin, [0, 0, np.nan, np.nan, np.nan]),
        (fm.cos, [1, 1, np.nan, np.nan, np.nan]),
    ],
)
def test_special_values(function: Callable[[np.ndarray], np.ndarray], expected: list[float]) -> None:
    np.testing.assert_array_equal(function(SPECIAL), np.array(expected, np.float32))


def test_exp_overflows_and_underflows_as_ieee_numbers_do() -> None:
    x = np.array([88.72283, 88.72284, -103.97, -103.98, -90.0], np.float32)
    with np.errstate(all="ignore"):
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(fm.exp(x)[:4], expected[:4])
    assert 0 < fm.exp(x)[4] < 2.0**-126


def test_tanh_erf_and_their_kin_never_leave_their_range() -> None:
    x = np.concatenate([every_size(np.random.default_rng(9)), between(-12, 12)(np.random.default_rng(10))])
    assert np.abs(fm.tanh(x)).max() <= 1
    assert np.abs(fm.erf(x)).max() <= 1
    assert fm.exp(x).min() >= 0


def test_pow_follows_the_exponent() -> None:
    x = np.array([-3.0, -0.5, 0.0, 2.0, 7.0], np.float32)

    def power(exponent: float) -> np.ndarray:
        return fm.pow(x, np.full_like(x, exponent))

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(power(2.0), x * x)
        np.testing.assert_array_equal(power(3.0), x * (x * x))
        np.testing.assert_array_equal(power(0.0), np.ones_like(x))
        np.testing.assert_array_equal(power(-1.0), np.float32(1) / x)
        np.testing.assert_array_equal(power(0.5), np.sqrt(x))
        np.testing.assert_allclose(power(1.7), np.power(x, np.float32(1.7)), rtol=1e-5)


def test_log1p_keeps_small_terms() -> None:
    e = np.array([0.0, 1e-30, 1e-9, 1e-4, 0.5, 1.0], np.float32)
    np.testing.assert_allclose(fm.log1p_exp_term(e), np.log1p(e.astype(np.float64)), rtol=3e-7)


# The bits themselves: whoever changes a sequence of operations changes what every compiled model computes.
@pytest.mark.parametrize(
    ("function", "digest"),
    [
        (fm.exp, "880f20fc05e6ad32"),
        (fm.log, "dfd90a22517b2c89"),
        (fm.tanh, "ca18379a2fe5437d"),
        (fm.erf, "be5275aa15dd23f7"),
        (fm.sin, "84fd5e24a4304999"),
        (fm.cos, "b32a18fe643fd15d"),
    ],
)
def test_bits_are_those_of_the_definition(function: Callable[[np.ndarray], np.ndarray], digest: str) -> None:
    # every 65,537th float32 up to the first NaN, and their negatives
    bits = np.arange(0, 0x7F800000, 65537, dtype=np.uint32)
    x = np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)
    y = function(x)
    y = np.where(np.isnan(y), np.float32(np.nan), y)  # one NaN for all
    assert hashlib.sha256(np.abs(y).tobytes() + np.signbit(y[~np.isnan(y)]).tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("function", [fm.exp, fm.log, fm.tanh, fm.erf, fm.sin, fm.cos])
def test_a_number_gives_the_same_bits_alone_and_in_any_array(function: Callable[[np.ndarray], np.ndarray]) -> None:
    x = between(-20, 20)(np.random.default_rng(11))[:1000]
    whole = function(x)
    strided = function(np.repeat(x, 3).reshape(-1, 3)[:, 1])
    one_by_one = np.array([function(v) for v in x], np.float32)
    assert whole.tobytes() == strided.tobytes() == one_by_one.tobytes()
