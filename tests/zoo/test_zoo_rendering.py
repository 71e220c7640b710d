"""What the zoo renders is the same for the same seed, and its metrics give known answers on small inputs."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.zoo import page_orientation, photos, ppocr_det, ppocr_rec, random_networks, text


def test_lines_of_a_seed_are_the_same_pixels_and_texts() -> None:
    first, second = ppocr_rec.lines(8, seed=5), ppocr_rec.lines(8, seed=5)
    assert first[1] == second[1]
    assert [image.tobytes() for image in first[0]] == [image.tobytes() for image in second[0]]


def test_lines_of_another_seed_differ() -> None:
    assert ppocr_rec.lines(8, seed=5)[1] != ppocr_rec.lines(8, seed=6)[1]


def test_texts_keep_to_the_longest_length() -> None:
    random = np.random.default_rng(0)
    texts = [text.random_text(random, longest=20) for _ in range(500)]
    assert max(map(len, texts)) == 20
    assert all(texts)
    assert any(any(character.isdigit() for character in content) for content in texts)


def test_a_line_is_padded_with_zeros_on_its_right() -> None:
    images, _ = ppocr_rec.lines(40, seed=1)
    narrow = min(images, key=lambda image: image.width / image.height)
    width = round(narrow.width * 48 / narrow.height)
    assert width < 320
    tensor = ppocr_rec.to_tensor([narrow])
    assert tensor.shape == (1, 3, 48, 320)
    assert np.all(tensor[..., width:] == 0)
    assert tensor.min() >= -1 and tensor.max() <= 1
    assert np.all(np.abs(tensor[..., :width]).max(axis=(0, 1, 2)) > 0)


def test_greedy_decoding_drops_repeats_and_blanks() -> None:
    alphabet = ["", "a", "b"]
    steps = [1, 1, 0, 1, 2, 2, 0, 0, 2]
    assert ppocr_rec.decode(np.eye(3, dtype=np.float32)[[steps]], alphabet) == ["aabb"]


def test_pages_of_a_seed_are_the_same() -> None:
    first, second = ppocr_det.pages(2, seed=5), ppocr_det.pages(2, seed=5)
    assert [page.boxes for page in first] == [page.boxes for page in second]
    assert [page.image.tobytes() for page in first] == [page.image.tobytes() for page in second]


def test_lines_of_a_page_are_inside_it_and_apart() -> None:
    for page in ppocr_det.pages(4, seed=9):
        for left, top, right, bottom in page.boxes:
            assert 0 <= left < right <= page.image.width
            assert 0 <= top < bottom <= page.image.height
        assert all(above[3] < below[1] for above, below in zip(page.boxes, page.boxes[1:], strict=False))


def test_connected_regions_become_grown_boxes() -> None:
    probability = np.zeros((640, 640), np.float32)
    probability[100:120, 200:300] = 0.9
    # An L of two runs that touch only further down is one region.
    probability[300:340, 50:60] = 0.9
    probability[330:340, 60:150] = 0.9
    probability[500:502, 500:600] = 0.9  # too thin
    probability[400:420, 400:420] = 0.4  # too faint
    grow = 20 * 100 * 1.6 / (2 * (20 + 100))
    first = ppocr_det.boxes(probability[:250].repeat(1, axis=0))
    assert first == [(200 - grow, 100 - grow, 300 + grow, 120 + grow)]
    joined = ppocr_det.boxes(np.where(probability > 0.5, np.float32(0.9), np.float32(0)))
    assert len(joined) == 1  # the L fills less than half of its box, which is below the score


def test_a_spiral_is_one_region() -> None:
    mask = np.zeros((640, 640), bool)
    mask[10, 10:30] = mask[10:30, 29] = mask[29, 10:30] = mask[14:30, 10] = mask[14, 10:20] = True
    assert ppocr_det._components(mask) == [(10, 10, 30, 30)]


def test_f1_counts_a_true_box_once() -> None:
    true: list[list[ppocr_det.Box]] = [[(0, 0, 10, 10), (20, 20, 30, 30)]]
    found: list[list[ppocr_det.Box]] = [[(0, 0, 10, 9), (0, 0, 9, 10), (40, 40, 50, 50)]]
    figures = ppocr_det.score(found, true)
    assert figures["precision"] == 1 / 3
    assert figures["recall"] == 1 / 2
    assert figures["f1"] == 2 * 1 / 5


def test_turned_pages_have_all_four_labels_and_are_the_same_for_a_seed() -> None:
    images, labels = page_orientation.pages(12, seed=3)
    again, same_labels = page_orientation.pages(12, seed=3)
    assert [image.tobytes() for image in images] == [image.tobytes() for image in again]
    assert labels.tolist() == same_labels.tolist()
    assert set(labels.tolist()) == {0, 1, 2, 3}
    for image, label in zip(images, labels.tolist(), strict=True):
        assert (image.width > image.height) == (label % 2 == 1)


def test_smooth_pictures_are_the_same_for_a_seed_and_smooth() -> None:
    first, second = (random_networks.pictures(3, 1, (3, 224, 224)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    # Neighbours differ far less than pixels do: the spectrum falls with frequency.
    assert np.abs(np.diff(first, axis=3)).mean() < 0.5 * first.std()


def test_no_photo_is_named_twice() -> None:
    labelled = [*photos.STAMPS, *photos.SCENES]
    calibration = [*photos.CALIBRATION_STAMPS, *photos.CALIBRATION_SCENES]
    assert len(set(labelled)) == len(labelled) == 96 - 20
    assert len(set(calibration)) == len(calibration) == photos.CALIBRATION_SAMPLES
    assert not set(labelled) & set(calibration)


@pytest.mark.parametrize("classes", [*photos.STAMPS.values(), *photos.SCENES.values()])
def test_labels_are_imagenet_classes(classes: tuple[int, ...]) -> None:
    assert classes
    assert all(0 <= index < 1000 for index in classes)


def test_class_names_are_in_the_order_of_the_outputs() -> None:
    names = photos.class_names()
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
