"""`qcomp opt`, `qcomp targets` and `qcomp check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qcomp.ir.text import parse_graph
from qcomp.runtime.features import cpu_features
from qcomp.targets.loader import native, target, target_names

TEXT = """graph @g {requantize = "float"} {
  input %x: f32[4]
  const %c: f32[4] = [1.0, 2.0, 3.0, 4.0]
  %d: f32[4] = add(%c, %c)
  %y: f32[4] = mul(%x, %d)
  output %y
}
"""
FOLDED = """graph @g {requantize = "float"} {
  input %x: f32[4]
  const %d: f32[4] = [2.0, 4.0, 6.0, 8.0]
  %y: f32[4] = mul(%x, %d)
  output %y
}
"""


def write(folder: Path) -> Path:
    (folder / "g.qir").write_text(TEXT)
    return folder / "g.qir"


def test_passes_turn_text_into_text(qcomp: Any, tmp_path: Path) -> None:
    outcome = qcomp("opt", write(tmp_path), "--passes=fold-constants,dead-code", "--check-passes")
    assert (outcome.status, outcome.out, outcome.err) == (0, FOLDED, "")


def test_pass_options_are_taken(qcomp: Any, made: Path, tmp_path: Path) -> None:
    ranges = tmp_path / "ranges.json"
    ranges.write_text('{"x": [-1, 1], "h": [-2, 2], "r": [0, 2], "y": [-3, 3]}')
    outcome = qcomp("opt", made / "mlp.onnx", f"--passes=insert-fake-quant{{file={ranges}}}")
    assert outcome.out.count(" = fake_quant(") >= 2


def test_the_result_goes_to_a_file(qcomp: Any, tmp_path: Path) -> None:
    outcome = qcomp("opt", write(tmp_path), "--passes=fold-constants", "-o", tmp_path / "o.qir")
    assert (outcome.status, outcome.out) == (0, "")
    assert (tmp_path / "o.qir").read_text() == FOLDED


def test_an_onnx_model_prints_as_a_graph_that_parses(qcomp: Any, made: Path) -> None:
    graph = parse_graph(qcomp("opt", made / "mlp.onnx").out)
    assert [n.op.name for n in graph.nodes] == ["gemm", "relu", "gemm"]


def test_every_step_is_shown_on_request(qcomp: Any, tmp_path: Path) -> None:
    outcome = qcomp("opt", write(tmp_path), "--passes=fold-constants,dead-code", "--print-after-all")
    assert outcome.out == FOLDED
    assert outcome.err.count("graph @g") == 2 and "# after dead-code" in outcome.err


def test_json_tells_what_every_pass_did(qcomp: Any, tmp_path: Path) -> None:
    facts = qcomp("opt", write(tmp_path), "--passes=fold-constants,dead-code", "--json").json
    assert [(p["name"], p["changed"]) for p in facts["passes"]] == [("fold-constants", True), ("dead-code", False)]
    assert facts["qir"] == FOLDED


def test_passes_are_listed_with_their_options(qcomp: Any) -> None:
    passes = {p["name"]: p for p in qcomp("opt", "--list", "--json").json["passes"]}
    assert passes["assign-per-channel"]["options"] == [{"name": "per_tensor", "type": "bool", "default": "False"}]
    assert "fold-constants" in qcomp("opt", "--list").out


def test_targets_lists_all_and_marks_native(qcomp: Any) -> None:
    rows = {r["name"]: r for r in qcomp("targets", "--json").json["targets"]}
    assert tuple(rows) == target_names()
    assert [name for name, row in rows.items() if row["native"]] == [native().name]
    for name, row in rows.items():
        assert row["features"] == sorted(target(name).features)
        if row["arch"] == native().arch:
            assert row["runs_here"] == (target(name).features <= cpu_features())
    text = qcomp("targets").out
    assert all(name in text for name in rows) and "native" in text


def test_check_needs_no_data_and_names_float_islands(qcomp: Any, made: Path) -> None:
    facts = qcomp("check", made / "softmax.onnx", "--json").json
    assert facts["quantized"] is False
    assert facts["macs"] == {"int8": 504, "int16": 0, "float32": 0}
    assert [(i["op"], i["node"]) for i in facts["islands"]] == [("softmax", "z")]
    assert facts["islands"][0]["advice"]
    assert "1 x softmax (z)" in qcomp("check", made / "softmax.onnx", "--target", "generic").out


def test_check_says_that_it_set_an_open_batch_to_1(qcomp: Any, made: Path) -> None:
    note = "the open batch dimension was set to 1 (--shape sets another): x"
    assert qcomp("check", made / "dynamic.onnx", "--json").json["notes"] == [note]
    assert f"note: {note}\n" in qcomp("check", made / "dynamic.onnx").out
    assert qcomp("check", made / "dynamic.onnx", "--shape", "x=4,16", "--json").json["notes"] == []


def test_check_lists_every_node_that_stays_float32(qcomp: Any, tmp_path: Path) -> None:
    (tmp_path / "m.qir").write_text(
        "graph @m {\n  input %x: f32[2,3]\n  %s: f32[2,3] = softmax(%x) {axis = 1}\n"
        "  %y: f32[3,2] = transpose(%s) {perm = [1, 0]}\n  output %y\n}\n"
    )
    facts = qcomp("check", tmp_path / "m.qir", "--json").json
    assert facts["nodes"] == {"int8": 0, "int16": 0, "float32": 2}
    assert (len(facts["islands"]), facts["float_copies"]) == (1, ["transpose"])
    assert "1 x data movement (transpose)" in qcomp("check", tmp_path / "m.qir").out


def test_check_of_a_convolutional_network_finds_no_islands(qcomp: Any, made: Path) -> None:
    facts = qcomp("check", made / "convnet.onnx", "--target", "x86_64", "--json").json
    assert (facts["target"], facts["islands"], facts["int8_share_of_macs"]) == ("x86_64", [], 1.0)
