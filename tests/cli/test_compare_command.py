"""`qcomp compare` on small models: the gate's exit status, figures, the page, and mismatched inputs in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnxruntime
import pytest

import qcomp as package
from qcomp.cli import main
from qcomp.ir import parse_graph
from qcomp.ir.interpreter import run

Run = Callable[..., Any]
HOSTILE = '<script>alert("x")</script>&amp;\x00'
VOID = {"meta", "link", "br", "img", "hr", "input"}


@pytest.fixture(scope="module")
def convnet(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: model.onnx, model.so, model.qir, data.npz, labels.npy (the float model's decisions)."""
    folder = tmp_path_factory.mktemp("convnet")
    shutil.copy(made / "convnet.onnx", folder / "model.onnx")
    data = np.random.default_rng(4).standard_normal((24, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=data)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    outputs = np.concatenate([session.run(None, {"x": x[None]})[0] for x in data])
    np.save(folder / "labels.npy", outputs.argmax(1))
    command = ["compile", "model.onnx", "-o", "model.so", "--calibrate", "data.npz", "--save-graph", "model.qir", "-q"]
    with pytest.raises(SystemExit) as exit:
        main([word if word.startswith("-") or word == "compile" else str(folder / word) for word in command])
    assert exit.value.code == 0
    return folder


def arguments(folder: Path, *options: object) -> list[object]:
    named = [folder / o if isinstance(o, str) and "." in o and (folder / o).exists() else o for o in options]
    return ["compare", folder / "model.onnx", folder / "model.so", "--data", folder / "data.npz", "--runs", 10, *named]


@pytest.fixture(scope="module")
def full(convnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all sections."""
    page = tmp_path_factory.mktemp("page") / "report.html"
    rows = [{"accuracy": 0.9, "latency_ms": 1.0, "size": 10, "label": HOSTILE}]
    (convnet / "front.json").write_text(json.dumps(rows))
    options = ("--graph", "model.qir", "--calibrate", "data.npz", "--labels", "labels.npy", "--max-drop", "50%",
               "--front", "front.json", "--html", page, "--quiet")  # fmt: skip
    with pytest.raises(SystemExit) as exit:
        main([str(a) for a in arguments(convnet, *options)])
    assert exit.value.code == 0
    return page


def test_the_figures_are_those_of_both_models(qcomp: Run, convnet: Path) -> None:
    outcome = qcomp(*arguments(convnet, "--graph", "model.qir", "--labels", "labels.npy", "--json"))
    assert (outcome.status, outcome.err) == (0, "")
    facts = outcome.json
    data = np.load(convnet / "data.npz")["x"]
    session = onnxruntime.InferenceSession(str(convnet / "model.onnx"), providers=["CPUExecutionProvider"])
    reference = np.concatenate([session.run(None, {"x": x[None]})[0] for x in data]).astype(np.float64)
    with package.load(convnet / "model.so") as model:
        result = np.concatenate([model.run(x[None])["y"] for x in data]).astype(np.float64)
    equal = int((reference.argmax(1) == result.argmax(1)).sum())
    assert facts["samples"] == facts["decisions"] == 24
    assert facts["agreement"] == equal / 24 == facts["qcomp"]["top1"] and facts["onnxruntime"]["top1"] == 1.0
    (output,) = facts["outputs"]
    noise = ((result - reference) ** 2).sum()
    assert output["sqnr_db"] == pytest.approx(10 * np.log10((reference**2).sum() / noise))
    assert output["max_error"] == np.abs(result - reference).max()
    assert facts["qcomp"]["disk_bytes"] == (convnet / "model.so").stat().st_size
    assert facts["onnxruntime"]["disk_bytes"] == (convnet / "model.onnx").stat().st_size
    assert facts["qcomp"]["memory_bytes"] == facts["arena_bytes"] + facts["weights_bytes"]
    assert facts["qcomp"]["macs"]["int8"] == facts["onnxruntime"]["macs"]["float32"] == sum(
        step["macs"] for step in facts["steps"]
    )
    assert facts["speedup"] == facts["onnxruntime"]["median_ms"] / facts["qcomp"]["median_ms"]
    assert facts["memory_plan"]["arena_bytes"] == facts["arena_bytes"]
    computing = [step for step in facts["steps"] if step["macs"]]
    assert len(computing) == 3 and all(step["error"]["isolated_sqnr_db"] > 20 for step in computing)
    assert computing[-1]["error"]["accumulated_sqnr_db"] == pytest.approx(output["sqnr_db"], abs=6)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--min-agreement", "0%"), 0),
        (("--min-sqnr", "500"), 1),
        (("--min-sqnr", "5", "--min-agreement", "0"), 0),
        (("--labels", "wrong.txt", "--max-drop", "100%"), 0),
    ],
)
def test_the_gate_decides_the_exit_status(qcomp: Run, convnet: Path, options: tuple[str, ...], status: int) -> None:
    (convnet / "wrong.txt").write_text("4\n" * 24)
    outcome = qcomp(*arguments(convnet, *options, "--json"))
    assert (outcome.status, outcome.err) == (status, "")
    assert outcome.json["passed"] is (status == 0)
    assert all(check["passed"] is (status == 0) for check in outcome.json["checks"])


def test_a_drop_beyond_the_limit_fails(qcomp: Run, convnet: Path) -> None:
    with package.load(convnet / "model.so") as model:
        ours = [int(model.run(x[None])["y"].argmax()) for x in np.load(convnet / "data.npz")["x"]]
    theirs = np.load(convnet / "labels.npy")
    # labels that the float model has right and int8 never has
    rows = [f"{label if label != own else (own + 1) % 5}" for label, own in zip(theirs.tolist(), ours, strict=True)]
    (convnet / "hard.txt").write_text("\n".join(rows))
    lost = sum(label != own for label, own in zip(theirs.tolist(), ours, strict=True))
    outcome = qcomp(*arguments(convnet, "--labels", "hard.txt", "--max-drop", "0%"))
    assert outcome.status == (1 if lost else 0)
    assert ("NOT kept" in outcome.out) is bool(lost)
    assert outcome.err == ""


def test_a_verdict_and_tables_are_shown(qcomp: Run, convnet: Path) -> None:
    outcome = qcomp(*arguments(convnet, "--graph", "model.qir"))
    assert (outcome.status, outcome.err) == (0, "")
    for text in ("int8 decides as the model does in ", "latency", "energy, estimated", "worst layers", "alone dB"):
        assert text in outcome.out
    assert "without the integer graph" in qcomp(*arguments(convnet)).out


def test_calibration_data_gives_the_graph_too(qcomp: Run, convnet: Path) -> None:
    facts = qcomp(*arguments(convnet, "--calibrate", "data.npz", "--json")).json
    assert facts["notes"] == [] and facts["layer_samples"] == 8
    assert [part["samples"] for part in facts["calibration"]["parts"]] == [6, 12, 24]
    assert facts["calibration"]["parts"][-1]["agreement"] == facts["agreement"]
    assert "few-samples" in [finding["code"] for finding in facts["calibration"]["findings"]]
    other = qcomp(*arguments(convnet, "--calibrate", "data.npz", "--method", "minmax", "--json")).json
    assert other["layer_samples"] == 0 and "was not compiled from this calibration data" in other["notes"][0]
    graph = ("--graph", "model.qir", "--calibrate", "data.npz", "--method", "minmax", "--json")
    note = qcomp(*arguments(convnet, *graph)).json["notes"][0]
    assert "figures of calibration are those of artifacts that are" in note


def test_the_saved_graph_is_the_artifacts(convnet: Path) -> None:
    graph = parse_graph((convnet / "model.qir").read_text(encoding="utf-8"))
    x = np.load(convnet / "data.npz")["x"][:1]
    with package.load(convnet / "model.so") as model:
        assert np.array_equal(run(graph, {"x": x})["y"], model.run(x)["y"])


def test_the_saved_graph_does_not_replace_the_artifact(qcomp: Run, convnet: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.so"
    words = (convnet / "model.onnx", "-o", out, "--calibrate", convnet / "data.npz", "--save-graph", out)
    outcome = qcomp("compile", *words)
    assert (outcome.status, outcome.out) == (2, "") and "--save-graph" in outcome.err
    assert list(tmp_path.iterdir()) == []


class Page(HTMLParser):
    """Checks that tags close in order, and collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_the_page_is_html_and_refers_to_nothing(full: Path) -> None:
    text = full.read_text(encoding="utf-8")
    page = parsed(text)
    assert page.references == [] and not page.tags & {"link", "img", "iframe", "object", "base"}
    assert re.findall(r"url\s*\(|@import|https?://|fetch\(|XMLHttpRequest", text) == []
    assert text.startswith("<!doctype html>") and 'charset="utf-8"' in text


def test_the_page_has_every_section(full: Path) -> None:
    page = parsed(full.read_text(encoding="utf-8"))
    for title in ("within the limits", "Where errors arise", "Steps", "Graph", "Distributions", "Memory plan",
                  "Accuracy and latency", "What stays float32", "Calibration data"):  # fmt: skip
        assert title in page.text, title


def test_the_page_names_the_worst_layer(qcomp: Run, convnet: Path, full: Path) -> None:
    steps = qcomp(*arguments(convnet, "--graph", "model.qir", "--json")).json["steps"]
    errors = {s["name"]: s["error"]["isolated_sqnr_db"] for s in steps if s["macs"]}
    worst = min(errors, key=lambda name: errors[name])
    first = parsed(full.read_text(encoding="utf-8")).text.split("Steps that add most:")[1].split()
    assert first[0] == worst
    assert first[2] == f"{errors[worst]:.1f}"


def test_the_page_is_the_same_but_for_times(convnet: Path, qcomp: Run, tmp_path: Path) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        outcome = qcomp(*arguments(convnet, "--graph", "model.qir", "--html", tmp_path / name, "--quiet"))
        assert (outcome.status, outcome.out) == (0, "")
        sections = (tmp_path / name).read_text(encoding="utf-8").split("<h2>Outputs")[1]
        pages.append(re.sub(r"[0-9.e-]+( ?[µu]s| ms)|width:[0-9.]+%", "", sections))
    assert pages[0] == pages[1]


def test_hostile_names_are_escaped(qcomp: Run, tmp_path: Path) -> None:
    proto = models.mlp()
    for node in proto.graph.node:
        node.name = HOSTILE + node.name
        node.output[:] = [HOSTILE + name if name != "y" else name for name in node.output]
        node.input[:] = [HOSTILE + name if name in ("h", "r") else name for name in node.input]
    models.save(proto, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).standard_normal((6, 16)).astype(np.float32))
    made = ("model.onnx", "-o", "model.so", "--calibrate", "data.npz", "--save-graph", "model.qir", "-q")
    assert qcomp("compile", *[w if w.startswith("-") else tmp_path / w for w in made]).status == 0
    page = tmp_path / "page.html"
    outcome = qcomp(*arguments(tmp_path, "--graph", "model.qir", "--html", page, "--quiet"))
    assert (outcome.status, outcome.err) == (0, "")
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text and "\x00" not in text
    assert "&lt;script&gt;alert" in text
    assert text.count("<script>") == 1  # the page's own


def test_a_hostile_front_is_escaped(full: Path) -> None:
    text = full.read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text


def test_a_page_of_a_float_artifact_without_graph(qcomp: Run, made: Path, convnet: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "float.so", tmp_path / "page.html"
    assert qcomp("compile", convnet / "model.onnx", "-o", out, "--float").status == 0
    words = (convnet / "model.onnx", out, "--data", convnet / "data.npz", "--html", page, "--runs", 10, "--json")
    outcome = qcomp("compare", *words)
    assert (outcome.status, outcome.err) == (0, "")
    assert (outcome.json["precision"], outcome.json["agreement"], outcome.json["html"]) == ("float32", 1.0, str(page))
    text = parsed(page.read_text(encoding="utf-8")).text
    assert "not-quantized" in text and "Where errors arise" not in text and "Memory plan" not in text


def test_a_level_is_compared_alone(qcomp: Run, convnet: Path, tmp_path: Path) -> None:
    words = (convnet / "model.onnx", "-o", tmp_path / "o.so", "--calibrate", convnet / "data.npz", "--save-graph")
    assert qcomp("compile", *words, tmp_path / "o.qir", "--target", "x86_64").status == 0
    words = (convnet / "model.onnx", tmp_path / "o.so", "--data", convnet / "data.npz", "--graph", tmp_path / "o.qir")
    for level in ("x86_64", package.load(tmp_path / "o.so").info.target):
        facts = qcomp("compare", *words, "--level", level, "--runs", 10, "--json").json
        assert (facts["target"], facts["notes"]) == (level, [])
        assert facts["memory_plan"]["arena_bytes"] == facts["arena_bytes"]


def test_two_inputs_and_regression(qcomp: Run, made: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    arrays = {name: generator.standard_normal((8, size)).astype(np.float32) for name, size in (("a", 8), ("b", 4))}
    np.savez(tmp_path / "data.npz", **arrays)
    shutil.copy(made / "two_inputs.onnx", tmp_path / "model.onnx")
    done = qcomp("compile", tmp_path / "model.onnx", "-o", tmp_path / "model.so", "--calibrate", tmp_path / "data.npz")
    assert done.status == 0
    facts = qcomp(*arguments(tmp_path, "--json", "--class-axis", "0")).json  # one row: nothing to decide
    assert (facts["agreement"], facts["decisions"], facts["drop"]) == (None, 0, None)
    assert facts["outputs"][0]["cosine"] > 0.99
    refused = qcomp(*arguments(tmp_path, "--class-axis", "0", "--min-agreement", "1%"))
    assert (refused.status, refused.out) == (2, "") and refused.err.count("\n") == 1


def test_a_dynamic_model_takes_the_shapes_of_the_artifact(qcomp: Run, made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "dynamic.onnx", tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.load(made / "mlp.npz")["x"])
    words = ("model.onnx", "-o", "model.so", "--calibrate", "data.npz")
    paths = [w if w.startswith("-") else tmp_path / w for w in words]
    assert qcomp("compile", *paths, "--shape", "x=4,16").status == 0
    facts = qcomp(*arguments(tmp_path, "--json")).json
    assert (facts["samples"], facts["decisions"]) == (10, 40)


#: name -> (arguments, in which FOLDER, MADE and NEW stand for folders, mention)
BAD: dict[str, tuple[str, str]] = {
    "another model": ("MADE/mlp.onnx FOLDER/model.so --data FOLDER/data.npz", "the artifact"),
    "data of another model": ("FOLDER/model.onnx FOLDER/model.so --data MADE/mlp.npz", "mlp.npz"),
    "no data": ("FOLDER/model.onnx FOLDER/model.so", "--data"),
    "a damaged artifact": ("FOLDER/model.onnx NEW/bad.so --data FOLDER/data.npz", "bad.so"),
    "a damaged graph": ("ALL --graph NEW/bad.qir", "bad.qir"),
    "the graph of another model": ("ALL --graph NEW/other.qir", "other.qir"),
    "the graph of other inputs": ("ALL --graph NEW/small.qir", "not the artifact's graph: it has x float32[1, 16]"),
    "a graph that is none": ("ALL --graph FOLDER/data.npz", "no .qir text"),
    "threads by the thousand": ("ALL --threads 99999", "99999 threads"),
    "too few labels": ("ALL --labels NEW/short.txt", "2 labels for 24 decisions"),
    "a label that is no class": ("ALL --labels NEW/far.txt", "the labels of sample 1 are [500]"),
    "a drop without labels": ("ALL --max-drop 1%", "--max-drop"),
    "a drop that is no share": ("ALL --labels FOLDER/labels.npy --max-drop much", "--max-drop"),
    "an empty front": ("ALL --front NEW/empty.json", "empty.json"),
    "a page over the model": ("ALL --html FOLDER/model.onnx", "replace"),
    "a page in a missing folder": ("ALL --html NEW/none/r.html", "none"),
    "negative threads": ("ALL --threads -1", "--threads"),
    "no layer samples": ("ALL --layer-samples 0", "--layer-samples"),
    "an axis that is not there": ("ALL --class-axis 7", "--class-axis"),
    "effort without data to calibrate": ("ALL --effort high", "--effort is for --calibrate"),
    "a method without data to calibrate": ("ALL --method mse --per-tensor", "--per-tensor are for --calibrate"),
    "a method typo": ("ALL --calibrate FOLDER/data.npz --method mze", "mze"),
    "image options for arrays": ("ALL --image-std 2", "--image-std"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_status_2(qcomp: Run, made: Path, convnet: Path, tmp_path: Path, name: str) -> None:
    if "graph of another" in name:
        words = (made / "convnet.onnx", "-o", tmp_path / "o.so", "--calibrate", made / "convnet.npz")
        assert qcomp("compile", *words, "--save-graph", tmp_path / "other.qir").status == 0
    elif "graph of other" in name:
        assert qcomp("opt", made / "mlp.onnx", "-o", tmp_path / "small.qir").status == 0
    (tmp_path / "bad.so").write_bytes((convnet / "model.so").read_bytes()[:-100])
    (tmp_path / "bad.qir").write_text("graph @m {")
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "short.txt").write_text("1\n2\n")
    (tmp_path / "far.txt").write_text("1\n500\n" + "0\n" * 22)
    text, mention = BAD[name]
    text = text.replace("ALL", "FOLDER/model.onnx FOLDER/model.so --data FOLDER/data.npz")
    for word, folder in (("FOLDER", convnet), ("MADE", made), ("NEW", tmp_path)):
        text = text.replace(word, str(folder))
    before = sorted(tmp_path.iterdir())
    outcome = qcomp("compare", *text.split(), "--runs", 10)
    assert (outcome.status, outcome.out) == (2, ""), outcome
    assert outcome.err.startswith("qcomp: error: ") and outcome.err.count("\n") == 1
    assert mention in outcome.err, outcome.err
    assert sorted(tmp_path.iterdir()) == before
