"""Figures of a comparison against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import parse_graph
from qcomp.reports.compare.agreement import Decisions, Noise, OutputFigures, choice_axis, count_decisions, decisions
from qcomp.reports.compare.cost import Cost, float_cost
from qcomp.reports.compare.front import Candidate, read_front, undominated
from qcomp.reports.compare.gate import Limits, check_limits, parse_share
from qcomp.reports.compare.judge import check_classes
from qcomp.reports.compare.labels import read_labels


def noise(reference: list[float], result: list[float]) -> Noise:
    found = Noise()
    found.add(np.asarray(reference, np.float32), np.asarray(result, np.float32))
    return found


def test_noise_of_two_vectors() -> None:
    # signal 9 + 16 = 25, noise 0 + 0.25, product 9 + 14, other 9 + 12.25
    found = noise([3, 4], [3, 3.5])
    assert found.sqnr_db == 10 * math.log10(25 / 0.25) == 20.0
    assert found.cosine == 23 / math.sqrt(25 * 21.25)
    assert found.largest == 0.5
    assert found.rms_error == math.sqrt(0.125)


def test_noise_adds_up_over_arrays() -> None:
    found = noise([3], [3])
    found.add(np.asarray([4.0]), np.asarray([3.5]))
    assert found.sqnr_db == 20.0 and found.count == 2


def test_equal_outputs_have_no_noise_and_lost_ones_the_worst() -> None:
    assert OutputFigures.of("y", noise([1, 2], [1, 2])) == OutputFigures("y", 2, None, 1.0, 0.0, 0.0)
    assert OutputFigures.of("y", noise([0, 0], [1, 2])).sqnr_db == -200.0
    assert OutputFigures.of("y", noise([1, 2], [0, 0])).cosine == 0.0


def test_what_is_not_finite_is_counted_apart() -> None:
    nan, inf = math.nan, math.inf
    found = noise([3, 4, nan, inf, inf, 1], [3, 3.5, nan, inf, 2, -inf])
    assert (found.sqnr_db, found.count, found.unlike) == (20.0, 2, 2)


def test_an_output_of_rank_4_decides_along_axis_1_and_others_along_the_last() -> None:
    image = np.zeros((1, 3, 2, 2), np.float32)
    image[0, 2, 0, 1] = image[0, 1, 1, 1] = 1
    assert decisions(image, None).tolist() == [0, 2, 0, 1]
    assert decisions(np.asarray([[0, 5, 1], [7, 0, 0]], np.float32), None).tolist() == [1, 0]
    assert decisions(np.asarray([[0, 5, 1], [7, 0, 0]], np.float32), 0).tolist() == [1, 0, 0]


def test_integers_are_decisions_and_single_numbers_are_none() -> None:
    assert decisions(np.asarray([[4, 2]], np.int64), None).tolist() == [4, 2]
    assert decisions(np.zeros((5, 1), np.float32), None).size == 0
    with pytest.raises(QcompError, match="no axis 2"):
        decisions(np.zeros((5, 3), np.float32), 2)


def test_images_choose_along_their_channels() -> None:
    image = np.zeros((1, 3, 5, 2), np.float32)
    assert choice_axis(image, None) == 1 and choice_axis(image, 3) == 3
    assert choice_axis(image[0], None) == 2 and choice_axis(image.astype(np.int64), None) is None
    # class 2 is one of three channels, though there are only two columns
    check_classes(np.full((10, 1), 2), image, None)
    with pytest.raises(QcompError, match=r"labels of sample 0 are \[3\], and the model has 3 classes"):
        check_classes(np.full((10, 1), 3), image, None)
    with pytest.raises(QcompError, match="no axis 7"):
        check_classes(np.full((10, 1), 0), image, 7)
    with pytest.raises(QcompError, match="one-hot"):
        check_classes(np.eye(3, dtype=np.int64), np.zeros((3, 3)), None)


def test_decisions_are_counted() -> None:
    ours, theirs = np.asarray([1, 2, 3, 4]), np.asarray([1, 2, 0, 4])
    assert count_decisions(theirs, ours, None) == Decisions(4, 3)
    labels = np.asarray([[1, -1], [7, 2], [3, -1], [0, -1]])
    counted = count_decisions(theirs, ours, labels)
    assert counted == Decisions(4, 3, 2, 3)
    assert (counted.agreement, counted.float_top1, counted.int8_top1, counted.drop) == (0.75, 0.5, 0.75, -0.25)
    with pytest.raises(QcompError, match="3 labels for 4 decisions"):
        count_decisions(theirs, ours, labels[:3])


@pytest.mark.parametrize(("lost", "passed"), [(0, True), (1, True), (2, False), (-3, True)])
def test_the_gate_allows_just_the_drop(lost: int, passed: bool) -> None:
    (check,) = check_limits(Limits(max_drop=0.01), Decisions(100, 90, 80, 80 - lost), ())
    assert (check.passed, check.found) == (passed, lost / 100)


def test_the_gate_on_agreement_and_noise() -> None:
    outputs = (OutputFigures("a", 1, 19.9, 1, 0, 0), OutputFigures("b", 1, None, 1, 0, 0))
    checks = check_limits(Limits(min_agreement=0.9, min_sqnr_db=20), Decisions(10, 9), outputs)
    assert [check.passed for check in checks] == [True, False]
    (exact,) = check_limits(Limits(min_sqnr_db=20), Decisions(10, 9), outputs[1:])
    assert exact.passed and exact.found is None
    with pytest.raises(QcompError, match="decides nothing"):
        check_limits(Limits(min_agreement=0.9), Decisions(0, 0), outputs)


def test_shares() -> None:
    assert (parse_share("--max-drop", "1%"), parse_share("--max-drop", "0.25")) == (0.01, 0.25)
    for text in ("", "%", "-1%", "101%", "nan", "one"):
        with pytest.raises(QcompError, match="no share"):
            parse_share("--max-drop", text)


def test_labels_of_a_text_an_array_and_a_mapping(tmp_path: Path) -> None:
    text = tmp_path / "l.txt"
    text.write_text("3\n1 2\n# a remark\n0, 5 # another\n")
    assert read_labels(text).tolist() == [[3, -1], [1, 2], [0, 5]]
    np.save(tmp_path / "l.npy", np.asarray([3, 1], np.uint8))
    assert read_labels(tmp_path / "l.npy").tolist() == [[3], [1]]
    np.savez(tmp_path / "l.npz", labels=np.asarray([[3, 1]]), x=np.zeros(2))
    assert read_labels(tmp_path / "l.npz").tolist() == [[3, 1]]


@pytest.mark.parametrize("content", ["", "# nothing\n", "cat\n", "1.5\n", "\xff"])
def test_what_is_no_labels_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "l.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(QcompError, match="l.txt"):
        read_labels(tmp_path / "l.txt")
    np.save(tmp_path / "l.npy", np.zeros(3, np.float32))
    with pytest.raises(QcompError, match="whole numbers"):
        read_labels(tmp_path / "l.npy")
    np.savez(tmp_path / "l.npz", a=np.zeros(3, np.int64), b=np.zeros(3, np.int64))
    with pytest.raises(QcompError, match=r"no key 'labels' \(found: a, b\)"):
        read_labels(tmp_path / "l.npz")


def test_energy_of_a_small_network_is_all_from_the_cache() -> None:
    cost = Cost(int8_macs=1000, float_macs=100, activation_bytes=80, weight_bytes=16)
    assert cost.arithmetic_uj == pytest.approx((1000 * 0.3 + 100 * 4.6) / 1e6)
    assert cost.traffic_uj == pytest.approx(96 * 12.5 / 1e6)
    assert cost.bytes_moved == 96


def test_weights_beyond_a_megabyte_come_from_dram() -> None:
    cost = Cost(0, 0, 8, (1 << 20) + 8)
    assert cost.traffic_uj == pytest.approx((8 * 12.5 + ((1 << 20) + 8) * 162.5) / 1e6)


def test_the_float_graph_moves_no_functions_and_no_views() -> None:
    graph = parse_graph("""graph @m {
      input %x: f32[2,8]
      const %w: f32[8,4] = z"eJxjYBgFo2AUAAAEAAAB"
      %a: f32[2,4] = gemm(%x, %w)
      %r: f32[2,4] = relu(%a)
      %s: f32[8] = reshape(%r) {shape = [8]}
      %y: f32[8] = softmax(%s) {axis = 0}
      output %y
    }""".replace('z"eJxjYBgFo2AUAAAEAAAB"', f"[{', '.join(['1.0'] * 32)}]"))
    # x 64 read, relu's result 32 written; softmax reads and writes 32; weights 128
    assert float_cost(graph) == Cost(0, 64, 64 + 32 + 32 + 32, 128)


def test_a_front_is_read_and_its_best_kept(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    rows = [("slow", 0.9, 2.0), ("fast", 0.8, 1.0), ("beaten", 0.7, 1.5), ("as slow", 0.85, 2.0)]
    path.write_text(json.dumps([{"accuracy": a, "latency_ms": t, "size": 5, "label": n} for n, a, t in rows]))
    found = read_front(path)
    assert found[0] == Candidate(0.9, 2.0, 5, "slow")
    assert [c.label for c in undominated(found)] == ["fast", "slow"]


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"accuracy": 1}]', '[{"accuracy": NaN, "latency_ms": 1, '
                                  '"size": 1, "label": "a"}]'])  # fmt: skip
def test_what_is_no_front_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "front.json").write_text(text)
    with pytest.raises(QcompError, match="front.json"):
        read_front(tmp_path / "front.json")
