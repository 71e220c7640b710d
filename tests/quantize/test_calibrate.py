from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qcomp.errors import QcompError
from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.calibration import Calibration, Range, _pack_counts, _unpack_counts
from qcomp.quantize.check import Finding, check_calibration, outside
from qcomp.quantize.inputs import inputs_of
from qcomp.quantize.masks import ADDED_MARGIN, DIRECT_MARGIN, mask_margins
from qcomp.quantize.observers import METHODS
from qcomp.quantize.samples import Samples, samples_of

W = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)
DATA = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def model_of(nodes, inputs, outputs, constants=()) -> onnx.ModelProto:
    def value(name, shape, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "g",
        [value(*i) for i in inputs],
        [value(*o) for o in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp() -> onnx.ModelProto:
    return model_of(
        [
            ("MatMul", ["x", "w"], ["product"]),
            ("Identity", ["product"], ["same"]),
            ("Relu", ["same"], ["active"]),
            ("Cast", ["active"], ["whole"], {"to": TensorProto.INT64}),
        ],
        [("x", [1, 3])],
        [("whole", [1, 2], TensorProto.INT64)],
        [("w", W)],
    )


def calibrated(data: np.ndarray = DATA, method: str = "minmax", tensors=("product", "same", "active", "whole", "w")):
    model = mlp()
    return calibrate(model, samples_of(data, inputs_of(model)), tensors, method)


def test_ranges_are_those_of_numpy_by_hand() -> None:
    product = (DATA.astype(np.float64) @ W).astype(np.float64)
    ranges = calibrated().ranges()
    assert list(ranges) == ["x", "product", "same", "active", "whole", "w"]
    assert ranges["x"] == Range(float(DATA.min()), float(DATA.max()))
    assert ranges["product"].lo == pytest.approx(product.min(), rel=1e-6)
    assert ranges["product"].hi == pytest.approx(product.max(), rel=1e-6)
    # An Identity that an optimizer would remove is there and says the same.
    assert ranges["same"] == ranges["product"]
    assert ranges["active"] == Range(0.0, ranges["product"].hi)
    assert ranges["whole"] == Range(0.0, float(int(product.max())))
    assert ranges["w"] == Range(-2.0, 3.0)


def test_a_calibration_is_a_mapping_to_ranges() -> None:
    calibration = calibrated()
    assert len(calibration) == 6
    assert calibration["w"] == Range(-2.0, 3.0)
    assert "nothing" not in calibration
    assert calibration.samples == 40
    assert calibration.inputs == ("x",)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_within_minmax(method: str) -> None:
    calibration = calibrated(method=method)
    whole = calibration.ranges("minmax")
    for name, found in calibration.ranges().items():
        assert min(whole[name].lo, 0) <= found.lo <= found.hi <= max(whole[name].hi, 0), name


def test_progress_counts_samples() -> None:
    model, seen = mlp(), []
    samples = samples_of(DATA[:3], inputs_of(model))
    calibrate(model, samples, ["active"], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_model_is_left_as_it_was() -> None:
    model = mlp()
    before = model.SerializeToString()
    calibrate(model, samples_of(DATA, inputs_of(model)), ["active"])
    assert model.SerializeToString() == before


def test_inputs_alone_need_no_run() -> None:
    assert calibrated(tensors=()).ranges() == {"x": Range(float(DATA.min()), float(DATA.max()))}


def test_plain_lists_and_arrays_will_do() -> None:
    for data in ([{"x": row[None]} for row in DATA], DATA, {"x": DATA}):
        assert calibrate(mlp(), data, ["active"]).ranges()["active"] == calibrated()["active"]


def test_scalar_inputs_are_fed_as_scalars() -> None:
    model = model_of([("Mul", ["rate", "w"], ["scaled"])], [("rate", [])], [("scaled", [3, 2])], [("w", W)])
    assert calibrate(model, {"rate": np.array([2.0, -1.0])}, ["scaled"])["scaled"] == Range(-4.0, 6.0)


def test_unknown_tensors_are_refused_by_name() -> None:
    with pytest.raises(QcompError, match="tensor nothing: the model has no such tensor"):
        calibrated(tensors=("active", "nothing"))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(QcompError, match="calibration set is empty"):
        calibrate(mlp(), Samples((), ()), ["active"])


def test_a_sample_without_an_input_is_refused() -> None:
    with pytest.raises(QcompError, match="calibration samples: sample 1: no key 'x' .found: y."):
        calibrate(mlp(), [{"x": DATA[:1]}, {"y": DATA[:1]}], ["active"])


def test_samples_of_a_wrong_shape_are_one_clear_line() -> None:
    with pytest.raises(QcompError, match=r"sample 0: key 'x': shape \[1, 4\], expected \[1, 3\]") as caught:
        calibrate(mlp(), [{"x": np.zeros((1, 4), np.float32)}], ["active"])
    assert "\n" not in str(caught.value)


def test_a_run_that_fails_is_one_clear_line() -> None:
    model = model_of([("Gather", ["w", "i"], ["row"])], [("i", [1], TensorProto.INT64)], [("row", [1, 2])], [("w", W)])
    message = "calibration samples: sample 0: onnxruntime cannot run .*; check its values .*: i holds 7 to 7"
    with pytest.raises(QcompError, match=message) as caught:
        calibrate(model, [{"i": np.array([7])}], ["row"])
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_run_is_one_clear_line() -> None:
    broken = model_of([("NoSuchOp", ["x"], ["y"])], [("x", [1])], [("y", [1])])
    with pytest.raises(QcompError, match="onnxruntime cannot load the model"):
        calibrate(broken, [{"x": np.zeros(1, np.float32)}], ["y"])


def test_nan_inside_the_model_names_the_tensor() -> None:
    model = model_of([("Sqrt", ["x"], ["root"])], [("x", [1, 2])], [("root", [1, 2])])
    with pytest.raises(QcompError, match="^root: 1 NaN"):
        calibrate(model, [{"x": np.array([[4.0, -1.0]], np.float32)}], ["root"])


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_two_halves_merged_are_the_whole(method: str) -> None:
    whole = calibrated(method=method)
    merged = calibrated(DATA[:13], method).merge(calibrated(DATA[13:], method))
    assert merged.samples == whole.samples
    assert merged.ranges() == whole.ranges()
    for name, observer in whole.observers.items():
        if name != "w":  # a constant is seen once in each half
            assert merged.observers[name].extremes == observer.extremes
            assert merged.observers[name].histogram == observer.histogram


def test_calibrations_of_different_tensors_do_not_merge() -> None:
    with pytest.raises(QcompError, match="same is in one only"):
        calibrated(tensors=("same",)).merge(calibrated(tensors=()))


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile:99.5"])
def test_saving_and_loading_keeps_everything_in_the_same_bytes(tmp_path: Path, method: str) -> None:
    calibration = calibrated(method=method)
    calibration.save(tmp_path / "a.json")
    loaded = Calibration.load(tmp_path / "a.json")
    assert loaded.observers == calibration.observers
    assert loaded.ranges() == calibration.ranges()
    assert (loaded.samples, str(loaded.method), loaded.inputs) == (40, method, ("x",))
    loaded.save(tmp_path / "b.json")
    calibrated(method=method).save(tmp_path / "c.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "c.json").read_bytes()


@given(st.lists(st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 2**62)), max_size=40))
def test_packed_counts_unpack_to_the_same(counts: list[int]) -> None:
    values = np.array(counts, np.int64)
    assert np.array_equal(_unpack_counts(_pack_counts(values)), values) or not values.any()


def test_files_that_are_no_calibration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(QcompError, match="a.json: cannot read"):
        Calibration.load(path)
    for text in ("", "[]", "{}", "{", '{"format": 1}', "\x00"):
        path.write_text(text)
        with pytest.raises(QcompError, match="a.json: not a calibration file"):
            Calibration.load(path)
    calibrated(method="mse").save(path)
    good = json.loads(path.read_text())
    for change in (
        {"format": 99},
        {"method": "median"},
        {"tensors": {"x": {}}},
        {"tensors": {"x": {"quarters": [[1]]}}},
        {"tensors": {"x": {"quarters": [[]] * 4, "histogram": ["0:!", "0:"]}}},
        {"tensors": {"x": {"quarters": [[]] * 4, "histogram": ["0:/w==", "0:"]}}},
        {"samples": "many"},
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(QcompError):
            Calibration.load(path)


def test_asking_for_histograms_that_were_not_kept_says_how_to_get_them() -> None:
    with pytest.raises(QcompError, match="calibrate again with method entropy"):
        calibrated().ranges("entropy")


def attention() -> onnx.ModelProto:
    return model_of(
        [
            ("MatMul", ["q", "k"], ["scores"]),
            ("Mul", ["mask", "minus"], ["bias"]),
            ("Add", ["scores", "bias"], ["masked"]),
            ("Reshape", ["masked", "shape"], ["flat"]),
            ("Softmax", ["flat"], ["weights"]),
        ],
        [("q", [4, 2]), ("k", [2, 4]), ("mask", [1, 4])],
        [("weights", [4, 4])],
        [("minus", np.array(-10000.0, np.float32)), ("shape", np.array([4, 4]))],
    )


def test_what_leads_to_softmax_alone_may_hold_masks() -> None:
    margins = mask_margins(attention())
    assert margins["flat"] == margins["masked"] == DIRECT_MARGIN
    assert margins["scores"] == margins["bias"] == ADDED_MARGIN
    assert not {"q", "k", "mask", "weights", "minus"} & set(margins)


def test_a_tensor_with_another_use_may_not() -> None:
    model = model_of(
        [("Softmax", ["x"], ["y"]), ("Relu", ["x"], ["z"]), ("Softmax", ["y"], ["v"])],
        [("x", [1, 2])],
        [("y", [1, 2]), ("z", [1, 2]), ("v", [1, 2])],
    )
    assert mask_margins(model) == {}


def test_attention_scores_are_calibrated_without_their_masks() -> None:
    rng = np.random.default_rng(0)
    samples = [
        {
            "q": rng.normal(size=(4, 2)).astype(np.float32),
            "k": rng.normal(size=(2, 4)).astype(np.float32),
            "mask": np.array([[0, 0, 1, 1]], np.float32),
        }
        for _ in range(20)
    ]
    calibration = calibrate(attention(), samples, ["scores", "bias", "masked", "flat", "weights"])
    ranges = calibration.ranges()
    assert -20 < ranges["scores"].lo < 0 < ranges["scores"].hi < 20
    assert ranges["bias"] == Range(-10000.0, 0.0)
    assert -20 < ranges["masked"].lo < ranges["masked"].hi < 20
    assert ranges["masked"] == ranges["flat"]
    lo, hi = calibration.extremes()["masked"]
    assert -20 < lo < hi < 20


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_good_set_has_no_findings() -> None:
    data = np.random.default_rng(0).uniform(-1, 1, size=(64, 3)).astype(np.float32)
    assert check_calibration(calibrated(data)) == ()


def test_few_samples_are_found() -> None:
    data = np.random.default_rng(0).uniform(-1, 1, size=(3, 3)).astype(np.float32)
    assert codes(check_calibration(calibrated(data))) == ["few-samples"]
    assert check_calibration(calibrated(data[:1]))[0].message.startswith("1 calibration sample; ")


def test_constant_inputs_are_found() -> None:
    findings = check_calibration(calibrated(np.ones((40, 3), np.float32)))
    assert [(f.code, f.tensor) for f in findings] == [("constant-input", "x")]


def test_saturated_inputs_are_found() -> None:
    data = np.clip(np.random.default_rng(0).normal(size=(64, 3)) * 200 + 127, 0, 255).astype(np.float32)
    (finding,) = [f for f in check_calibration(calibrated(data)) if f.code == "saturated-input"]
    assert "equal its largest, 255" in finding.message


def test_dark_backgrounds_and_flags_are_not_saturated() -> None:
    rng = np.random.default_rng(0)
    dark = np.where(rng.random((64, 3)) < 0.8, 0, rng.uniform(0, 255, (64, 3)))
    flags = rng.integers(0, 2, (64, 3))
    for data in (dark, flags):
        assert "saturated-input" not in codes(check_calibration(calibrated(data.astype(np.float32), tensors=())))


def test_ranges_that_still_move_at_the_end_are_found() -> None:
    data = np.random.default_rng(0).uniform(-1, 1, size=(64, 3)).astype(np.float32)
    data[60] *= 50
    findings = [f for f in check_calibration(calibrated(data)) if f.code == "moving-range"]
    assert {f.tensor for f in findings} >= {"x", "product"}
    early = np.roll(data, 10, axis=0)
    assert "moving-range" not in codes(check_calibration(calibrated(early)))


def test_tensors_without_values_are_found_and_left_out() -> None:
    model = model_of([("NonZero", ["x"], ["where"])], [("x", [1, 3])], [("where", [2, "n"], TensorProto.INT64)])
    calibration = calibrate(model, [{"x": np.zeros((1, 3), np.float32)}] * 40, ["where"])
    assert ("no-values", "where") in {(f.code, f.tensor) for f in check_calibration(calibration)}
    assert "where" not in calibration.ranges()
    with pytest.raises(QcompError, match="where: no value was seen"):
        calibration["where"]


def test_inputs_beyond_the_range_seen_are_found() -> None:
    ranges = {"x": Range(-1.0, 1.0)}
    (finding,) = outside(ranges, {"x": np.array([0.5, 3.0, -2.0, 1.0]), "other": np.ones(3)})
    assert (finding.code, finding.tensor) == ("outside-range", "x")
    assert "2 of 4 values (50.00%) lie outside the calibrated range [-1, 1], from -2 to 3" in finding.message
    assert outside(ranges, {"x": np.array([-1.0, 1.0])}) == ()
    assert codes(outside(ranges, {"x": np.array([np.nan])})) == ["outside-range"]


def test_findings_are_single_lines() -> None:
    data = np.ones((8, 3), np.float32)
    data[7] = 9
    findings = check_calibration(calibrated(data))
    assert len(findings) > 1
    assert all("\n" not in finding.message for finding in findings)
