"""Compiled code gives the interpreter's integers, bit for bit, on thousands of generated graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from generated_graphs import ALIASES, KINDS, Batch, Seed, same_bits
from generated_networks import SAMPLES, Networks

import qcomp
from qcomp.codegen.build import build_library
from qcomp.codegen.c.levels import generate_levels
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.c.x86.kernels import X86_KERNELS
from qcomp.ir import run
from qcomp.runtime.features import cpu_features, machine
from qcomp.targets import levels, target

NATIVE, VNNI, PORTABLE, SIGNED = "native", "x86_64-avx512vnni", "x86_64", "generic"
AVX2, AVXVNNI = "x86_64-avx2", "x86_64-avxvnni"
# target, threads and how many graphs.  x86 stores activations unsigned, "generic" signed.
SINGLE = [(NATIVE, 1, 500), (NATIVE, 2, 200), (VNNI, 1, 100), (PORTABLE, 1, 300), (SIGNED, 1, 200),
          (AVX2, 1, 200), (AVXVNNI, 1, 200)]  # fmt: skip
CHAINS = [(NATIVE, 1, 250), (NATIVE, 2, 100), (VNNI, 2, 50), (PORTABLE, 2, 100), (SIGNED, 1, 50),
          (AVX2, 2, 50), (AVXVNNI, 1, 50)]  # fmt: skip
ALIASED = [(NATIVE, 2, 100), (PORTABLE, 1, 50), (SIGNED, 1, 50)]
BATCH = 50


def batches(rows: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """(target, threads, number of the batch): every batch has BATCH graphs of its own."""
    each = [(name, threads) for name, threads, count in rows for _ in range(count // BATCH)]
    return [(name, threads, number) for number, (name, threads) in enumerate(each)]


def require(name: str) -> None:
    needed = target(name)
    if needed.arch not in ("generic", machine()) or not needed.features <= cpu_features():
        pytest.skip(f"this machine cannot run code for {name}")


def check(batch: Batch, name: str, threads: int) -> None:
    wrong = batch.wrong(name, threads)
    assert wrong == [], f"{wrong}; the first of them is an output of\n{batch.text(wrong[0])}"


def single_plans(number: int) -> list[tuple[Seed, list[str], int]]:
    kinds = list(KINDS)
    return [((1, number, i), [kinds[(number * BATCH + i) % len(kinds)]], 1) for i in range(BATCH)]


def chain_plans(number: int) -> list[tuple[Seed, list[str], int]]:
    return [((2, number, i), list(KINDS), 2 + i % 5) for i in range(BATCH)]


def alias_plans(number: int) -> list[tuple[Seed, list[str], int]]:
    return [((3, number, i), list(ALIASES), 2 + i % 5) for i in range(BATCH)]


def test_there_are_at_least_2000_graphs() -> None:
    seeds = [plan[0] for rows, plans in ((SINGLE, single_plans), (CHAINS, chain_plans), (ALIASED, alias_plans))
             for _, _, number in batches(rows) for plan in plans(number)]  # fmt: skip
    assert len(set(seeds)) == len(seeds) >= 2000


@pytest.mark.parametrize(("name", "threads", "number"), batches(SINGLE))
def test_single_ops(name: str, threads: int, number: int) -> None:
    require(name)
    check(Batch(single_plans(number)), name, threads)


@pytest.mark.parametrize(("name", "threads", "number"), batches(CHAINS))
def test_chains_of_ops(name: str, threads: int, number: int) -> None:
    require(name)
    check(Batch(chain_plans(number)), name, threads)


@pytest.mark.parametrize(("name", "threads", "number"), batches(ALIASED))
def test_values_that_share_memory(name: str, threads: int, number: int) -> None:
    require(name)
    check(Batch(alias_plans(number)), name, threads)


#: Graphs that were once wrong.
FOUND: list[tuple[Seed, list[str], int]] = [
    ((9, 5), ["attend"], 2),  # heads of one column, whose bytes lie side by side; zero point -128
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", [NATIVE, VNNI, AVX2, PORTABLE])
def test_graphs_that_were_once_wrong(name: str, threads: int) -> None:
    require(name)
    check(Batch(FOUND), name, threads)


@pytest.mark.skipif(machine() != "x86_64", reason="needs an x86 CPU")
@pytest.mark.parametrize("plans", [single_plans, chain_plans, alias_plans])
def test_every_level_of_one_artifact(plans: Callable[[int], list[tuple[Seed, list[str], int]]], tmp_path: Path) -> None:
    batch = Batch(plans(1000))
    expected = run(batch.graph, batch.feeds)
    held = levels(target(PORTABLE))
    path = build_library(generate_levels(batch.graph, held), tmp_path / "model.so")
    for level in held:
        if level.features <= cpu_features():
            with qcomp.load(path, level=level.name) as model:
                found = model.run(batch.feeds)
            wrong = [n for n, array in expected.items() if not same_bits(array, found[n])]
            assert wrong == [], f"{level.name}: {wrong}; the first of them is an output of\n{batch.text(wrong[0])}"


def test_single_ops_reach_every_vector_kernel() -> None:
    machines = [target(name) for name in ("x86_64-amx", "x86_64-avx512vbmi", AVX2, AVXVNNI)]
    graphs = [Batch(single_plans(number)).graph for name, _, number in batches(SINGLE) if name == NATIVE]
    nodes = [node for graph in graphs for node in graph.nodes]
    reached = {kernel_table().select(node, machine).name for node in nodes for machine in machines}
    # those of tests/codegen/test_dynamic_kernels.py, test_recurrent_kernels.py and test_x86_elementwise.py
    elsewhere = ("_dynamic_gemm", "_lstm", "_gru", "_quantize_nchw")
    assert {kernel.name for kernel in X86_KERNELS if not kernel.name.endswith(elsewhere)} <= reached


# ---- float networks through the whole compiler --------------------------------------------------------------------

NETWORKS = [(NATIVE, 1, 40), (NATIVE, 2, 40), (PORTABLE, 2, 20), (SIGNED, 1, 20)]
TOGETHER = 20


def network_batches() -> list[tuple[str, int, int]]:
    each = [(name, threads) for name, threads, count in NETWORKS for _ in range(count // TOGETHER)]
    return [(name, threads, number) for number, (name, threads) in enumerate(each)]


@pytest.mark.parametrize(("name", "threads", "number"), network_batches())
def test_float_networks_through_the_whole_compiler(name: str, threads: int, number: int, tmp_path: Path) -> None:
    require(name)
    networks = Networks(number, TOGETHER)
    proto = networks.model()
    artifact = qcomp.compile(proto, target=name, calibration=networks.samples)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    reals, results = [], []
    path = artifact.save(tmp_path / "networks.so")
    held = [level.name for level in artifact.package.levels if level.features <= cpu_features()]
    with qcomp.load(path, threads=threads) as model, ExitStack() as stack:
        forced = [stack.enter_context(qcomp.load(path, threads, level=level)) for level in held]
        assert [level.info.target for level in forced] == held and model.info.target == [*held, artifact.target.name][0]
        for sample in range(SAMPLES):
            feeds = {n: data[sample : sample + 1] for n, data in networks.samples.items()}
            expected, found = run(artifact.graph, feeds), model.run(feeds)
            for outputs in (found, *(level.run(feeds) for level in forced)):
                assert [n for n, array in expected.items() if not same_bits(array, outputs[n])] == []
            reals.append(dict(zip(networks.outputs, session.run(networks.outputs, feeds), strict=True)))
            results.append(found)
    errors = {n: relative_error([r[n] for r in reals], [r[n] for r in results]) for n in networks.outputs}
    assert {n: e for n, e in errors.items() if e > 0.25} == {}  # softmax amplifies what eight bits lose


def relative_error(reals: list[np.ndarray], results: list[np.ndarray]) -> float:
    """Root mean square of the difference over that of the float model's output."""
    real, result = np.stack(reals).astype(np.float64), np.stack(results).astype(np.float64)
    return float(np.sqrt(np.mean((real - result) ** 2)) / (np.sqrt(np.mean(real**2)) + 1e-9))
