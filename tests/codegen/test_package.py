"""Source packages and libraries: deterministic, freestanding, within their memory, and clear when they fail."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from codegen_harness import PORTABLE, Cases, differences
from test_float_kernels import casts, movement, products, reductions, two_operands

from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.package import Options
from qcomp.codegen.toolchain import NUMERIC_FLAGS, find_compiler, link_library
from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, parse_graph, run
from qcomp.runtime.features import cpu_features
from qcomp.runtime.loader import load
from qcomp.targets import target

GOLDEN = Path(__file__).parent / "golden"


def network(seed: int = 0) -> Cases:
    """A small network with padding, a residual, a view, a float island and several inputs and outputs."""
    cases = Cases(seed)
    graph, rng = cases.graph, cases.rng
    graph.name = "network"

    def conv(x, channels, outputs, groups=1, stride=1):  # type: ignore[no-untyped-def]
        w = cases.constant(rng.integers(-127, 128, (outputs, 3, 3, channels // groups)).astype(np.int8))
        bias = cases.constant(rng.integers(-999, 999, outputs).astype(np.int32))
        mult = cases.constant((rng.random(outputs) * 0.003).astype(np.float32))
        attrs = {"pads": (1, 1, 1, 1), "strides": (stride, stride), "groups": groups, "x_zp": 3, "zp": 3, "lo": 3}
        return graph.add("qconv2d", [x, w, bias, mult], attrs).output

    x = cases.i8((2, 12, 12, 3), 3)
    a = conv(x, 3, 16)
    b = conv(a, 16, 16, groups=16)
    c = conv(b, 16, 16)
    mults = {"a_mult": 0.5, "b_mult": 0.75, "a_zp": 3, "b_zp": 3, "zp": 3}
    d = graph.add("qadd", [a, c], mults).output
    e = conv(d, 16, 24, stride=2)
    f = graph.add("qavg_pool", [e], {"kernel": (6, 6), "x_zp": 3, "ratio": 1.5, "zp": -9}).output
    g = graph.add("reshape", [f], {"shape": (2, 24)}).output
    w = cases.constant(rng.integers(-127, 128, (10, 24)).astype(np.int8))
    bias = cases.constant(rng.integers(-999, 999, 10).astype(np.int32))
    mult = cases.constant(np.full(10, 1e-3, np.float32))
    h = graph.add("qgemm", [g, w, bias, mult], {"dtype": DType.F32, "x_zp": -9})
    y = graph.add("softmax", [h.output], {"axis": 1}, names=["scores"]).output
    graph.outputs = [y, d, e]
    return cases


@pytest.mark.parametrize("name", ["generic", "x86_64", "x86_64-avx512vnni"])
def test_a_network_equals_the_interpreter_at_every_thread_count(name: str, tmp_path: Path) -> None:
    cases = network()
    expected = run(cases.graph, cases.feeds)
    path = build_library(generate(cases.graph, target(name)), tmp_path / "m.so")
    for threads in (1, 2, 5):
        with load(str(path), threads=threads) as model:
            assert differences(expected, model.run(cases.feeds)) == []


def test_the_metadata_describes_the_steps() -> None:
    package = generate(network().graph, target("x86_64"))
    meta = package.metadata
    assert [s["op"] for s in meta["steps"]].count("qconv2d") == 4
    assert meta["steps"][1]["macs"] == 2 * 12 * 12 * 16 * 27
    assert meta["arena_bytes"] == package.plan.arena_bytes >= package.plan.lower_bound
    assert meta["isa"] == ["sse2"]
    assert {s["precision"] for s in meta["steps"]} == {"f32", "i8"}


_SCRIPT = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_package import network
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.package import Options
from qcomp.codegen.build import build_library
from qcomp.codegen.toolchain import NUMERIC_FLAGS
from qcomp.targets import target
folder = Path(sys.argv[1])
package = generate(network().graph, target("x86_64-avx512vnni"), Options(form="c"))
package.write(folder)
build_library(generate(network().graph, target("x86_64-avx512vnni")), folder / "m.so")
"""


def test_sources_and_library_bytes_do_not_depend_on_hash_seed_or_folder(tmp_path: Path) -> None:
    trees = []
    for seed, name in (("1", "a"), ("77", "a/longer/folder/name")):
        folder = tmp_path / name / "out"
        temporary = tmp_path / name / "tmp"
        folder.mkdir(parents=True)
        temporary.mkdir()
        env = {**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(temporary)}
        script = _SCRIPT.format(tests=str(Path(__file__).parent))
        subprocess.run([sys.executable, "-c", script, str(folder)], env=env, check=True)
        assert list(temporary.iterdir()) == []
        trees.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert trees[0].keys() == trees[1].keys()
    assert [n for n in trees[0] if trees[0][n] != trees[1][n]] == []
    assert not any(str(tmp_path).encode() in content for content in trees[0].values())


TINY = """graph @tiny {
  input %x: f32[1,3,3,2]
  const %w: i8[2,3,3,1] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1]
  const %b: i32[2] = [10, -10]
  const %m: f32[2] = [0.0078125, 0.015625]
  %q: i8[1,3,3,2] q(0.5, 3) = quantize(%x) {quant = q(0.5, 3)}
  %c: i8[1,3,3,2] q(0.25, -4) = qconv2d(%q, %w, %b, %m) {pads = [1, 1, 1, 1], groups = 2, x_zp = 3, zp = -4}
  %y: f32[1,3,3,2] = dequantize(%c)
  output %y
}"""


def test_the_sources_of_a_small_model_are_as_they_were() -> None:
    """Regenerate with `QCOMP_UPDATE_GOLDEN=1 pytest tests/codegen/test_package.py`, and read the difference."""
    package = generate(parse_graph(TINY), target("generic"), Options(form="c"), PORTABLE)
    for name in ("tiny.c", "tiny_kernels0.c", "tiny.h", "main.c", "CMakeLists.txt"):
        path = GOLDEN / f"{name}.golden"
        if os.environ.get("QCOMP_UPDATE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(package.files[name])
        assert package.files[name] == path.read_bytes(), name


@pytest.mark.parametrize("name", ["x86_64-avx512vnni", "x86_64-amx"])
def test_generated_code_needs_nothing_and_changes_no_global(name: str, tmp_path: Path) -> None:
    """The library without the runtime: no undefined symbol, no writable data."""
    package = generate(network().graph, target(name))
    package.write(tmp_path)
    from qcomp.codegen.elf_size import object_sizes
    from qcomp.codegen.toolchain import KERNEL_FLAGS, compile_unit

    readelf = shutil.which("readelf")
    compiler = find_compiler()
    for unit in package.units:
        compiled = compile_unit(compiler, package.target, tmp_path, unit, KERNEL_FLAGS)
        assert object_sizes((tmp_path / compiled).read_bytes()).ram == 0
        if readelf is None:
            pytest.skip("readelf is not installed")
        command = [readelf, "-Ws", compiled]
        table = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        undefined = {line.split()[-1] for line in table.splitlines() if " UND " in line and len(line.split()) == 8}
        assert not [n for n in undefined if not n.startswith("qcomp_")], unit
        assert ".data" not in subprocess.run(
            [readelf, "-WS", compiled], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.replace(".data.rel.ro", ""), unit


def _sanitized(cases: Cases, folder: Path, prefix: str) -> dict[str, np.ndarray]:
    """Runs the package under gcc's address and undefined-behaviour sanitizers in a program of its own."""
    package = generate(cases.graph, target("x86_64"), Options(form="c", prefix=prefix, weights="array"), PORTABLE)
    folder.mkdir()
    package.write(folder)
    loads, calls, sizes = [], [], []
    for i, value in enumerate(cases.graph.inputs):
        cases.feeds[value.name].tofile(folder / f"in{i}")
        sizes.append(value.type.bytes)
        loads.append(f"in[{i}] = malloc({value.type.bytes});")
        loads.append(f'fread((void*)in[{i}], 1, {value.type.bytes}, fopen("in{i}", "rb"));')
    for i, value in enumerate(cases.graph.outputs):
        loads.append(f"out[{i}] = malloc({value.type.bytes});")
        calls.append(f'fwrite(out[{i}], 1, {value.type.bytes}, fopen("out{i}", "wb"));')
    program = f"""#include <stdio.h>
#include <stdlib.h>
#include "{prefix}.h"
int main(void) {{
    const qcomp_model* model = {prefix}_describe();
    const void* in[{len(sizes)}]; void* out[{len(calls)}];
    char* arena = aligned_alloc(64, model->arena_bytes);
    {" ".join(loads)}
    if (model->run(NULL, in, out, arena)) return 1;
    {" ".join(calls)}
    fflush(NULL); _Exit(0);
}}
"""
    (folder / "main.c").write_text(program)
    command = ["gcc", "-std=c11", "-O1", "-g", *NUMERIC_FLAGS, "-fsanitize=address,undefined",
               "-fno-sanitize-recover=all", "-Wno-unused-result", "-I."]  # fmt: skip
    subprocess.run([*command, "main.c", *package.units, "-o", "program"], cwd=folder, check=True)
    done = subprocess.run(["./program"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {
        v.name: np.fromfile(folder / f"out{i}", v.dtype.numpy).reshape(v.shape)
        for i, v in enumerate(cases.graph.outputs)
    }


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc with sanitizers is not installed")
@pytest.mark.parametrize("build", [network, two_operands, casts, movement, reductions, products])
def test_sanitizers_find_no_stray_access_and_gcc_gives_the_same_bits(
    build: Callable[[], Cases], tmp_path: Path
) -> None:
    cases = build()
    expected = run(cases.graph, cases.feeds)
    assert differences(expected, _sanitized(cases, tmp_path / "s", "network")) == []


def test_nothing_outside_arena_and_outputs_is_written(tmp_path: Path) -> None:
    cases = network(5)
    package = generate(cases.graph, target("x86_64-avx512vnni"))
    path = build_library(package, tmp_path / "m.so")
    from qcomp.runtime.library import Library

    library = Library(str(path))
    guard, size = 256, int(library.model.arena_bytes)
    block = np.full(size + 2 * guard + 64, 0xA5, np.uint8)
    start = guard + -(block.ctypes.data + guard) % 64
    inputs = [cases.feeds[v.name].copy() for v in cases.graph.inputs]
    blocks = [np.full(v.type.bytes + 2 * guard, 0xA5, np.uint8) for v in cases.graph.outputs]
    ins = (ctypes.c_void_p * len(inputs))(*[a.ctypes.data for a in inputs])
    outs = (ctypes.c_void_p * len(blocks))(*[b.ctypes.data + guard for b in blocks])
    assert library.model.run(None, ctypes.addressof(ins), ctypes.addressof(outs), block.ctypes.data + start) == 0
    assert library.model.run(None, ctypes.addressof(ins), ctypes.addressof(outs), block.ctypes.data + start + 8) == -1
    assert library.model.run(None, ctypes.addressof(ins), None, block.ctypes.data + start) == -1
    assert (block[:start] == 0xA5).all() and (block[start + size :] == 0xA5).all()
    for b in blocks:
        assert (b[:guard] == 0xA5).all() and (b[-guard:] == 0xA5).all()
    for array, value in zip(inputs, cases.graph.inputs, strict=True):
        assert np.array_equal(array, cases.feeds[value.name])


def test_aarch64_compiles(tmp_path: Path) -> None:
    package = generate(network().graph, target("aarch64"))
    package.write(tmp_path)
    library = link_library(package, tmp_path, find_compiler())
    assert library.read_bytes()[18] == 183


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("gcc") is None, reason="cmake or gcc is missing")
@pytest.mark.parametrize("name", ["generic", "x86_64"])
def test_a_source_package_builds_with_cmake_and_runs(name: str, tmp_path: Path) -> None:
    generate(network().graph, target(name), Options(form="c")).write(tmp_path)
    flags = ["-DCMAKE_C_COMPILER=gcc", "-DNETWORK_POOL=ON"]
    subprocess.run(["cmake", "-S", ".", "-B", "build", *flags], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", "build"], cwd=tmp_path, check=True, capture_output=True)
    shown = subprocess.run(["build/network_example"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.startswith("scores: ")
    readme = (tmp_path / "README.md").read_text()
    assert "| static variables (RAM), measured | 0 |" in readme


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("gcc") is None, reason="cmake or gcc is missing")
def test_a_source_package_for_amx_asks_for_its_registers(tmp_path: Path) -> None:
    machine = target("x86_64-amx")
    package = generate(network().graph, machine, Options(form="c"))
    assert any(step["kernel"].startswith("amx ") for step in package.metadata["steps"])
    package.write(tmp_path)
    subprocess.run(["cmake", "-S", ".", "-B", "build", "-DCMAKE_C_COMPILER=gcc"], cwd=tmp_path, check=True)
    subprocess.run(["cmake", "--build", "build"], cwd=tmp_path, check=True)
    done = subprocess.run(["build/network_example"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if machine.features <= cpu_features():
        assert done.returncode == 0 and done.stdout.startswith("scores: ")
    else:
        assert (done.returncode, done.stderr) == (1, "the system refuses the AMX registers\n")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_gcc_builds_the_same_results(tmp_path: Path) -> None:
    cases = network(6)
    path = build_library(generate(cases.graph, target("x86_64")), tmp_path / "m.so", cc="gcc")
    with load(str(path)) as model:
        assert differences(run(cases.graph, cases.feeds), model.run(cases.feeds)) == []


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(QcompError, match="'no-such-cc' is not there"):
        build_library(generate(network().graph, target("x86_64")), tmp_path / "m.so", cc="no-such-cc")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_compiler_leaves_no_file_and_shows_its_first_error(tmp_path: Path) -> None:
    package = generate(network().graph, target("x86_64"))
    broken = {**package.files, "qcomp.c": b"int broken\n#error here\n"}
    object.__setattr__(package, "files", broken)
    with pytest.raises(QcompError, match="the C compiler failed: qcomp.c:2:2: error: here"):
        build_library(package, tmp_path / "m.so")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(QcompError, match="does not exist"):
        build_library(generate(network().graph, target("x86_64")), tmp_path / "none" / "m.so")


def test_an_op_without_kernel_is_named() -> None:
    graph = Graph()
    from qcomp.ir import TensorType

    x = graph.input("x", TensorType(DType.F64, (3,)))
    graph.outputs = [graph.add("exp", [graph.add("cast", [x], {"dtype": DType.F32}).output]).output]
    with pytest.raises(QcompError, match="no kernel for op cast"):
        generate(graph, target("generic"))


def test_a_prefix_must_be_an_identifier() -> None:
    with pytest.raises(QcompError, match="no C identifier"):
        Options(prefix="a b")


def test_a_model_called_like_a_header_gets_another_prefix() -> None:
    graph = parse_graph(TINY.replace("@tiny", "@float"))
    package = generate(graph, target("generic"), Options(form="c"))
    assert package.name == "float_model"
