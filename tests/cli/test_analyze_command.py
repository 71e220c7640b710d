"""`qcomp analyze`, and precisions in `compile`, `check` and `inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from onnx import helper, numpy_helper

from qcomp.cli.islands import island_lines

CHANNELS = 16


@pytest.fixture(scope="module")
def delicate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """delicate.onnx: three Gemms, of which "delicate" reads a channel 400 times as large as its others; data.npz."""
    folder = tmp_path_factory.mktemp("delicate")
    generator = np.random.default_rng(7)
    spread = np.eye(CHANNELS, dtype=np.float32)
    spread[-1, -1] = 400
    inner = generator.standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    inner[:, -1] /= 400
    last = generator.standard_normal((5, CHANNELS)).astype(np.float32)
    layers = {"spread": spread, "delicate": inner, "last": last}
    values = [("x", "a"), ("limited", "b"), ("b", "y")]
    nodes = [
        helper.make_node("Gemm", [before, f"{name}.w"], [after], name=name, transB=1)
        for name, (before, after) in zip(layers, values, strict=True)
    ]
    nodes.insert(1, helper.make_node("Clip", ["a", "low", "high"], ["limited"], name="limit"))  # not to be equalized
    constants = [numpy_helper.from_array(weights, f"{name}.w") for name, weights in layers.items()]
    constants += [numpy_helper.from_array(np.float32(end), name) for name, end in (("low", -1e4), ("high", 1e4))]
    proto = models.model(nodes, [models.tensor("x", [1, CHANNELS])], [models.tensor("y", [1, 5])], constants)
    models.save(proto, folder / "delicate.onnx")
    x = generator.standard_normal((48, CHANNELS)).astype(np.float32)
    np.savez(folder / "data.npz", x=x)
    outputs = x.astype(np.float64) @ spread.T @ inner.T @ last.T
    np.save(folder / "labels.npy", outputs.argmax(axis=1))
    return folder


def analyze(qcomp: Any, folder: Path, *options: object) -> Any:
    return qcomp("analyze", folder / "delicate.onnx", "--calibrate", folder / "data.npz", *options)


def compile_it(qcomp: Any, folder: Path, out: Path, *options: object) -> Any:
    return qcomp("compile", folder / "delicate.onnx", "-o", out, "--calibrate", folder / "data.npz", *options)


def test_the_table_begins_with_the_most_sensitive_layer(qcomp: Any, delicate: Path) -> None:
    outcome = analyze(qcomp, delicate)
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("───")) + 1
    assert lines[first].split()[:2] == ["delicate", "gemm"]
    assert lines[-1].startswith("all in int8: ")


def test_json_has_every_layer_in_the_order_of_the_model(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    facts = analyze(qcomp, delicate, "--json", "-o", tmp_path / "a.json").json
    assert [layer["layer"] for layer in facts["layers"]] == ["spread", "delicate", "last"]
    assert [layer["rank"] for layer in facts["layers"]][1] == 1
    assert facts["layers"][2]["macs"] == 5 * CHANNELS
    assert facts["samples"] == 48 and facts["search"] is None
    assert facts["float32"] == {"sqnr_db": None, "cosine": 1.0, "agreement": 1.0, "accuracy": None}
    assert json.loads((tmp_path / "a.json").read_text()) == facts


def test_the_same_input_gives_the_same_numbers(qcomp: Any, delicate: Path) -> None:
    first, second = (analyze(qcomp, delicate, "--json", "--threads", n).json for n in (1, 3))
    del first["seconds"], second["seconds"]
    assert first == second


def test_labels_bring_accuracy(qcomp: Any, delicate: Path) -> None:
    facts = analyze(qcomp, delicate, "--json", "--labels", delicate / "labels.npy").json
    assert facts["float32"]["accuracy"] == 1.0
    assert facts["int8"]["accuracy"] == facts["int8"]["agreement"] < 1.0
    assert "accuracy" in analyze(qcomp, delicate, "--labels", delicate / "labels.npy").out


def test_a_search_keeps_the_delicate_layer_in_float32(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    facts = analyze(
        qcomp, delicate, "--search", "--min-sqnr", 30, "--save-precision", tmp_path / "p.json", "--json"
    ).json
    assert facts["search"]["best"]["float32_layers"] == ["delicate"]
    assert facts["search"]["best"]["sqnr_db"] >= 30 > facts["int8"]["sqnr_db"]
    precision = {"spread": "int8", "delicate": "float32", "last": "int8"}
    assert json.loads((tmp_path / "p.json").read_text()) == facts["search"]["precision"] == precision
    assert any(mix["on_front"] for mix in facts["search"]["looked_at"])
    assert "chosen" in analyze(qcomp, delicate, "--search", "--min-sqnr", 30).out


def test_compile_searches_and_reaches_the_goal(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.so"
    facts = compile_it(qcomp, delicate, out, "--precision", "auto", "--min-sqnr", 39, "--target", "x86_64-avx2",
                       "--save-precision", tmp_path / "p.json", "--json").json  # fmt: skip
    assert facts["search"]["best"]["float32_layers"] == ["delicate"]
    reasons = {"limit": "float-neighbours", "delicate": "chosen-float32"}
    assert {i["node"]: i["reason"] for i in facts["islands"]} == reasons
    assert facts["nodes"] == {"int8": 2, "int16": 0, "float32": 2}
    confirmed = facts["search"]["confirmed"]
    assert confirmed is None or (confirmed["sqnr_db"] >= 39 and confirmed["bytes"] == out.stat().st_size)
    again = tmp_path / "again.so"
    assert compile_it(qcomp, delicate, again, "--precision", tmp_path / "p.json", "--target", "x86_64-avx2").status == 0
    assert again.read_bytes() == out.read_bytes()


def test_what_was_calibrated_is_told_of_the_mix_that_is_kept(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    outcome = compile_it(qcomp, delicate, tmp_path / "m.so", "--precision", "auto", "--min-sqnr", 39)
    assert outcome.out.count("calibration: biases of") == 1
    assert "same dB" not in outcome.out


def test_islands_of_one_name_are_named_once() -> None:
    island = {"node": "l", "op": "lstm", "reason": "r", "detail": "d", "advice": "a", "macs": 0}
    assert island_lines([island, island], []) == ["2 x lstm (l): d [r]; a"]


def test_a_drop_is_by_agreement_without_labels(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    facts = compile_it(qcomp, delicate, tmp_path / "m.so", "--precision", "auto", "--max-drop", "0.5%", "--json").json
    assert facts["search"]["goal"] == "a drop of at most 0.50%"
    assert facts["search"]["best"]["agreement"] == 1.0


@pytest.mark.parametrize("command", ["analyze", "compile"])
def test_a_goal_out_of_reach_is_one_line(qcomp: Any, delicate: Path, tmp_path: Path, command: str) -> None:
    options = ("--min-sqnr", 60, "--max-size", "200")
    if command == "analyze":
        outcome = analyze(qcomp, delicate, "--search", *options)
    else:
        outcome = compile_it(qcomp, delicate, tmp_path / "m.so", "--precision", "auto", *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("qcomp: error: precision auto: no mix reaches at least 60 dB, at most 200 bytes: ")
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_shown_everywhere(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"delicate": "float32"}')
    out = tmp_path / "m.so"
    outcome = compile_it(qcomp, delicate, out, "--precision", tmp_path / "p.json")
    assert "1 x gemm (delicate): it was chosen to stay float32 [chosen-float32]; choose int8" in outcome.out
    assert "chosen-float32" in qcomp("inspect", out).out
    checked = qcomp("check", delicate / "delicate.onnx", "--precision", tmp_path / "p.json")
    assert "[chosen-float32]" in checked.out
    refused = compile_it(qcomp, delicate, out, "--precision", tmp_path / "p.json", "--require-int8")
    assert refused.status == 2
    assert "2 ops stay float32: clip 'limit' (float-neighbours), gemm 'delicate' (chosen-float32)" in refused.err
    assert "chosen-float32: choose int8 for it" in refused.err


def test_two_different_data_sets_calibrate_and_judge(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(9).standard_normal((20, CHANNELS)).astype(np.float32)
    np.savez(tmp_path / "other.npz", x=x)
    facts = analyze(qcomp, delicate, "--validate", tmp_path / "other.npz", "--json").json
    assert facts["samples"] == 20


@pytest.mark.parametrize(
    ("options", "mention"),
    [
        (("--max-drop", "0.5%"), "--search"),
        (("--search", "--max-drop", "many"), "'many' is no share"),
        (("--search", "--max-drop", "200%"), "no bound"),
        (("--search", "--max-size", "3XB"), "'3XB' is no size"),
        (("--search", "--max-latency", "5", "--target", "generic"), "no rates"),
        (("--labels", "LOST.npy"), "LOST.npy"),
        (("--decode", "beam"), "'beam'"),
        (("--ignore", "x"), "--ignore"),
        (("--validate", "LOST.npz"), "LOST.npz"),
        (("--threads", "-1"), "-1 threads"),
        (("--threads", "99999"), "99999 threads"),
        (("--target", "z80"), "z80"),
        (("--method", "entrpy"), "entrpy"),
    ],
)
def test_bad_options_of_analyze_are_one_line(
    qcomp: Any, delicate: Path, options: tuple[str, ...], mention: str
) -> None:
    outcome = analyze(qcomp, delicate, *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert mention in outcome.err and outcome.err.count("\n") == 1


def test_analyze_needs_data_and_a_float_model(qcomp: Any, delicate: Path, made: Path) -> None:
    assert "--calibrate" in qcomp("analyze", delicate / "delicate.onnx").err
    assert "quantized already" in qcomp("analyze", made / "qdq.onnx", "--calibrate", made / "mlp.npz").err


@pytest.mark.parametrize(
    ("options", "mention"),
    [
        (("--min-sqnr", "30"), "give --precision auto"),
        (("--precision", "lost.json"), "lost.json"),
        (("--precision", "auto", "--float"), "exclude each other"),
    ],
)
def test_bad_precisions_are_one_line(
    qcomp: Any, delicate: Path, tmp_path: Path, options: tuple[str, ...], mention: str
) -> None:
    outcome = compile_it(qcomp, delicate, tmp_path / "m.so", *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert mention in outcome.err and outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_there_is_not_is_told_with_its_file(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"delicacy": "float32"}')
    outcome = compile_it(qcomp, delicate, tmp_path / "m.so", "--precision", tmp_path / "p.json")
    assert (outcome.status, outcome.out) == (2, "")
    assert "p.json: the model has no node 'delicacy'; did you mean delicate?" in outcome.err


def test_too_few_labels_are_told_with_their_file(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.zeros(3, np.int64))
    assert "few.npy: 3 labels for 48 samples" in analyze(qcomp, delicate, "--labels", tmp_path / "few.npy").err


def test_a_precision_needs_data(qcomp: Any, delicate: Path, tmp_path: Path) -> None:
    outcome = qcomp("compile", delicate / "delicate.onnx", "-o", tmp_path / "m.so", "--precision", "auto")
    assert outcome.status == 2 and "give --calibrate DATA" in outcome.err


def test_tune_follows_a_file_and_does_not_search() -> None:
    from qcomp.compiler import Options, read_precision_of
    from qcomp.errors import QcompError

    with pytest.raises(QcompError, match="save the one that they find"):
        read_precision_of(Options(precision="auto"))
