"""Images for Cortex-M, run by qemu: the interpreter's bits on every core, and no instruction that a core lacks."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emulators import emulated, wrong
from generated_graphs import INTEGERS, KINDS, PRODUCTS, Batch, batch_of, same_bits

from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.package import Options as SourceOptions
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.toolchain import find_compiler, kernel_flags
from qcomp.compiler import Options, compile
from qcomp.emulation import EmulatedModel, emulator_command
from qcomp.errors import QcompError
from qcomp.ir import Graph, run
from qcomp.passes.fixed_requantize import FixedRequantize
from qcomp.targets import Memory, Target, target

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
KERNEL = {"cortex-m4": "smla", "cortex-m7": "smla", "cortex-m33": "smla", "cortex-m55": "mve"}
MIB = 1 << 20

boards = emulated("cortex-m4")


def board(name: str) -> Target:
    """The target with all the memory that its emulated board has."""
    found = target(name)
    if name == "cortex-m0plus":
        return found
    if name == "cortex-m55":
        return replace(found, memories=(found.memories[0], Memory("ddr", 16 * MIB, "ram", 0x60000000)))
    first = {memory.kind: memory for memory in reversed(found.memories)}
    return replace(found, memories=tuple(replace(first[kind], bytes=4 * MIB) for kind in ("rom", "ram")))


@boards
@pytest.mark.parametrize("name", CORES[1:])
@pytest.mark.parametrize(("kinds", "first"), [(PRODUCTS, 1), (INTEGERS, 2)])
def test_generated_graphs(name: str, kinds: list[str], first: int, tmp_path: Path) -> None:
    batch = batch_of([(11, first, i) for i in range(40)], kinds, 400 << 10)
    if target(name).requantize == "fixed":
        FixedRequantize().run(batch.graph)
    package = generate(batch.graph, board(name))
    if kinds is PRODUCTS and name in KERNEL:
        assert sum(step["kernel"].startswith(KERNEL[name]) for step in package.metadata["steps"]) > 10
    bad = wrong(batch.graph, batch.feeds, build_library(package, tmp_path / "model.elf"))
    assert bad == [], f"{bad}; the first of them is an output of\n{batch.text(bad[0])}"


@boards
@pytest.mark.parametrize("name", ["cortex-m3", "cortex-m4", "cortex-m55"])
def test_results_on_top_of_what_they_are_made_of(name: str, tmp_path: Path) -> None:
    """Chains of products in one graph each: the planner lets results overlap their operands."""
    saved = 0
    for seed in range(6):
        seeds = [(18, seed, i) for i in range(8)]
        batch = batch_of(seeds, ["conv", "depthwise", "grouped", "conv"], 300 << 10, steps=5)
        if target(name).requantize == "fixed":
            FixedRequantize().run(batch.graph)
        package = generate(batch.graph, board(name))
        saved += sum(slot.size for slot in package.plan.slots) - package.plan.arena_bytes
        bad = wrong(batch.graph, batch.feeds, build_library(package, tmp_path / "model.elf"))
        assert bad == [], f"{bad}; the first of them is an output of\n{batch.text(bad[0])}"
    assert saved > 0


@boards
def test_generated_graphs_that_fit_a_small_core(tmp_path: Path) -> None:
    for seed in range(4):
        batch = batch_of([(12, seed)], ["conv"], 24 << 10)
        FixedRequantize().run(batch.graph)
        path = build_library(generate(batch.graph, target("cortex-m0plus")), tmp_path / "m.elf")
        assert wrong(batch.graph, batch.feeds, path) == []


@boards
@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m55"])
def test_fixed_point_on_cores_that_have_floats(name: str, tmp_path: Path) -> None:
    batch = batch_of([(13, i) for i in range(20)], PRODUCTS, 200 << 10)
    FixedRequantize().run(batch.graph)
    path = build_library(generate(batch.graph, board(name)), tmp_path / "model.elf")
    assert wrong(batch.graph, batch.feeds, path) == []


@boards
@pytest.mark.parametrize("network", ["resnet8_32", "dscnn_49x10"])
@pytest.mark.parametrize("name", ["cortex-m3", "cortex-m4", "cortex-m7", "cortex-m55"])
def test_networks(name: str, network: str, tmp_path: Path) -> None:
    from qcomp.zoo import load

    case = load(network)
    artifact = compile(case.onnx_path, target=name, shapes=case.shapes, calibration=case.calibration_samples(8))
    path = artifact.save(tmp_path / "model.elf")
    rng = np.random.default_rng(3)
    (tensor,) = artifact.graph.inputs
    if tensor.dtype.is_float:
        feeds = [{tensor.name: rng.random(tensor.shape, np.float32)} for _ in range(10)]
    else:
        feeds = [{tensor.name: rng.integers(-128, 128, tensor.shape).astype(np.int8)} for _ in range(10)]
    for feed, found in zip(feeds, EmulatedModel(path).run_all(feeds), strict=True):
        expected = run(artifact.graph, feed)
        assert all(same_bits(array, found[name]) for name, array in expected.items())


def assembly(package_target: Target, batch: Batch, folder: Path) -> str:
    package = generate(batch.graph, package_target)
    package.write(folder)
    compiler, texts = find_compiler(), []
    for unit in package.units:
        if unit.endswith(".c"):
            flags = [*compiler.flags(package_target), *kernel_flags(package_target), "-I.", "-S", unit]
            subprocess.run([*compiler.command, *flags, "-o", f"{unit}.s"], cwd=folder, check=True)
            texts.append((folder / f"{unit}.s").read_text())
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("cortex-m0plus", r"sxtb16|smla\w*|ssat|qadd|smull|vmov\S*|[us]div|__aeabi_[fd]\w+"),
        ("cortex-m3", r"sxtb16|smla[dbt]\w*|qadd|vmov\S*|__aeabi_[fd]\w+"),
        ("cortex-m4", r"vmladava\S*|vldrb\S*|vcvtn\S*"),
        ("cortex-m7", r"vmladava\S*|vldrb\S*"),
        ("cortex-m33", r"vmladava\S*|vldrb\S*"),
    ],
)
def test_no_instruction_that_a_core_lacks(name: str, lacks: str, tmp_path: Path) -> None:
    fixed = target(name).requantize == "fixed"
    batch = batch_of([(14, i) for i in range(30)], INTEGERS, 200 << 10, floats=not fixed)
    if fixed:
        FixedRequantize().run(batch.graph)
    text = assembly(target(name), batch, tmp_path)
    assert not re.search(rf"\b({lacks})\b", text)
    if name in KERNEL:
        assert "smlad" in text and "vmul.f32" in text


@boards
def test_the_board_of_a_poorer_core_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of([(15, 3)], ["conv"], 64 << 10)
    path = build_library(generate(batch.graph, board("cortex-m4")), tmp_path / "model.elf")
    model = EmulatedModel(path)
    model._command = emulator_command(target("cortex-m3"))
    with pytest.raises(QcompError, match="fault: an instruction or address that this core does not have"):
        model.run(batch.feeds)


def test_the_portable_kernels_are_there_for_what_no_other_takes() -> None:
    batch = Batch([((16, i), list(KINDS), 1) for i in range(40)])
    for name in CORES[2:]:
        for node in batch.graph.nodes:
            assert kernel_table().find(node, target(name)) is not None, node


def small(tmp_path: Path, side: int = 12) -> tuple[Path, Path]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.2, shape).astype(np.float32) for shape in ((16, 3, 3, 3), (8, 16, 3, 3), (4, 8))]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["b1"], strides=[2, 2]), helper.make_node("Relu", ["b1"], ["b2"]),
        helper.make_node("GlobalAveragePool", ["b2"], ["c"]), helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w2"], ["y"], transB=1),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])]
    initializers = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "small.onnx")
    np.savez(tmp_path / "data.npz", x=rng.normal(0, 1, (8, 3, side, side)).astype(np.float32))
    return tmp_path / "small.onnx", tmp_path / "data.npz"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "qcomp", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@boards
def test_from_a_model_to_a_board_on_the_command_line(tmp_path: Path) -> None:
    model, data = small(tmp_path)
    done = command("compile", model, "-o", tmp_path / "m4.elf", "--target", "cortex-m4", "--calibrate", data)
    assert done.returncode == 0, done.stderr
    done = command("run", tmp_path / "m4.elf", "--emulate", "-i", data, "-o", tmp_path / "y.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "y.npz") as found:
        assert found["y"].shape == (8, 4)


def test_a_core_without_floats_takes_integers_and_needs_no_software_floats(tmp_path: Path) -> None:
    model, data = small(tmp_path)
    with np.load(data) as samples:
        artifact = compile(model, target="cortex-m3", calibration=samples["x"])
    assert {v.dtype.value for v in (*artifact.graph.inputs, *artifact.graph.outputs)} == {"i8"}
    assert artifact.graph.attrs["requantize"] == "fixed"
    assert all(node.attrs.get("fixed", True) for node in artifact.graph.nodes)


def test_what_needs_floats_is_refused_for_a_core_without_them(tmp_path: Path) -> None:
    model, _ = small(tmp_path)
    done = command("compile", model, "-o", tmp_path / "m.elf", "--target", "cortex-m3", "--float")
    assert done.returncode == 2 and not (tmp_path / "m.elf").exists()
    assert "target cortex-m3 has no floating point" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "limit", "text"), [
    ("--max-ram", "2KiB", "more than the limit given has; most is live in qconv2d"),
    ("--max-rom", "1KiB", "bytes of flash"),
])  # fmt: skip
def test_a_budget_that_is_exceeded_says_by_how_much(option: str, limit: str, text: str, tmp_path: Path) -> None:
    model, data = small(tmp_path)
    out = tmp_path / "m.elf"
    done = command("compile", model, "-o", out, "--target", "cortex-m4", "--calibrate", data, option, limit)
    assert done.returncode == 2 and text in done.stderr and done.stderr.count("\n") == 1 and not out.exists()


def test_the_source_package_of_a_core_states_its_memory(tmp_path: Path) -> None:
    model, data = small(tmp_path)
    out = tmp_path / "package"
    line = ("compile", model, "-o", out, "--emit", "c", "--target", "cortex-m4", "--io", "int8", "--calibrate", data)
    assert command(*line).returncode == 0
    names = {path.name for path in out.iterdir()}
    assert {"CMakeLists.txt", "README.md", "main.c", "qcomp.h", "small.c", "small.h"} <= names
    assert not names & {"pool.c", "profile.c"} and not any(name.endswith(".S") for name in names)
    assert re.search(r"Flash \d+ bytes, RAM \d+ bytes and the stack", (out / "README.md").read_text())
    assert "SMALL_INPUT0_ZERO_POINT" in (out / "small.h").read_text()
    flags = ["-target", "thumb-freestanding-eabihf", *target("cortex-m4").flags["zig"], "-c", "-ffreestanding"]
    for source in ("main.c", "small.c"):
        subprocess.run([*find_compiler().command, *flags, source, "-o", "o.o"], cwd=out, check=True)


def test_the_same_input_gives_the_same_sources() -> None:
    batch = batch_of([(17, i) for i in range(6)], INTEGERS, 100 << 10)
    for name in ("cortex-m4", "cortex-m55"):
        packages = [generate(batch.graph, target(name), SourceOptions(form="lib")) for _ in range(2)]
        assert packages[0].files == packages[1].files


@boards
@pytest.mark.parametrize("name", ["cortex-m3", "cortex-m4", "cortex-m55"])
def test_bands_of_rows_for_a_small_budget(name: str, tmp_path: Path) -> None:
    model, data = small(tmp_path, 40)
    with np.load(data) as samples:
        calibration = samples["x"]
    options = Options(io="int8", max_ram=20000)
    artifact = compile(model, target=name, calibration=calibration, options=options)
    whole = compile(model, target=name, calibration=calibration, options=Options(io="int8", max_ram=1 << 20))
    assert artifact.package.arena_bytes < whole.package.arena_bytes
    assert any(".rows1" in node.name for node in artifact.graph.nodes)
    feed = {"x": np.random.default_rng(1).integers(-128, 128, (1, 3, 40, 40)).astype(np.int8)}
    found = EmulatedModel(artifact.save(tmp_path / "m.elf")).run(feed)
    expected = run(whole.graph, feed)
    assert all(same_bits(array, found[name]) and same_bits(array, run(artifact.graph, feed)[name])
               for name, array in expected.items())  # fmt: skip


def test_words_behind_the_callers_memory_are_not_read() -> None:
    """Runs of whole words are read from an input where it lies; others are left to code that reads bytes."""
    from qcomp.ir import DType, Quantization, TensorType

    rng, quant = np.random.default_rng(0), Quantization.per_tensor(0.5, 3)
    for channels, groups, whole in ((68, 4, False), (68, 1, True), (17, 1, False), (64, 2, True)):
        graph: Graph = Graph("runs")
        x = graph.input("x", TensorType(DType.I8, (1, 2, 3, channels), quant))
        operands = [
            x, graph.constant(rng.integers(-127, 128, (64, 1, 1, channels // groups)).astype(np.int8)),
            graph.constant(np.zeros(64, np.int32)), graph.constant(np.full(64, 1e-3, np.float32)),
        ]  # fmt: skip
        graph.outputs.append(graph.add("qconv2d", operands, {"groups": groups, "x_zp": 3}, quants=[quant]).output)
        (step,) = generate(graph, target("cortex-m4")).metadata["steps"]
        assert step["kernel"].startswith("smlad") is whole, (channels, groups, step["kernel"])
