"""Tuning: layers, candidates, choices, files; and that compiled code follows a file and computes the same."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from codegen_harness import differences

from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.kernel import Halo, KernelTable
from qcomp.codegen.c.levels import generate_levels
from qcomp.codegen.c.package import Tuned
from qcomp.codegen.c.portable import PORTABLE
from qcomp.codegen.c.portable.products import QConv2d
from qcomp.codegen.c.x86.kernels import X86_KERNELS
from qcomp.codegen.tune.candidates import Candidate, Layer, candidates, network
from qcomp.codegen.tune.choose import Rounds, Sample, choose
from qcomp.codegen.tune.file import Choice, Tuning, parse_tuning, read_tuning
from qcomp.codegen.tune.library import others_of
from qcomp.codegen.tune.search import Result, check_runs_here, tune_graph, tuning_of
from qcomp.errors import QcompError
from qcomp.ir import Graph, Node, Quantization, TensorType, Value, run, verify
from qcomp.ir.types import DType
from qcomp.runtime.features import cpu_features
from qcomp.runtime.loader import load
from qcomp.targets import levels, native, target

VBMI = target("x86_64-avx512vbmi")
needs_cpu = pytest.mark.skipif(not {"avx2", "f16c"} <= cpu_features(), reason="needs AVX2")
QUICK = Rounds(sift=1, refine=1, confirm=3, runs=1, finalists=2)


def small_network() -> Graph:
    """3x3, depthwise, two equal 1x1 convolutions, a matrix product."""
    rng = np.random.default_rng(5)
    graph = Graph("small")
    x = graph.input("x", TensorType(DType.F32, (1, 12, 14, 8)))
    value = graph.add("quantize", [x], {"quant": Quantization.per_tensor(0.05, 3)}, names=["q"]).output

    def constants(*shape: int) -> list[Value | None]:
        arrays = (
            rng.integers(-127, 128, shape, dtype=np.int8),
            rng.integers(-500, 500, shape[0], dtype=np.int32),
            rng.uniform(0.001, 0.003, shape[0]).astype(np.float32),
        )
        return [graph.constant(array, "c") for array in arrays]

    arithmetic = {"x_zp": 3, "zp": 3}
    padded = {**arithmetic, "pads": (1, 1, 1, 1)}
    value = graph.add("qconv2d", [value, *constants(40, 3, 3, 8)], padded, names=["c1"]).output
    value = graph.add("qconv2d", [value, *constants(40, 3, 3, 1)], {**padded, "groups": 40}, names=["dw"]).output
    for name in ("p1", "p2"):
        value = graph.add("qconv2d", [value, *constants(40, 1, 1, 40)], arithmetic, names=[name]).output
    value = graph.add("qgemm", [value, *constants(70, 40)], {**arithmetic, "dtype": DType.F32}, names=["y"]).output
    graph.outputs.append(value)
    verify(graph)
    return graph


FEED = {"x": np.random.default_rng(9).normal(0, 2, (1, 12, 14, 8)).astype(np.float32)}


def compiled(graph: Graph, folder: Path, tuning: Tuning | None, table: KernelTable | None = None) -> bytes:
    """Writes folder/m.so; its bytes."""
    path = build_library(generate(graph, native(), table=table, tuning=tuning), folder / "m.so")
    return path.read_bytes()


def outputs(folder: Path) -> dict[str, np.ndarray]:
    with load(folder / "m.so") as model:
        return dict(model.run(FEED))


def in_favour_of(pick: int):  # type: ignore[no-untyped-def]
    """A clock by which one candidate of every layer, counted round and round, is twice as fast; of 0 the default."""

    def clock(layer: Layer, row: Sequence[Candidate], sample: Sample) -> Sample:
        best = 1 + (pick - 1) % (len(row) - 1) if pick else 0
        return lambda i: 50.0 if i == best else 100.0

    return clock


# ---- choosing -------------------------------------------------------------------------------------------------------


def test_the_fastest_wins_through_noise() -> None:
    noise = random.Random(1)
    times = [100.0, 99.5, 93.0, 96.0, 140.0]
    verdict = choose(5, lambda i: times[i] * noise.uniform(1.0, 1.03))
    assert verdict.best == 2
    assert verdict.speedup == pytest.approx(100 / 93, rel=0.02)


def test_what_wins_by_less_than_noise_does_not_count() -> None:
    noise = random.Random(2)
    for seed in range(20):
        noise.seed(seed)
        verdict = choose(6, lambda i: (100.0 if i == 0 else 99.0) * noise.uniform(1.0, 1.05))
        assert (verdict.best, verdict.speedup) == (0, 1.0)


def test_luck_in_the_first_rounds_does_not_decide() -> None:
    calls = itertools.count()
    verdict = choose(3, lambda i: 50.0 if i == 2 and next(calls) < 12 else 100.0)
    assert verdict.best == 0


def test_a_slow_spell_that_hits_all_candidates_changes_nothing() -> None:
    calls = itertools.count()
    verdict = choose(2, lambda i: (100.0, 90.0)[i] * (4.0 if next(calls) // 50 % 2 else 1.0), Rounds(runs=1))
    assert verdict.best == 1


def test_slow_layers_are_run_less_often() -> None:
    calls = itertools.count()

    def sample(i: int) -> float:
        next(calls)
        return 5e8

    choose(10, sample)
    assert next(calls) < 200


def test_one_candidate_needs_no_rival() -> None:
    assert choose(1, lambda i: 7.0).best == 0


# ---- layers and candidates ------------------------------------------------------------------------------------------


def test_layers_are_named_by_what_decides_their_speed() -> None:
    layers = network(small_network(), VBMI).layers
    assert [(layer.name, layer.count) for layer in layers] == [
        ("qconv2d x=i8[1,12,14,8]+1,1,1,1 w=i8[40,3,3,8] y=i8[1,12,14,40]+1,1,1,1 pads=1,1,1,1 form=vnni", 1),
        ("qconv2d x=i8[1,12,14,40]+1,1,1,1 w=i8[40,3,3,1] y=i8[1,12,14,40] groups=40 pads=1,1,1,1 form=vnni", 1),
        ("qconv2d x=i8[1,12,14,40] w=i8[40,1,1,40] y=i8[1,12,14,40] form=vnni", 2),
        ("qgemm x=i8[1,12,14,40] w=i8[70,40] y=f32[1,12,14,70] form=vnni", 1),
    ]  # fmt: skip


def test_numbers_are_no_part_of_a_name() -> None:
    def names(r_mult: float, r_zp: int, weight: int) -> set[str]:
        graph = Graph("residual")
        x = graph.input("x", TensorType(DType.F32, (1, 5, 5, 16)))
        value = graph.add("quantize", [x], {"quant": Quantization.per_tensor(0.05, 3)}, names=["q"]).output
        arrays = np.full((16, 1, 1, 16), weight, np.int8), np.full(16, weight, np.int32), np.ones(16, np.float32)
        weights = [graph.constant(array, "c") for array in arrays]
        attributes = {"x_zp": weight, "zp": r_zp, "lo": -weight, "r_mult": r_mult, "r_zp": r_zp}
        graph.outputs.append(graph.add("qconv2d", [value, *weights, None, value], attributes, names=["c"]).output)
        return {layer.name for layer in network(graph, VBMI).layers}

    expected = "qconv2d x=i8[1,5,5,16] w=i8[16,1,1,16] residual=i8[1,5,5,16] y=i8[1,5,5,16] form=vnni"
    assert names(0.5, 1, 2) == names(-0.25, 7, 3) == {expected}


def test_portable_targets_have_nothing_to_tune() -> None:
    assert network(small_network(), target("x86_64")).layers == ()
    assert network(small_network(), target("generic")).layers == ()


def test_candidates_begin_with_the_default_and_differ_in_code() -> None:
    for layer in network(small_network(), VBMI).layers:
        row = candidates(layer, VBMI, 9)
        assert row[0].schedule == "" and 2 <= len(row) <= 10
        assert len({(c.code.text, c.code.tasks, *(x.tobytes() for x in c.code.constants)) for c in row}) == len(row)


def test_with_amx_the_candidates_are_tiles_in_several_orders_and_vectors() -> None:
    amx = target("x86_64-amx")
    convolution, depthwise, *_ = network(small_network(), amx).layers
    row = candidates(convolution, amx, 24)
    assert {c.kernel for c in row} >= {"amx_conv"}
    assert row[0].schedule == "" and {c.code.kernel.split(" ")[0] for c in row} == {"amx", "vnni"}
    assert sum(c.schedule.startswith("tiles=amx") for c in row) > 1
    assert {c.code.kernel.split(" ")[0] for c in candidates(depthwise, amx, 24)} == {"vnni"}


@pytest.mark.parametrize(("kernel", "expected"), [("amx_conv", "amx"), ("avx512_conv", "vnni")])
def test_a_tuning_decides_between_tiles_and_vectors(kernel: str, expected: str) -> None:
    amx = target("x86_64-amx")
    layer = network(small_network(), amx).layers[2]
    schedule = "tiles=amx" if kernel == "amx_conv" else ""
    package = generate(small_network(), amx, tuning=Tuning(amx.name, "", {layer.name: Choice(kernel, schedule, 1.1)}))
    assert package.tuned == Tuned(5, 2, 2)
    assert [step["kernel"].split(" ")[0] for step in package.metadata["steps"]][3:5] == [expected] * 2
    with pytest.raises(QcompError, match="tiles=amx.* does not fit"):
        wrong = {network(small_network(), amx).layers[1].name: Choice("amx_conv", "tiles=amx", 1.1)}
        generate(small_network(), amx, tuning=Tuning(amx.name, "", wrong))


class _Another(QConv2d):
    """A row that stands behind the vector rows of its family."""

    name, family = "another_conv", "avx512"


class _Padded(_Another):
    """One that wants more padding."""

    name = "padded_conv"

    def halo(self, node: Node) -> tuple[Halo, ...]:
        top, left, bottom, right = super().halo(node)[0]
        return ((top + 1, left + 1, bottom + 1, right + 1),)


ANOTHER = KernelTable((*X86_KERNELS, _Another(), _Padded(), *PORTABLE))


def test_other_kernels_of_the_family_are_candidates_too() -> None:
    layer = network(small_network(), VBMI).layers[0]
    kernels = [c.kernel for c in candidates(layer, VBMI, 8, ANOTHER)]
    assert kernels == ["avx512_conv"] * 9 + ["another_conv"]


def test_what_stands_for_the_rest_of_a_network_is_no_larger_than_that() -> None:
    layer = network(small_network(), VBMI).layers[0]
    row = candidates(layer, VBMI, 1)
    own = sum(b.bytes for b in (*layer.inputs, *layer.outputs)) + sum(c.nbytes for c in row[0].code.constants)
    assert others_of(layer, row, own + 1000, VBMI).nbytes == 1000
    assert others_of(layer, row, own - 1, VBMI).nbytes == 0
    assert others_of(layer, row, 1 << 40, VBMI).nbytes == 32 * VBMI.caches["l2"]


# ---- a whole graph ---------------------------------------------------------------------------------------------------


@needs_cpu
@pytest.mark.parametrize("pick", [1, 2, 3, 5, 8, 11])
def test_tuned_code_computes_what_the_interpreter_computes(pick: int, tmp_path: Path) -> None:
    graph = small_network()
    results = tune_graph(graph, native(), 12, rounds=QUICK, clock=in_favour_of(pick))
    assert all(result.speedup == 2 for result in results)
    package = generate(graph, native(), tuning=tuning_of(native(), results))
    assert package.tuned == Tuned(5, 5, 5)
    compiled(graph, tmp_path, tuning_of(native(), results))
    assert differences(run(graph, FEED), outputs(tmp_path)) == []


@needs_cpu
def test_a_tuning_is_all_that_decides(tmp_path: Path) -> None:
    graph = small_network()
    default = compiled(graph, tmp_path, None)
    even = tune_graph(graph, native(), 6, rounds=QUICK, clock=in_favour_of(0))
    assert [(r.schedule, r.speedup) for r in even] == [("", 1.0)] * 4
    assert compiled(graph, tmp_path, tuning_of(native(), even)) == default
    other = tuning_of(native(), tune_graph(graph, native(), 6, rounds=QUICK, clock=in_favour_of(4)))
    first = compiled(graph, tmp_path, other)
    assert first != default
    assert compiled(small_network(), tmp_path, parse_tuning(other.text(), "file")) == first


@needs_cpu
def test_several_threads_measure_too() -> None:
    results = tune_graph(small_network(), native(), 4, threads=2, rounds=QUICK)
    assert all(result.default_us > 0 for result in results)


@needs_cpu
def test_layers_that_the_file_does_not_have_are_as_by_default() -> None:
    results = tune_graph(small_network(), native(), 4, rounds=QUICK, clock=in_favour_of(2))
    some = tuning_of(native(), results[2:])
    assert generate(small_network(), native(), tuning=some).tuned == Tuned(5, 3, 3)
    nothing = generate(small_network(), native(), tuning=Tuning(native().name))
    assert nothing.tuned == Tuned(5, 0, 0)
    assert nothing.files == generate(small_network(), native()).files


@pytest.mark.skipif(not VBMI.features <= cpu_features(), reason="needs AVX512-VNNI and VBMI")
@pytest.mark.parametrize("kernel", ["another_conv", "padded_conv"])
def test_a_tuning_may_name_another_kernel(kernel: str, tmp_path: Path) -> None:
    graph = small_network()
    first, second = network(graph, native()).layers[:2]
    named = {first.name: Choice("avx512_conv", "vectors=1*3", 1.1), second.name: Choice(kernel, "", 1.5)}
    package = generate(graph, native(), table=ANOTHER, tuning=Tuning(native().name, "", named))
    assert package.tuned == Tuned(5, 2, 2)
    assert [step["kernel"][:4] for step in package.metadata["steps"]].count("vnni") == 4
    compiled(graph, tmp_path, Tuning(native().name, "", named), ANOTHER)
    assert differences(run(graph, FEED), outputs(tmp_path)) == []


@pytest.mark.parametrize(("choice", "mention"), [
    (Choice("avx512_conv", "vectors=9", 1.1), "does not fit"),
    (Choice("avx512_conv", "faster please", 1.1), "is no schedule"),
    (Choice("avx512_table", "", 1.1), "no kernel 'avx512_table'"),
    (Choice("avx2_conv", "", 1.1), "no kernel 'avx2_conv'"),
])  # fmt: skip
def test_choices_that_cannot_be_followed_are_refused(choice: Choice, mention: str) -> None:
    layer = network(small_network(), VBMI).layers[0]
    with pytest.raises(QcompError, match=mention):
        generate(small_network(), VBMI, tuning=Tuning(VBMI.name, "", {layer.name: choice}))


def test_a_tuning_for_another_target_is_refused() -> None:
    with pytest.raises(QcompError, match="for x86_64-avx2, not for x86_64-avx512vbmi"):
        generate(small_network(), VBMI, tuning=Tuning("x86_64-avx2"))


def test_an_artifact_of_several_targets_is_not_tuned() -> None:
    held = levels(target("x86_64"), ["x86_64-avx512vbmi"])
    with pytest.raises(QcompError, match=r"for x86_64-avx512vbmi alone, .* 2 targets; compile for target x86_64-avx51"):
        generate_levels(small_network(), held, tuning=Tuning(VBMI.name))
    assert generate_levels(small_network(), [VBMI], tuning=Tuning(VBMI.name)).tuned == Tuned(5, 0, 0)


def test_only_targets_that_run_here_can_be_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QcompError, match="aarch64"):
        check_runs_here(target("aarch64"))
    monkeypatch.setattr("qcomp.codegen.tune.search.cpu_features", lambda: frozenset({"sse2"}))
    with pytest.raises(QcompError, match="lacks avx"):
        tune_graph(small_network(), VBMI)


# ---- files -----------------------------------------------------------------------------------------------------------

ONE = Tuning("x86_64-avx2", "some CPU", {"b": Choice("k", "line=2", 1.25), "a": Choice("k", "", 1.0)})


def test_a_file_holds_the_tuning_in_sorted_order(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(ONE.text())
    assert read_tuning(tmp_path / "t.json") == ONE
    content = json.loads(ONE.text())
    assert list(content) == ["backend", "cpu", "format", "layers", "target"] and list(content["layers"]) == ["a", "b"]
    turned = Tuning(ONE.target, ONE.cpu, dict(reversed(ONE.layers.items())))
    assert turned.text() == ONE.text()


def test_files_of_several_models_merge() -> None:
    other = Tuning("x86_64-avx2", "some CPU", {"b": Choice("k", "", 1.0), "c": Choice("k", "line=3", 1.5)})
    merged = ONE.merged(other)
    assert merged.layers == {"a": ONE.layers["a"], **other.layers}
    with pytest.raises(QcompError, match="x86_64-avx2"):
        ONE.merged(Tuning("x86_64", "some CPU"))
    with pytest.raises(QcompError, match="'some CPU'.*'other CPU'"):
        ONE.merged(Tuning("x86_64-avx2", "other CPU"))


@pytest.mark.parametrize(("text", "mention"), [
    ("", "no tuning file"),
    ("[]", "no tuning file"),
    ("{}", "no tuning file"),
    ('{"format": 2}', "format 2"),
    ('{"format": 1, "cpu": "", "layers": {}}', "'target'"),
    ('{"format": 1, "cpu": "", "layers": [], "target": "x"}', "'layers'"),
    ('{"format": 1, "cpu": "", "layers": {"l": {"kernel": "k", "schedule": ""}}, "target": "x"}', "'l'"),
    ('{"format": 1, "cpu": "", "layers": {"l": {"kernel": "k", "schedule": 1, "speedup": 1}}, "target": "x"}', "'l'"),
    ('{"format": 1, "cpu": "", "layers": {"l": 5}, "target": "x"}', "'l'"),
    ("[" * 100000, "no tuning file"),
])  # fmt: skip
def test_damaged_files_are_refused(text: str, mention: str) -> None:
    with pytest.raises(QcompError, match=mention):
        parse_tuning(text, "file.json")


def test_a_result_knows_its_gain() -> None:
    result = Result("layer", 2, 9, "k", "line=2", 12.0, 10.0)
    assert result.choice == Choice("k", "line=2", 1.2)


def test_options_take_what_tune_returns_and_refuse_what_is_no_tuning() -> None:
    from qcomp.compiler import Options, read_tuning_of
    from qcomp.tuning import Measured

    held = Tuning("x86_64-avx2", "some CPU")
    options = Options(tuning=Measured((), held, preview=False))
    assert read_tuning_of(options, [target("x86_64-avx2")]) == held
    with pytest.raises(QcompError, match="a dict is no tuning"):
        read_tuning_of(Options(tuning={"target": "x86_64-avx2"}), [target("x86_64-avx2")])  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "message"), [("generic", "nothing to tune"), ("x86_64", "take no tuning")])
def test_targets_without_tuning_are_refused_at_once(name: str, message: str) -> None:
    with pytest.raises(QcompError, match=message):
        check_runs_here(target(name))
