from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from qcomp.errors import QcompError
from qcomp.quantize.inputs import InputSpec, inputs_of
from qcomp.quantize.sample_images import ImageOptions
from qcomp.quantize.samples import load_samples, samples_of

X = InputSpec("x", np.dtype(np.float32), (1, 3))
IDS = InputSpec("ids", np.dtype(np.int64), (None, 4))
RATE = InputSpec("rate", np.dtype(np.float32), ())
PICTURE = InputSpec("picture", np.dtype(np.float32), (1, 3, 4, 6))


def refused(match: str):
    return pytest.raises(QcompError, match=match)


def test_inputs_of_a_model_leave_out_initializers() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.INT32, ["n", 2]),
            helper.make_tensor_value_info("w", TensorProto.INT32, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 2])],
        [helper.make_tensor("w", TensorProto.INT32, [2], [1, 2])],
    )
    assert inputs_of(helper.make_model(graph)) == (InputSpec("x", np.dtype(np.int32), (None, 2)),)


def test_npz_samples_come_one_by_one_in_the_inputs_types(tmp_path: Path) -> None:
    x, ids = np.arange(6.0).reshape(2, 3), np.arange(8, dtype=np.int32).reshape(2, 4)
    np.savez(tmp_path / "a.npz", x=x, ids=ids, rate=np.array([8.0, 16.0]), labels=np.array([1, 2]))
    samples = load_samples(tmp_path / "a.npz", (X, IDS, RATE))
    assert len(samples) == 2
    assert samples.unused == ("labels",)
    for _ in range(2):  # iterating anew reads anew
        first, second = samples
        assert first["x"].dtype == np.float32 and first["x"].tolist() == [[0, 1, 2]]
        assert second["ids"].dtype == np.int64 and second["ids"].tolist() == [[4, 5, 6, 7]]
        assert second["rate"].shape == () and second["rate"] == 16.0


def test_a_folder_of_npy_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "b.npy", np.full((1, 3), 2.0))
    np.save(tmp_path / "a.npy", np.full((2, 3), 1.0))
    np.save(tmp_path / "sub" / "c.npy", np.full((1, 3), 3.0))
    (tmp_path / "notes.txt").write_text("not data")
    samples = load_samples(tmp_path, (X,))
    assert len(samples) == 4
    assert [sample["x"][0, 0] for sample in samples] == [1, 1, 2, 3]


def test_samples_with_their_own_batch_axis_fit_too() -> None:
    samples = samples_of(np.zeros((5, 1, 3)), (X,))
    assert len(samples) == 5
    assert next(iter(samples))["x"].shape == (1, 3)


def test_a_transposed_array_is_to_be_transposed() -> None:
    image = InputSpec("x", np.dtype(np.float32), (1, 3, 8, 8))
    with refused(r"shape \[5, 8, 8, 3\], expected \[samples, 3, 8, 8\]; transpose the array"):
        samples_of(np.zeros((5, 8, 8, 3)), (image,))
    with refused("expected .*; transpose the array"):
        list(samples_of([{"x": np.zeros((1, 8, 8, 3))}], (image,)))
    with refused("; the first axis counts samples"):
        samples_of(np.zeros((5, 8, 9, 3)), (image,))


def test_a_batch_of_two_takes_two_samples_at_a_time() -> None:
    spec = InputSpec("x", np.dtype(np.float32), (2, 3))
    samples = samples_of(np.arange(12.0).reshape(4, 3), (spec,))
    assert [sample["x"].tolist() for sample in samples] == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    with refused("3 samples do not fill batches of 2"):
        samples_of(np.zeros((3, 3)), (spec,))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(3), r"sample 1: key 'x': shape \[3\], expected \[1, 3\]"),
        (np.zeros((2, 3)), r"shape \[2, 3\], expected \[1, 3\]"),
        (np.array([["a", "b", "c"]]), "type <U1, expected float32"),
        (np.array([[0, 0, np.nan]]), "sample 1: key 'x': holds NaN"),
    ],
)
def test_a_list_holds_the_arrays_of_one_run_each(value, message: str) -> None:
    samples = samples_of([{"x": np.ones((1, 3))}, {"x": value, "y": 1}], (X,))
    assert (len(samples), samples.unused) == (2, ("y",))
    assert next(iter(samples))["x"].dtype == np.float32
    with refused(message):
        list(samples)


def test_samples_pass_through_and_paths_load(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    loaded = samples_of(str(tmp_path / "a.npy"), (X,))
    assert samples_of(loaded, (X,)) is loaded
    assert len(loaded) == 2


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4)), r"key 'x': shape \[2, 4\], expected \[samples, 3\]"),
        (np.zeros(3), r"key 'x': shape \[3\], expected \[samples, 3\]"),
        (np.zeros((2, 1, 1, 3)), r"shape \[2, 1, 1, 3\], expected \[samples, 3\]"),
        (np.zeros((0, 3)), r"key 'x': is empty, shape \[0, 3\]"),
        (np.array([["a", "b", "c"]]), "key 'x': type <U1, expected float32"),
        (np.zeros((1, 3), complex), "type complex128, expected float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_from_file_and_memory(tmp_path: Path, array, message: str) -> None:
    np.savez(tmp_path / "a.npz", x=array)
    with refused("a.npz: .*" + message):
        load_samples(tmp_path / "a.npz", (X,))
    with refused("samples: .*" + message):
        samples_of({"x": array}, (X,))


def test_floats_are_no_ids() -> None:
    with refused("key 'ids': type float64, expected int64"):
        samples_of({"ids": np.zeros((1, 4))}, (IDS,))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_name_the_sample(tmp_path: Path, bad: float) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([[0, 0, 0], [0, bad, 0]]))
    with refused("a.npz: key 'x', sample 1: holds NaN or infinity"):
        list(load_samples(tmp_path / "a.npz", (X,)))


def test_a_mask_may_hold_minus_infinity_but_nothing_else_that_is_not_finite() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "mask"], ["s"]), helper.make_node("Softmax", ["s"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "mask")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    specs = inputs_of(helper.make_model(graph))
    (sample,) = samples_of([{"x": np.zeros((1, 2)), "mask": np.array([[0, -np.inf]])}], specs)
    assert sample["mask"].tolist() == [[0, -np.inf]]
    for bad in (np.nan, np.inf, -1e300):
        with refused("key 'mask': holds NaN or infinity"):
            list(samples_of([{"x": np.zeros((1, 2)), "mask": np.array([[0, bad]])}], specs))


def test_an_input_without_elements_is_said_to_be_empty() -> None:
    spec = InputSpec("x", np.dtype(np.float32), (0, 3))
    with refused(r"key 'x': is empty, shape \[0, 3\]; bind the dimension to another size"):
        list(samples_of([{"x": np.zeros((0, 3), np.float32)}], (spec,)))


def test_integers_that_do_not_fit_are_refused() -> None:
    spec = InputSpec("x", np.dtype(np.int8), (1, 2))
    with refused("sample 1: holds numbers too large for int8"):
        list(samples_of(np.array([[1, 2], [3, 300]]), (spec,)))


def test_a_missing_key_lists_what_was_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", y=np.zeros((1, 3)), z=np.zeros(1))
    with refused(r"a.npz: no key 'x' \(found: y, z\); save an array for the model input x: float32\[1, 3\]"):
        load_samples(tmp_path / "a.npz", (X,))


def test_different_numbers_of_samples_are_refused() -> None:
    with refused("different numbers of samples \\(x 2, ids 3\\)"):
        samples_of({"x": np.zeros((2, 3)), "ids": np.zeros((3, 4), int)}, (X, IDS))


def test_one_nameless_array_needs_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 3)))
    with refused("a.npy: one array without a name, but the model has 2 inputs; give an .npz with the keys x, ids"):
        load_samples(tmp_path / "a.npy", (X, IDS))


def test_what_is_no_data_is_refused() -> None:
    with refused("samples: list is not sample data"):
        samples_of([1, 2], (X,))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_pickled_arrays_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    array = np.empty((1, 3), object)
    array[:] = Bomb()
    path = tmp_path / f"a.{suffix}"
    np.savez(path, x=array) if suffix == "npz" else np.save(path, array)
    with refused("pickled Python objects, which are not loaded"):
        load_samples(path, (X,))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", ["npz", "npy"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "cut off", "pickle"])
def test_damaged_files_are_one_clear_line(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.{suffix}"
    values = np.random.default_rng(0).normal(size=(50, 3))
    np.savez_compressed(path, x=values) if suffix == "npz" else np.save(path, values)
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "garbage": b"\x93NUMPY\x09" + whole[:7], "cut off": whole[:-40], "pickle": pickle.dumps(values)}[
            damage
        ]
    )
    with refused(re.escape(str(path)) + ": cannot be read") as caught:
        list(load_samples(path, (X,)))
    assert "\n" not in str(caught.value)


def test_every_single_damaged_byte_of_an_npz_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(30.0).reshape(10, 3))
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        try:
            assert len(list(load_samples(path, (X,)))) >= 1
        except QcompError as error:
            assert str(path) in str(error)


def test_missing_and_empty_places_are_refused(tmp_path: Path) -> None:
    with refused("no such file or folder"):
        load_samples(tmp_path / "nothing.npz", (X,))
    with refused("holds no samples"):
        load_samples(tmp_path, (X,))
    (tmp_path / "a.txt").write_text("x")
    with refused("a.txt: holds no samples; give .npz, .npy, .png"):
        load_samples(tmp_path / "a.txt", (X,))


def picture(path: Path, size: tuple[int, int] = (6, 4), color: tuple[int, int, int] = (255, 127, 0)) -> Path:
    Image.new("RGB", size, color).save(path)
    return path


def test_images_are_normalized_in_pixel_units_and_laid_out(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    options = ImageOptions(mean=(127.0,), std=(128.0,))
    (sample,) = load_samples(tmp_path, (PICTURE,), options)
    assert sample["picture"].shape == (1, 3, 4, 6)
    assert sample["picture"].dtype == np.float32
    assert sample["picture"][0, :, 0, 0].tolist() == [1.0, 0.0, -127 / 128]
    last = InputSpec("picture", np.dtype(np.float32), (None, 4, 6, 3))
    (sample,) = load_samples(tmp_path, (last,), ImageOptions(mean=(127.0,), std=(128.0,), order="bgr"))
    assert sample["picture"].shape == (1, 4, 6, 3)
    assert sample["picture"][0, 0, 0].tolist() == [-127 / 128, 0.0, 1.0]


def test_mean_and_std_may_differ_by_channel(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (sample,) = load_samples(tmp_path, (PICTURE,), ImageOptions(mean=(255.0, 27.0, 1.0), std=(1.0, 100.0, 2.0)))
    assert sample["picture"][0, :, 1, 1].tolist() == [0.0, 1.0, -0.5]


def test_crop_keeps_proportions_and_stretch_keeps_all(tmp_path: Path) -> None:
    # Left half black, right half white, twice as wide as the model wants.
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 60:] = 255
    pixels[:, :10] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    crop = next(iter(load_samples(tmp_path, (PICTURE,))))["picture"]
    stretch = next(iter(load_samples(tmp_path, (PICTURE,), ImageOptions(resize="stretch"))))["picture"]
    assert crop[0, :, 0, 0].tolist() == [0, 0, 0]
    assert stretch[0, 0, 0, 0] > 100
    assert crop[0, 0, 0, 5] == stretch[0, 0, 0, 5] == 255


def test_gray_and_uint8_models_take_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", color=(9, 9, 9))
    spec = InputSpec("p", np.dtype(np.uint8), (1, None, None, 1))
    (sample,) = load_samples(tmp_path, (spec,), ImageOptions(size=(2, 5)))
    assert sample["p"].dtype == np.uint8
    assert sample["p"].shape == (1, 2, 5, 1)
    assert (sample["p"] == 9).all()


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (X, {}, "does not take one image at a time"),
        (InputSpec("p", np.dtype(np.float32), (1, 7, 4, 5)), {}, "does not have 1 or 3 channels"),
        (InputSpec("p", np.dtype(np.float32), (1, 3, None, None)), {}, "leaves the image size open"),
        (PICTURE, {"size": (5, 5)}, "image size 5×5 does not fit.*takes \\[4, 6\\]"),
        (PICTURE, {"mean": (1.0, 2.0)}, "image mean has 2 numbers"),
        (InputSpec("p", np.dtype(np.uint8), (1, 3, 4, 4)), {"std": (2.0,)}, "takes uint8, not images with a mean"),
        (InputSpec("p", np.dtype(np.int64), (1, 3, 4, 4)), {}, "takes int64, not images"),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(tmp_path: Path, spec, options, message: str) -> None:
    picture(tmp_path / "a.png")
    with refused(message):
        load_samples(tmp_path, (spec,), ImageOptions(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": (0.0,)}, "std is zero"),
        ({"mean": (np.nan,)}, "not finite"),
        ({"std": (0.229, 0.224, 0.225)}, "0.229 is in units of 0..1, but pixels are 0..255"),
        ({"resize": "pad"}, "image resize 'pad'; use crop or stretch"),
        ({"order": "rbg"}, "image order 'rbg'; use rgb or bgr"),
    ],
)
def test_image_options_that_make_no_sense_are_refused(options, message: str) -> None:
    with refused(message):
        ImageOptions(**options)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    whole = picture(tmp_path / "a.png", size=(64, 64)).read_bytes()
    for content in (b"", b"not an image", whole[: len(whole) // 2]):
        (tmp_path / "a.png").write_bytes(content)
        with refused("a.png: cannot be read as an image"):
            list(load_samples(tmp_path, (PICTURE,)))


def test_images_and_arrays_do_not_mix(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.zeros((1, 3)))
    with refused("holds both arrays and images"):
        load_samples(tmp_path, (PICTURE,))
    with refused("images, but the model has 2 inputs"):
        load_samples(tmp_path / "a.png", (X, IDS))
