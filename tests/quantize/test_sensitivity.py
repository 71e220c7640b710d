"""What int8 in one layer does to the output is measured as if the whole network were run."""

from __future__ import annotations

import layered_networks
import numpy as np
import pytest

from qcomp.compiler import Options, canonical, quantize
from qcomp.ir import Graph
from qcomp.ir.interpreter import run
from qcomp.ir.onnx_export import to_onnx
from qcomp.quantize import sensitivity
from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.fidelity import Fidelity, compare
from qcomp.quantize.float_runs import outputs_on
from qcomp.quantize.grids import possible_points
from qcomp.quantize.layers import ALONE, WITHOUT, Study
from qcomp.quantize.sensitivity import Measured, measure, sensitivities

Samples = list[dict[str, np.ndarray]]


def study(graph: Graph, shape: tuple[int, ...]) -> tuple[Study, Samples]:
    graph = canonical(graph)
    x = layered_networks.samples(shape)
    found = calibrate(to_onnx(graph), {"x": x}, possible_points(graph), "minmax")
    return Study(graph, {k: (r.lo, r.hi) for k, r in found.ranges().items()}), [{"x": row[None]} for row in x]


@pytest.fixture(scope="module")
def outlier() -> tuple[Study, Samples]:
    return study(layered_networks.with_outlier(), (layered_networks.CHANNELS,))


@pytest.fixture(scope="module")
def residual() -> tuple[Study, Samples]:
    return study(layered_networks.residual(), (3, 6, 6))


def everything(made: Study) -> list[tuple[str, str]]:
    return [(kind, layer.name) for kind in (ALONE, WITHOUT) for layer in made.layers]


def test_layers_are_the_nodes_whose_operands_are_rounded(residual: tuple[Study, Samples]) -> None:
    assert [layer.name for layer in residual[0].layers] == ["first", "swish", "second", "sum", "pool", "head"]


def test_the_layer_behind_an_outlier_channel_is_the_most_sensitive(outlier: tuple[Study, Samples]) -> None:
    made, samples = outlier
    rows = {row.name: row for row in sensitivities(made, measure(made, everything(made), samples))}
    assert min(rows.values(), key=lambda row: row.alone.sqnr_db).name == "delicate"
    assert rows["delicate"].alone.sqnr_db < 15 < 35 < min(rows["spread"].alone.sqnr_db, rows["last"].alone.sqnr_db)
    assert max(rows.values(), key=lambda row: row.without.sqnr_db).name == "delicate"


@pytest.mark.parametrize("kind", [ALONE, WITHOUT])
def test_suffixes_give_what_the_whole_graph_gives(residual: tuple[Study, Samples], kind: str) -> None:
    made, samples = residual
    names = [layer.name for layer in made.layers]
    found = measure(made, [(kind, name) for name in names], samples)
    reference = outputs_on(made.graph, samples, 1)
    for name in names:
        whole = outputs_on(made.variant(kind, name), samples, 1)
        expected = Fidelity.of([compare(a, b) for a, b in zip(reference, whole, strict=True)])
        got = Fidelity.of(found.variants[kind, name])
        assert got.sqnr_db == pytest.approx(expected.sqnr_db, abs=0.2)  # a cut graph may be fused otherwise


def test_a_layer_alone_is_rounded_where_it_reads(residual: tuple[Study, Samples]) -> None:
    made, _ = residual
    graph = made.variant(ALONE, "sum")
    rounded = [node for node in graph.nodes if node.op.name == "fake_quant"]
    assert len(rounded) == 2
    assert {user.name for node in rounded for user in graph.users(node.output)} == {"sum"}


def test_the_simulation_is_near_what_integers_compute(residual: tuple[Study, Samples]) -> None:
    made, samples = residual
    x = layered_networks.samples((3, 6, 6))
    for precision in ({}, {"second": "float32"}, {"sum": "float32", "head": "float32"}):
        integers = quantize(layered_networks.residual(), {"x": x}, Options(method="minmax", precision=precision))
        simulated = outputs_on(made.mixed(precision), samples[:4], 1)
        for sample, outputs in zip(samples, simulated, strict=False):
            step = np.abs(outputs[0]).max() / 127
            assert np.abs(run(integers, sample)["y"] - outputs[0]).max() < 2 * step


def test_numbers_do_not_depend_on_threads_or_rounds(
    residual: tuple[Study, Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, samples = residual
    whole = measure(made, everything(made), samples)
    monkeypatch.setattr(sensitivity, "KEPT_BYTES", 4000)
    assert measure(made, everything(made), samples, threads=3) == whole


def test_samples_and_variants_measured_apart_are_those_measured_together(residual: tuple[Study, Samples]) -> None:
    made, samples = residual
    whole = measure(made, everything(made), samples)
    assert measure(made, everything(made), samples[:7]).merge(measure(made, everything(made), samples[7:])) == whole
    one = everything(made)[3]
    assert measure(made, [one], samples).variants[one] == whole.variants[one]


def test_labels_say_what_is_right(outlier: tuple[Study, Samples]) -> None:
    made, samples = outlier
    best = tuple(np.argmax(outputs[0], axis=1) for outputs in outputs_on(made.graph, samples, 1))
    found = measure(made, [(ALONE, "delicate")], samples, best)
    alone = Fidelity.of(found.variants[ALONE, "delicate"])
    assert Fidelity.of(found.float32).accuracy == 1.0
    assert alone.accuracy == alone.agreement and alone.accuracy is not None and alone.accuracy < 1.0
    lost = sum(sample.lost or 0.0 for sample in found.variants[ALONE, "delicate"])
    assert alone.drop_error == pytest.approx(lost**0.5 / len(samples)) and lost > 0


def test_what_int8_does_not_touch_is_the_same_to_the_bit(outlier: tuple[Study, Samples]) -> None:
    made, samples = outlier
    found: Measured = measure(made, [], samples)
    assert Fidelity.of(found.float32).facts()["sqnr_db"] is None
    assert Fidelity.of(found.float32).cosine == 1.0
