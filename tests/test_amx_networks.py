"""Whole artifacts for AMX give the interpreter's integers: over a software model of the tile instructions on any
machine with AVX512-VNNI and VBMI.  Where there is AMX, `native` is that target, and tests/test_generated_graphs.py
runs it on the machine's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from amx_modelled import AMX, VECTORS, modelled
from generated_graphs import Batch, same_bits
from test_generated_graphs import alias_plans, chain_plans, single_plans

import qcomp
from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.x86 import amx
from qcomp.codegen.tune.candidates import candidates, network
from qcomp.codegen.tune.file import Choice, Tuning
from qcomp.errors import QcompError
from qcomp.ir import run
from qcomp.runtime.features import cpu_features
from qcomp.zoo.architectures import dscnn, resnet8
from qcomp.zoo.random_networks import Architecture

needs_vectors = pytest.mark.skipif(not VECTORS.features <= cpu_features(), reason="needs AVX512-VNNI and VBMI")
PLANS = {"single": single_plans, "chain": chain_plans, "alias": alias_plans}
FIRST = 100  # batches that no other test runs


@needs_vectors
@pytest.mark.parametrize("always", [True, False], ids=["always", "chosen"])
@pytest.mark.parametrize(("plans", "threads", "number"), [("single", 1, 0), ("single", 2, 1), ("chain", 1, 2),
                                                          ("chain", 2, 3), ("alias", 2, 4)])  # fmt: skip
def test_generated_graphs(
    plans: str, threads: int, number: int, always: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if always:
        monkeypatch.setattr(amx, "tiles_are_faster", lambda shape, residual, isa: True)
    assert Batch(PLANS[plans](FIRST + number)).wrong(AMX.name, threads, modelled) == []


@needs_vectors
@pytest.mark.parametrize(("architecture", "steps"), [
    (Architecture("resnet8_32", resnet8, (3, 32, 32)), 7), (Architecture("dscnn_49x10", dscnn, (1, 49, 10)), 4),
], ids=["resnet8", "dscnn"])  # fmt: skip
def test_small_networks(
    architecture: Architecture, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QCOMP_CACHE", str(tmp_path))
    case = architecture.case()
    artifact = qcomp.compile(case.onnx_path, target=AMX.name, calibration=case.calibration[:8])
    assert [step["kernel"].startswith("amx ") for step in artifact.package.metadata["steps"]].count(True) == steps
    library = build_library(modelled(artifact.package), tmp_path / "model.so")
    with qcomp.load(library, threads=2) as model:
        for sample in range(3):
            feeds = {case.input_name: case.inputs[sample : sample + 1]}
            expected, found = run(artifact.graph, feeds), model.run(feeds)
            assert [name for name, array in expected.items() if not same_bits(array, found[name])] == []


@needs_vectors
def test_a_tuning_may_take_tiles_in_any_order_and_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCOMP_CACHE", str(tmp_path))
    case = Architecture("resnet8_32", resnet8, (3, 32, 32)).case()
    graph = qcomp.compile(case.onnx_path, target=AMX.name, calibration=case.calibration[:8]).graph
    choices = {}
    for index, layer in enumerate(network(graph, AMX).layers):
        row = candidates(layer, AMX, 24)
        choice = row[1 + 5 * index % (len(row) - 1)]
        choices[layer.name] = Choice(choice.kernel, choice.schedule, 1.1)
    package = generate(graph, AMX, tuning=Tuning(AMX.name, "", choices))
    assert package.tuned is not None and package.tuned.changed == package.tuned.layers > 0
    assert {choice.schedule.startswith("tiles=amx") for choice in choices.values()} == {True, False}
    with qcomp.load(build_library(modelled(package), tmp_path / "model.so")) as model:
        feeds = {case.input_name: case.inputs[:1]}
        expected, found = run(graph, feeds), model.run(feeds)
        assert [name for name, array in expected.items() if not same_bits(array, found[name])] == []


@pytest.mark.skipif(AMX.features <= cpu_features(), reason="this machine has AMX")
def test_a_machine_without_amx_is_told_what_it_lacks(tmp_path: Path) -> None:
    library = build_library(generate(Batch(single_plans(FIRST)).graph, AMX), tmp_path / "model.so")
    with pytest.raises(QcompError, match="needs CPU features that this machine lacks: .*amx_int8, amx_tile") as refused:
        qcomp.load(library)
    assert "\n" not in str(refused.value)
