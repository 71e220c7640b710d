"""Samples that set a range alone, ranges that follow the number of samples, and test data unlike the calibration's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.check import check_calibration, lone_samples, ranges_by_samples
from qcomp.quantize.drift import cumulative_distance, drift
from qcomp.quantize.histogram import Histogram
from qcomp.quantize.leaders import Leader


def model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def calibrated(data: np.ndarray, method: str = "minmax") -> Calibration:
    return calibrate(model(), {"x": data.astype(np.float32)}, ["y"], method)


def even(samples: int = 16) -> np.ndarray:
    """[samples, 4] from -1 to 1, the same in each sample."""
    return np.tile(np.asarray([-1.0, -0.5, 0.5, 1.0]), (samples, 1))


def test_a_sample_that_sets_an_end_alone_is_named() -> None:
    data = even()
    data[11, 2] = 4.0
    (finding,) = lone_samples(calibrated(data))
    # [-1, 4] would be [-1, 1]: 3 of 5 go
    assert finding.code == "lone-sample"
    assert "sample 11 alone sets the high end, 4, of" in finding.message
    assert "60% narrower" in finding.message and "one of another" in finding.message


def test_two_samples_at_an_end_are_not_alone() -> None:
    data = even()
    data[[3, 11], 2] = 4.0
    assert lone_samples(calibrated(data)) == []
    assert lone_samples(calibrated(even())) == []


def test_a_method_that_clips_the_outlier_is_not_driven_by_it() -> None:
    data = np.random.default_rng(0).uniform(-1, 1, (4096, 4))
    data[7, 0] = 1.9
    assert [f.code for f in lone_samples(calibrated(data, "percentile:99"))] == []
    assert [f.code for f in lone_samples(calibrated(data))] == ["lone-sample"]


def test_the_low_end_counts_too() -> None:
    data = even()
    data[2, 0] = -3.0
    (finding,) = lone_samples(calibrated(data))
    assert "the low end, -3," in finding.message and "50% narrower" in finding.message


def test_ranges_that_follow_the_samples_are_found() -> None:
    growing = even() * np.linspace(0.1, 1.0, 16)[:, None]
    found = calibrated(growing)
    assert ranges_by_samples(found) == (2, {1: 2, 2: 2, 3: 2})
    assert "unsettled-ranges" in [f.code for f in check_calibration(found)]
    assert ranges_by_samples(calibrated(even())) == (2, {1: 0, 2: 0, 3: 0})
    assert "unsettled-ranges" not in [f.code for f in check_calibration(calibrated(even()))]


def test_leaders_survive_merging_and_files(tmp_path: Path) -> None:
    data = even()
    data[11, 2] = 4.0
    whole = calibrated(data)
    merged = calibrated(data[:8]).merge(calibrated(data[8:]))
    assert merged.observers["y"].leaders == whole.observers["y"].leaders
    assert whole.observers["y"].leaders.high == Leader(4.0, 11, 1.0)
    whole.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json").observers["y"].leaders == whole.observers["y"].leaders


def test_test_data_that_reaches_further_has_drifted() -> None:
    found = drift(calibrated(even()), calibrated(even() * 1.5))
    assert [d.tensor for d in found] == ["x", "y"]
    assert (found[0].beyond, found[0].calibrated, found[0].tested) == (0.5, (-1.0, 1.0), (-1.5, 1.5))
    assert "[-1.5, 1.5], 50% of the range beyond calibration's [-1, 1]" in found[0].message
    assert drift(calibrated(even()), calibrated(even())) == ()


def test_test_data_within_the_range_may_have_drifted_too() -> None:
    found = drift(calibrated(even(), "mse"), calibrated(np.abs(even()), "mse"))
    assert [(d.beyond, d.distance) for d in found] == [(0.0, 0.5), (0.0, 0.5)]
    assert "0.50 from calibration's" in found[0].message


@pytest.mark.parametrize(("a", "b", "distance"), [([1, 2], [1, 2], 0.0), ([-1], [1], 1.0), ([-1, 1], [1, 1], 0.5)])
def test_the_distance_of_distributions(a: list[float], b: list[float], distance: float) -> None:
    histograms = []
    for values in (a, b):
        histogram = Histogram()
        histogram.update(np.asarray(values, np.float32))
        histograms.append(histogram)
    assert cumulative_distance(*histograms) == distance
