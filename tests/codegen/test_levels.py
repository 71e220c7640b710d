"""One artifact with code for several targets: the same bits at every level, and the right one is picked."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from codegen_harness import differences
from test_package import network

from qcomp.codegen.build import build_library
from qcomp.codegen.c import cpuid
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.levels import choice, generate_levels
from qcomp.codegen.c.package import Options, SourcePackage
from qcomp.codegen.elf_size import object_sizes
from qcomp.codegen.toolchain import KERNEL_FLAGS, compile_unit, find_compiler
from qcomp.errors import QcompError
from qcomp.ir import run
from qcomp.runtime.artifact import read_trailer
from qcomp.runtime.features import cpu_features, machine
from qcomp.runtime.loader import best_level, load
from qcomp.runtime.sources import INCLUDE_DIR
from qcomp.targets import Target, levels, target

BASE = target("x86_64")
LEVELS = levels(BASE)
HERE = [level for level in LEVELS if machine() == level.arch and level.features <= cpu_features()]
pytestmark = pytest.mark.skipif(not HERE, reason="needs an x86 CPU")


@pytest.fixture(scope="module")
def package() -> SourcePackage:
    return generate_levels(network().graph, LEVELS)


@pytest.fixture(scope="module")
def artifact(package: SourcePackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(package, tmp_path_factory.mktemp("levels") / "m.so")


@pytest.mark.parametrize("level", HERE, ids=lambda t: t.name)
def test_every_level_equals_the_interpreter(level: Target, artifact: Path) -> None:
    cases = network()
    expected = run(cases.graph, cases.feeds)
    for threads in (1, 3):
        with load(artifact, threads, level.name) as model:
            assert (model.info.target, set(model.info.isa)) == (level.name, set(level.features))
            assert differences(expected, model.run(cases.feeds)) == []
            assert differences(expected, dict(model.bind(cases.feeds).run())) == []
            assert [s.kernel for s in model.profile(cases.feeds, runs=1)] == [s.kernel for s in model.info.steps]


def test_the_richest_level_of_this_cpu_is_picked(artifact: Path) -> None:
    with load(artifact) as model:
        assert model.info.target == HERE[0].name == best_level(read_trailer(artifact))


def test_levels_have_the_steps_of_their_targets(package: SourcePackage, artifact: Path) -> None:
    info = read_trailer(artifact)
    assert [level.name for level in info.levels] == [level.name for level in LEVELS]
    for level in LEVELS:
        alone = generate(network().graph, level).metadata
        told = info.at(level.name)
        assert [s.name for s in told.steps] == [s["name"] for s in alone["steps"]]
        assert told.metadata["isa"] == alone["isa"]
        assert told.arena_bytes == told.metadata["arena_bytes"] >= told.metadata["arena_lower_bound"]
        assert any(s.kernel.startswith("portable") for s in told.steps) or level is not BASE
    assert info.target == package.target.name == BASE.name and info.isa == ("sse2",)


@pytest.mark.parametrize("pair", [("x86_64-avx2", "x86_64-avxvnni"), ("x86_64-avx512vnni", "x86_64-avx512vbmi")])
def test_levels_of_one_width_share_weights_and_code(pair: tuple[str, str]) -> None:
    graph = network().graph
    both = generate_levels(graph, levels(BASE, pair))
    weights = [generate(graph, target(name)).metadata["weights_bytes"] for name in (*pair, BASE.name)]
    assert both.metadata["weights_bytes"] < 1.1 * (max(weights[:2]) + weights[2]) < 0.8 * sum(weights)
    code = [len(b"".join(generate_levels(graph, levels(BASE, names)).files.values())) for names in ((pair[0],), pair)]
    alone = len(b"".join(generate(graph, target(pair[1])).files.values()))
    assert code[1] - code[0] < 0.8 * alone


def test_each_unit_has_the_flags_of_its_level(package: SourcePackage) -> None:
    machines = {unit: package.machine(unit).name for unit in package.units}
    assert machines["qcomp.c"] == machines["qcomp_x86_64.c"] == machines["qcomp_metadata.c"] == "x86_64"
    assert machines["qcomp_x86_64_avx2_kernels0.c"] == "x86_64-avx2"
    assert set(machines.values()) == {level.name for level in LEVELS}


def test_one_level_alone_is_the_target_alone() -> None:
    graph = network().graph
    assert generate_levels(graph, levels(BASE, ("x86_64",))).files == generate(graph, BASE).files


def test_fewer_levels_are_less(tmp_path: Path) -> None:
    cases = network()
    few = generate_levels(cases.graph, levels(BASE, ("x86_64-avx2",)))
    path = build_library(few, tmp_path / "m.so")
    assert [level.name for level in read_trailer(path).levels] == ["x86_64-avx2", "x86_64"]
    with load(path) as model:
        assert model.info.target == ("x86_64-avx2" if target("x86_64-avx2") in HERE else "x86_64")
        assert differences(run(cases.graph, cases.feeds), model.run(cases.feeds)) == []


def test_the_code_needs_nothing_and_changes_no_global(package: SourcePackage, tmp_path: Path) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is not installed")
    package.write(tmp_path)
    for unit in package.units:
        name = compile_unit(find_compiler(), package.machine(unit), tmp_path, unit, KERNEL_FLAGS)
        assert object_sizes((tmp_path / name).read_bytes()).ram == 0
        table = subprocess.run([readelf, "-Ws", name], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        undefined = {line.split()[-1] for line in table.splitlines() if " UND " in line and len(line.split()) == 8}
        assert not [n for n in undefined if not n.startswith("qcomp_")], unit


def test_only_the_interface_is_exported(artifact: Path) -> None:
    library = ctypes.CDLL(str(artifact))
    for name in ("qcomp_describe", "qcomp_level", "qcomp_level_name", "qcomp_level_runs", "qcomp_pool_create"):
        assert hasattr(library, name)
    for name in ("qcomp_x86_64_model", "qcomp_weights", "qcomp_x86_64_avx2_unit0", "qcomp_x86_64_describe"):
        assert not hasattr(library, name)


# ---- the choice ----------------------------------------------------------------------------------------------------

CPUID_OF_A_TEST = """#define __get_cpuid_max(first, signature) ((first) ? 0x80000008u : most)
#define __cpuid_count(leaf, subleaf, a, b, c, d) answer(leaf, subleaf, &(a), &(b), &(c), &(d))
#include <stdint.h>
static uint32_t most = 7, words[4][4];
uint32_t *test_words(void) { return words[0]; }
void test_most(uint32_t leaf) { most = leaf; }
static void answer(uint32_t leaf, uint32_t subleaf, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
    const uint32_t *row = words[leaf == 1 ? 0 : leaf == 7 ? 1 + subleaf : 3];
    *a = row[0], *b = row[1], *c = row[2], *d = row[3];
}
"""
ROW = {(1, 0): 0, (7, 0): 1, (7, 1): 2, (0x80000001, 0): 3}
OSXSAVE = 1 << 27


def single(feature: str) -> Target:
    implied = {"avx2", "fma"} if feature == "avx512f" else set()  # a target has to list them
    return replace(BASE, name=feature, features=frozenset({feature, *implied}), carries=())


class Choice:
    """The choice between targets as a library, with an `qcomp_enable_amx` that returns `granted`; CPUID is that of this
    machine, or with `simulated` what a test says."""

    def __init__(self, folder: Path, targets: list[Target], granted: int = -1, simulated: bool = False) -> None:
        folder.mkdir()
        (folder / "qcomp.c").write_bytes(choice("qcomp", "test", targets, {t.name: "model" for t in targets}))
        (folder / "qcomp_internal.h").write_text(
            '#include "qcomp.h"\nextern const qcomp_model model;\nconst qcomp_model model = {QCOMP_ABI};\n'
            f"int32_t qcomp_enable_amx(void) {{ return {granted}; }}\n"
        )
        if simulated:
            (folder / "cpuid.h").write_text(CPUID_OF_A_TEST)
        command = [*find_compiler().command, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-I.", f"-I{INCLUDE_DIR}"]
        done = subprocess.run([*command, "qcomp.c", "-o", "choice.so"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.targets = targets
        self.library = ctypes.CDLL(str(folder / "choice.so"))
        self.library.qcomp_level_name.restype = ctypes.c_char_p
        self.library.qcomp_level.restype = ctypes.c_void_p

    def simulate(self, features: frozenset[str], saves: bool = True, most: int = 7) -> None:
        words = np.zeros((4, 4), np.uint32)
        words[1, 0] = 1  # leaf 7 has subleaf 1
        words[0, 2] = OSXSAVE if saves else 0
        for feature in features:
            bit = cpuid.BITS[feature]
            words[ROW[bit.leaf, bit.subleaf], bit.word] |= np.uint32(1 << bit.bit)
        self.library.test_words.restype = ctypes.POINTER(ctypes.c_uint32)
        ctypes.memmove(self.library.test_words(), words.ctypes.data, words.nbytes)
        self.library.test_most(most)

    def running(self) -> list[str]:
        return [t.name for i, t in enumerate(self.targets) if self.library.qcomp_level_runs(i)]


def test_cpuid_and_the_system_tell_the_same_features(tmp_path: Path) -> None:
    """Linux lists what the CPU has and the system does not hide; AMX needs a permission besides."""
    features = sorted(cpuid.BITS)
    told = Choice(tmp_path / "c", [single(f) for f in features], granted=0).running()
    assert told == sorted(cpu_features() & set(features))


def test_levels_count_from_the_best_and_end_with_null(artifact: Path) -> None:
    library = ctypes.CDLL(str(artifact))
    library.qcomp_level_name.restype = ctypes.c_char_p
    library.qcomp_level.restype = library.qcomp_describe.restype = ctypes.c_void_p
    names = [library.qcomp_level_name(i) for i in range(len(LEVELS))]
    assert names == [level.name.encode() for level in LEVELS]
    assert [bool(library.qcomp_level_runs(i)) for i in range(len(LEVELS))] == [level in HERE for level in LEVELS]
    assert len({library.qcomp_level(i) for i in range(len(LEVELS))}) == len(LEVELS)
    assert library.qcomp_describe() == library.qcomp_level(LEVELS.index(HERE[0]))
    for outside in (-1, len(LEVELS), 1000):
        assert library.qcomp_level_name(outside) is library.qcomp_level(outside) is None
        assert library.qcomp_level_runs(outside) == 0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Choice:
    return Choice(tmp_path_factory.mktemp("choice") / "c", list(LEVELS), simulated=True)


@pytest.mark.parametrize("cpu", LEVELS, ids=lambda t: t.name)
def test_a_cpu_with_the_features_of_a_level_runs_it_and_what_it_includes(cpu: Target, simulated: Choice) -> None:
    if cpu not in HERE:
        pytest.skip("this system does not save the registers")
    simulated.simulate(cpu.features)
    assert simulated.running() == [level.name for level in LEVELS if level.features <= cpu.features]


@pytest.mark.parametrize("missing", sorted(LEVELS[0].features - BASE.features))
def test_a_level_does_not_run_where_one_feature_is_missing(missing: str, simulated: Choice) -> None:
    features = LEVELS[0].features - {missing}
    simulated.simulate(features)
    expected = [level for level in LEVELS if level.features <= features and (level in HERE)]
    assert simulated.running() == [level.name for level in expected]
    assert missing not in expected[0].features


def test_registers_that_the_system_does_not_save_are_not_used(simulated: Choice) -> None:
    simulated.simulate(LEVELS[0].features, saves=False)
    assert simulated.running() == ["x86_64"]


def test_a_cpu_of_few_leaves_runs_the_last_level(simulated: Choice) -> None:
    simulated.simulate(LEVELS[0].features, most=1)
    assert simulated.running() == ["x86_64"]


@pytest.mark.skipif("avx2" not in cpu_features(), reason="needs AVX2")
@pytest.mark.parametrize(("granted", "expected"), [(0, ["x86_64-avx2", "x86_64"]), (-1, ["x86_64"])])
def test_a_level_that_the_system_refuses_is_passed_over(
    granted: int, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cpuid.BITS, "avx2", replace(cpuid.BITS["avx2"], permission="qcomp_enable_amx"))
    assert Choice(tmp_path / "c", [target("x86_64-avx2"), BASE], granted).running() == expected


def test_a_feature_that_cpuid_does_not_tell_is_named() -> None:
    odd = replace(target("x86_64-avx2"), name="odd", features=target("x86_64-avx2").features | {"warp9"})
    with pytest.raises(QcompError, match="no code can ask the CPU for feature 'warp9'"):
        generate_levels(network().graph, (odd, BASE))


def test_every_level_that_is_carried_can_be_asked_for() -> None:
    for level in LEVELS:
        assert list(cpuid.bits(level.features)) == sorted(level.features, key=lambda name: cpuid.BITS[name])


@pytest.mark.skipif("amx_tile" in cpu_features(), reason="this machine has AMX")
def test_a_level_with_amx_falls_back(tmp_path: Path) -> None:
    richest = LEVELS[0]
    flags = {"zig": (richest.flags["zig"][0] + "+amx_tile+amx_int8",)}
    amx = replace(richest, name="x86_64-tiles", features=richest.features | {"amx_tile", "amx_int8"}, flags=flags)
    cases = network()
    path = build_library(generate_levels(cases.graph, (amx, *LEVELS)), tmp_path / "m.so")
    with load(path) as model:
        assert model.info.target == HERE[0].name
        assert differences(run(cases.graph, cases.feeds), model.run(cases.feeds)) == []
    with pytest.raises(QcompError, match="level x86_64-tiles needs CPU features.*lacks: amx_int8, amx_tile"):
        load(path, level="x86_64-tiles")


# ---- the package for people ----------------------------------------------------------------------------------------

PROGRAM = """#include <stdio.h>
#include <string.h>
#include "network.h"
static _Alignas(64) unsigned char arena[NETWORK_ARENA_BYTES];
{tensors}
int main(void) {{
    const void *inputs[] = {{{inputs}}};
    void *outputs[] = {{{outputs}}};
    for (int32_t i = 0; network_level(i); ++i) {{
        if (!network_level_runs(i)) continue;
        if (network_level(i)->run(NULL, inputs, outputs, arena)) return 1;
        FILE *file = fopen(network_level_name(i), "wb");
        {writes}
        fclose(file);
    }}
    const qcomp_model *best = network_describe();
    for (int32_t i = 0; network_level(i); ++i)
        if (network_level(i) == best) puts(network_level_name(i));
    return best->arena_bytes > sizeof arena;
}}
"""


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("gcc") is None, reason="cmake or gcc is missing")
def test_a_source_package_builds_with_cmake_and_runs_every_level(tmp_path: Path) -> None:
    cases = network()
    package = generate_levels(cases.graph, LEVELS, Options(form="c"))
    package.write(tmp_path)
    graph = cases.graph
    tensors = [f"static _Alignas(64) unsigned char in{i}[{v.type.bytes}];" for i, v in enumerate(graph.inputs)]
    tensors += [f"static _Alignas(64) unsigned char out{i}[{v.type.bytes}];" for i, v in enumerate(graph.outputs)]
    program = PROGRAM.format(
        tensors="\n".join(tensors),
        inputs=", ".join(f"in{i}" for i in range(len(graph.inputs))),
        outputs=", ".join(f"out{i}" for i in range(len(graph.outputs))),
        writes=" ".join(f"fwrite(out{i}, 1, sizeof out{i}, file);" for i in range(len(graph.outputs))),
    )
    (tmp_path / "main.c").write_text(program)
    for command in (["cmake", "-S", ".", "-B", "build", "-DCMAKE_C_COMPILER=gcc"], ["cmake", "--build", "build"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    shown = subprocess.run(["build/network_example"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.split() == [HERE[0].name]
    zeros = run(graph, {v.name: np.zeros(v.shape, v.dtype.numpy) for v in graph.inputs})
    expected = b"".join(zeros[v.name].tobytes() for v in graph.outputs)
    assert {level.name: (tmp_path / level.name).read_bytes() == expected for level in HERE} == {
        level.name: True for level in HERE
    }
    assert not [level.name for level in LEVELS if level not in HERE and (tmp_path / level.name).exists()]
    readme = (tmp_path / "README.md").read_text()
    assert all(f"| {level.name} |" in readme for level in LEVELS)
    assert "| static variables (RAM), measured | 0 |" in readme


def test_a_package_with_amx_has_the_file_that_asks_the_system() -> None:
    richest = LEVELS[0]
    flags: dict[str, tuple[str, ...]] = {"zig": richest.flags["zig"], "gcc": ("-m64",)}
    amx = replace(richest, name="x86_64-tiles", features=richest.features | {"amx_tile", "amx_int8"}, flags=flags)
    package = generate_levels(network().graph, (amx, BASE), Options(form="c"))
    assert b"qcomp_enable_amx" in package.files["network.c"] and "amx.c" in package.files
    assert b"  amx.c\n" in package.files["CMakeLists.txt"]
    without = generate_levels(network().graph, levels(BASE, ("x86_64-avx2",)), Options(form="c"))
    assert b"amx" not in without.files["network.c"] and "amx.c" not in without.files


def test_two_packages_link_into_one_program(tmp_path: Path) -> None:
    compiler = find_compiler()
    objects = []
    for prefix in ("one", "two"):
        package = generate_levels(network().graph, levels(BASE, ("x86_64-avx2",)), Options(form="c", prefix=prefix))
        package.write(tmp_path)
        objects += [compile_unit(compiler, package.machine(u), tmp_path, u, KERNEL_FLAGS) for u in package.units]
    (tmp_path / "both.c").write_text(
        '#include "one.h"\n#include "two.h"\nint main(void) { return one_describe() == two_describe(); }\n'
    )
    command: list[str] = [*compiler.command, "both.c", *objects, "-I.", "-o", "both"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["./both"], cwd=tmp_path, check=True)


def damaged(artifact: Path, folder: Path, change: Callable[[bytearray], None]) -> Path:
    data = bytearray(artifact.read_bytes())
    change(data)
    (folder / "damaged.so").write_bytes(data)
    return folder / "damaged.so"


def test_every_damaged_byte_is_noticed(artifact: Path, tmp_path: Path) -> None:
    size = artifact.stat().st_size
    for position in range(40, size - 64, size // 9):

        def flip(data: bytearray, at: int = position) -> None:
            data[at] ^= 4

        with pytest.raises(QcompError, match="damaged") as caught:
            load(damaged(artifact, tmp_path, flip))
        assert "\n" not in str(caught.value)
