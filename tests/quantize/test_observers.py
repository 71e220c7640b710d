from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcomp.errors import QcompError
from qcomp.quantize.histogram import Histogram, bin_edges
from qcomp.quantize.masks import DIRECT_MARGIN
from qcomp.quantize.minmax import Extremes
from qcomp.quantize.observers import METHODS, Observer, method_named

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
spikes = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 6.0, -10000.0, 3.4028234663852886e38, -3.4028234663852886e38])
arrays = hnp.arrays(np.float32, st.integers(0, 40), elements=st.one_of(floats, spikes))


def observed(*parts: np.ndarray, method: str = "mse") -> Observer:
    observer = Observer("t", method)
    for i, part in enumerate(parts):
        observer.update(part, i % 4)
    return observer


@given(st.lists(arrays, min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_merging_in_any_order_and_grouping_equals_one_pass(parts, random) -> None:
    whole = Observer("t", "mse")
    whole.update(np.concatenate(parts))
    pool = []
    for part in parts:
        single = Observer("t", "mse")
        single.update(part)
        pool.append(single)
    while len(pool) > 1:
        a, b = pool.pop(random.randrange(len(pool))), pool.pop(random.randrange(len(pool)))
        pool.append(a.merge(b))
    assert pool[0] == whole
    assert repr(pool[0].extremes) == repr(whole.extremes)  # repr tells -0.0 from 0.0
    if whole.extremes.count:
        for method in METHODS:
            assert pool[0].range(method) == whole.range(method)


@given(arrays, arrays)
@settings(deadline=None)
def test_merging_leaves_its_operands_alone(a, b) -> None:
    left, right = observed(a), observed(b)
    left.merge(right)
    assert left == observed(a)
    assert right == observed(b)


@given(arrays)
@settings(deadline=None)
def test_every_value_lies_in_its_bin(values) -> None:
    histogram = Histogram()
    histogram.update(values)
    assert histogram.total == values.size
    magnitude = np.abs(values.astype(np.float64))
    assert histogram.counts[0, 0] == np.count_nonzero(magnitude < 2.0**-40)
    for sign, part in ((0, values > 0), (1, values < 0)):
        row = histogram.row(sign)
        for i in np.flatnonzero(row[1:]) + 1:
            left, right = bin_edges(np.array([i, i + 1]))
            assert row[i] == np.count_nonzero(part & (magnitude >= left) & (magnitude < right))
            assert right <= left * (1 + 1 / 512) or right == np.inf


def test_the_smallest_magnitude_told_from_zero_is_two_to_the_minus_forty() -> None:
    histogram = Histogram()
    edge = np.float32(2.0**-40)
    histogram.update(np.array([edge, -edge, np.nextafter(edge, np.float32(0)), 0], np.float32))
    assert histogram.counts[:, :2].tolist() == [[2, 1], [0, 1]]


@pytest.mark.parametrize("sign", [1, -1])
def test_which_zero_comes_first_does_not_matter(sign: int) -> None:
    values = np.array([0.0, -0.0], np.float32)[::sign]
    both = observed(values[:1]).merge(observed(values[1:])).extremes
    assert repr(both) == "Extremes(count=2, lo=0.0, hi=0.0, at_lo=2, at_hi=2)"


def test_a_large_array_in_chunks_equals_small_updates() -> None:
    values = np.random.default_rng(0).normal(size=100_003).astype(np.float32)
    whole, pieces = Histogram(), Histogram()
    whole.update(values)
    for start in range(0, values.size, 777):
        pieces.update(values[start : start + 777])
    assert whole == pieces


@given(arrays.filter(lambda a: a.size > 0))
@settings(deadline=None)
def test_minmax_is_the_smallest_and_the_largest(values) -> None:
    assert observed(values, method="minmax").range() == (float(values.min()), float(values.max()))
    extremes = Extremes.of(values)
    assert extremes.at_lo == np.count_nonzero(values == values.min())
    assert extremes.at_hi == np.count_nonzero(values == values.max())


@given(arrays.filter(lambda a: a.size > 0), st.sampled_from([75.0, 90.0, 99.0, 100.0]))
@settings(deadline=None)
def test_percentile_drops_no_more_than_allowed_and_is_tight_to_one_bin(values, percentile) -> None:
    lo, hi = observed(values).range(f"percentile:{percentile}")
    ordered = np.sort(values.astype(np.float64))
    beyond = int(values.size * (100 - percentile) / 100)
    true_lo, true_hi = ordered[beyond], ordered[values.size - 1 - beyond]
    assert true_lo - abs(true_lo) / 512 - 2.0**-40 <= lo <= true_lo + 2.0**-40
    assert true_hi - 2.0**-40 <= hi <= true_hi + abs(true_hi) / 512 + 2.0**-40


def test_without_a_method_that_needs_it_no_histogram_is_kept() -> None:
    observer = observed(np.ones(3), method="minmax")
    assert observer.histogram is None
    with pytest.raises(QcompError, match="t: ranges by mse need histograms"):
        observer.range("mse")


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_tensor_has_its_value_in_range(method: str) -> None:
    for value in (0.0, 3.3, -2.5, 1e-20):
        lo, hi = observed(np.full(7, value, np.float32)).range(method)
        # Below 2^-40 a histogram sees zero.
        assert lo - 2.0**-40 <= np.float32(value) <= hi + 2.0**-40
        assert abs(hi - lo) <= abs(np.float32(value))


@pytest.mark.parametrize("method", METHODS)
def test_an_observer_without_values_says_so(method: str) -> None:
    with pytest.raises(QcompError, match="t: no value was seen"):
        observed(np.zeros((0, 3)), method=method).range()


def test_integers_and_booleans_count_by_value() -> None:
    assert observed(np.array([-3, 250], np.int64)).range("minmax") == (-3.0, 250.0)
    assert observed(np.array([True, False])).range("minmax") == (0.0, 1.0)
    assert observed(np.array([7], np.uint8), np.array([9.0], np.float64)).range("minmax") == (7.0, 9.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, "1 NaN, 0 \\+inf and 0 -inf among 3 values"),
        (np.inf, "0 NaN, 1 \\+inf"),
        (-np.inf, "1 -inf.*attention mask as -10000"),
        (1e300, "1 \\+inf"),
    ],
)
def test_non_finite_values_are_refused_by_name(bad: float, message: str) -> None:
    observer = Observer("conv7", "mse")
    with pytest.raises(QcompError, match=f"^conv7: .*{message}"):
        observer.update(np.array([0.0, bad, 1.0]))
    assert observer == Observer("conv7", "mse")


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(QcompError, match="t: values of type complex64"):
        Observer("t").update(np.ones(2, np.complex64))


@pytest.mark.parametrize("spec", ["median", "mse:3", "percentile:much", "percentile:40", "percentile:101", ""])
def test_unknown_methods_and_options_are_refused(spec: str) -> None:
    with pytest.raises(QcompError):
        method_named(spec)


@pytest.mark.parametrize("spec", ["minmax", "percentile:99.9", "entropy", "mse"])
def test_a_method_prints_as_it_is_written(spec: str) -> None:
    assert str(method_named(spec)) == spec


@pytest.mark.parametrize("mask", [-10000.0, -3.4e38, -65504.0, -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_masked_scores_do_not_stretch_the_range(mask: float, method: str) -> None:
    scores = np.random.default_rng(0).normal(size=4000).astype(np.float32) * 3
    plain = observed(scores, method=method)
    masked = Observer("t", method, mask_margin=DIRECT_MARGIN)
    masked.update(np.concatenate([scores + np.float32(mask), scores]))
    lo, hi = plain.range()
    got_lo, got_hi = masked.range()
    assert masked.masked == 4000
    # The lowest score is known to the width of its bin only, which may shift a search by a step of its grid.
    assert got_hi == pytest.approx(hi, rel=0.03)
    assert got_lo == pytest.approx(lo - DIRECT_MARGIN, rel=0.03)


def test_scores_without_a_gap_are_no_mask() -> None:
    observer = Observer("t", mask_margin=DIRECT_MARGIN)
    observer.update(np.linspace(-2000, 100, 5000))
    assert observer.masked == 0
    assert observer.range() == (-2000.0, 100.0)


def test_a_plain_mask_keeps_its_two_values() -> None:
    observer = Observer("t", mask_margin=64.0)
    observer.update(np.array([0.0, -10000.0]))
    assert observer.range() == (-10000.0, 0.0)
    infinite = Observer("t", mask_margin=64.0)
    infinite.update(np.array([0.0, -np.inf]))
    assert infinite.range() == (-10000.0, 0.0)


def test_observers_that_kept_different_things_do_not_merge() -> None:
    with pytest.raises(QcompError, match="same method"):
        observed(np.ones(2), method="mse").merge(observed(np.ones(2), method="minmax"))
