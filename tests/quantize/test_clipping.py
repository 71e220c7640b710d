"""The methods that clip, against brute force and on distributions with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.quantize.histogram import Density, Histogram
from qcomp.quantize.mse import Mse, quantization_error
from qcomp.quantize.observers import Observer
from qcomp.quantize.parameters import affine_parameters

N = 200_000


def observe(values: np.ndarray) -> Observer:
    observer = Observer("t", "mse")
    observer.update(values)
    return observer


def true_error(values: np.ndarray, lo: float, hi: float, symmetric: bool = False) -> float:
    scale, zero = affine_parameters(lo, hi, "i8", symmetric)
    x = values.astype(np.float64)
    q = np.clip(np.rint(x / scale) + zero, -127 if symmetric else -128, 127)
    return float(np.mean(((q - zero) * scale - x) ** 2))


def draw(name: str, seed: int = 0, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(size=n),
        "relu": lambda: np.maximum(rng.normal(size=n), 0),
        "laplace": lambda: rng.laplace(size=n),
        "uniform": lambda: rng.uniform(-1, 3, size=n),
        "relu6": lambda: np.clip(rng.normal(size=n) * 4, 0, 6),
        "hardswish": lambda: (lambda v: v * np.clip(v + 3, 0, 6) / 6)(rng.normal(size=n) * 3),
        "heavy": lambda: rng.standard_t(3, size=n),
        "outlier": lambda: np.append(rng.normal(size=n), [40.0, -25.0]),
        "integers": lambda: rng.integers(0, 256, size=n),
        "sparse": lambda: np.where(rng.random(n) < 0.99, 0, rng.normal(size=n)),
    }[name]()
    return values.astype(np.float32)


NAMES = ["normal", "relu", "laplace", "uniform", "relu6", "hardswish", "heavy", "outlier", "integers", "sparse"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_is_never_worse_than_minmax(name: str, symmetric: bool) -> None:
    values = draw(name)
    observer = observe(values)
    found = true_error(values, *observer.range(Mse(symmetric)), symmetric)
    assert found <= true_error(values, *observer.range("minmax"), symmetric) * 1.001


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "heavy", "hardswish"])
def test_mse_clips_tails_nearly_as_well_as_brute_force(name: str) -> None:
    values = draw(name, n=20_000)
    observer = observe(values)
    lo, hi = observer.range("minmax")
    shares = np.linspace(0.2, 1.0, 41)
    best = min(true_error(values, lo * a, hi * b) for a in shares for b in shares)
    assert best < true_error(values, lo, hi)
    assert true_error(values, *observer.range("mse")) <= best * 1.02


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50).map(lambda v: np.array(v, np.float32)),
    st.booleans(),
)
@settings(deadline=None)
def test_mse_estimate_is_never_above_minmax_and_inside_it(values, symmetric) -> None:
    histogram = Histogram()
    histogram.update(values)
    density = histogram.density(float(values.min()), float(values.max()))
    lo, hi = Mse(symmetric).range(density)
    assert min(density.lo, 0.0) <= lo <= 0.0 <= hi <= max(density.hi, 0.0)
    limits = (-127 if symmetric else -128, 127)
    coarse = density.coarse()
    whole = quantization_error(coarse, *affine_parameters(density.lo, density.hi, "i8", symmetric), *limits)
    clipped = quantization_error(coarse, *affine_parameters(lo, hi, "i8", symmetric), *limits)
    assert clipped <= whole * (1 + 1e-6)


def test_the_error_of_an_even_spread_is_the_integral() -> None:
    edges = np.sort(np.random.default_rng(3).uniform(-9, 9, 12)).reshape(6, 2)
    density = Density(edges[:, 0], edges[:, 1], np.arange(1.0, 7.0), float(edges[0, 0]), float(edges[-1, 1]))
    scale, zero = affine_parameters(-3.0, 5.0)
    fine = [np.linspace(a, b, 200_001) for a, b in edges]
    errors = [
        np.mean(((np.clip(np.rint(x / scale) + zero, -128, 127) - zero) * scale - x) ** 2) for x in fine
    ]
    expected = np.average(errors, weights=density.count)
    assert quantization_error(density, scale, zero, -128, 127) == pytest.approx(expected, rel=1e-4)


def test_coarse_bins_keep_all_counts_and_order() -> None:
    values = np.concatenate([draw("heavy"), draw("relu")])
    histogram = Histogram()
    histogram.update(values)
    fine = histogram.density(float(values.min()), float(values.max()))
    coarse = fine.coarse()
    assert coarse.total == fine.total == values.size
    assert coarse.count.size < fine.count.size / 3
    assert (coarse.left <= coarse.right).all()
    assert (coarse.right[:-1] <= coarse.left[1:]).all()
    assert (coarse.left[0], coarse.right[-1]) == (fine.left[0], fine.right[-1])


@pytest.mark.parametrize("name", ["uniform", "relu6", "integers"])
@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_nothing_is_clipped_where_there_is_no_tail(name: str, method: str) -> None:
    values = draw(name)
    assert observe(values).range(method) == (float(min(values.min(), 0)), float(values.max()))


# Few values: sampling noise hides the answer unless it is taken off.  Many: far outliers hide the body.
@pytest.mark.parametrize(("outlier", "n"), [(-300.0, N), (1e4, 2_000_000), (-3.4e38, 2_000_000)])
def test_entropy_clips_rare_outliers_however_far(outlier: float, n: int) -> None:
    values = np.append(draw("normal", n=n), np.float32(outlier))
    lo, hi = observe(values).range("entropy")
    assert -13 < lo < -3
    assert 3 < hi < 13


def test_entropy_keeps_rare_peaks_that_are_the_signal() -> None:
    # A softmax: almost all of the values are next to nothing, 1 % are near one.
    rng = np.random.default_rng(0)
    values = np.where(rng.random(N) < 0.99, rng.random(N) * 1e-5, rng.uniform(0.5, 1, N)).astype(np.float32)
    assert observe(values).range("entropy")[1] > 0.9


def test_zeros_do_not_change_the_entropy_range() -> None:
    values = draw("laplace")
    with_zeros = np.concatenate([values, np.zeros(20 * N, np.float32)])
    assert observe(with_zeros).range("entropy") == observe(values).range("entropy")


def test_entropy_of_a_long_tail_lies_between_body_and_extremes() -> None:
    values = draw("heavy")
    lo, hi = observe(values).range("entropy")
    assert values.min() < lo < np.quantile(values, 0.001)
    assert np.quantile(values, 0.999) < hi < values.max()


def test_entropy_is_one_sided_after_relu() -> None:
    assert observe(draw("relu")).range("entropy")[0] == 0.0
    assert observe(-draw("relu")).range("entropy")[1] == 0.0


def test_entropy_of_mirrored_values_is_mirrored() -> None:
    values = draw("hardswish")
    lo, hi = observe(values).range("entropy")
    assert observe(-values).range("entropy") == (-hi, -lo)
