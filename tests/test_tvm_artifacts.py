"""Artifacts of the TVM back end: the interpreter's bits for whole networks, on machines with and without TVM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from amx_modelled import AMX
from amx_trapped import trapped
from emulators import emulated
from generated_graphs import same_bits

import qcomp
import qcomp.zoo
from qcomp.codegen.build import build_library
from qcomp.codegen.toolchain import KERNEL_FLAGS, compile_unit, find_compiler, run_tool
from qcomp.codegen.tvm.adapter import VERSIONS
from qcomp.codegen.tvm.coverage import macs_share
from qcomp.compiler import Options
from qcomp.emulation import EmulatedModel
from qcomp.ir import run
from qcomp.runtime.features import cpu_features
from qcomp.targets import target
from qcomp.zoo.architectures import dscnn, resnet8
from qcomp.zoo.random_networks import Architecture

pytest.importorskip("tvm", reason="needs the tvm extra")

x86 = pytest.mark.skipif(not target("x86_64-avx512vnni").features <= cpu_features(), reason="needs AVX512-VNNI")
arm = emulated("aarch64-dotprod")
BY_TVM = Options(backend="tvm")
#: Of a source package, what belongs to a program rather than to the model.
OF_PROGRAMS = ("main.c", "pool.c", "profile.c", "amx.c")


def check(name: str, case: qcomp.zoo.Case, folder: Path, samples: int) -> None:
    artifact = qcomp.compile(
        case.onnx_path, shapes=case.shapes, target=name, calibration=case.calibration_samples(8), options=BY_TVM
    )
    assert macs_share(artifact.metadata["steps"]) >= 0.95
    feeds = list(case.feeds(samples))
    if name.startswith("aarch64"):
        found = EmulatedModel(artifact.save(folder / "model.so")).run_all(feeds)
    else:
        package = trapped(artifact.package) if name == AMX.name else artifact.package
        with qcomp.load(build_library(package, folder / "model.so")) as model:
            found = [model.run(feed) for feed in feeds]
    for feed, outputs in zip(feeds, found, strict=True):
        assert [key for key, array in run(artifact.graph, feed).items() if not same_bits(array, outputs[key])] == []


@pytest.mark.parametrize("architecture", [
    Architecture("resnet8_32", resnet8, (3, 32, 32)), Architecture("dscnn_49x10", dscnn, (1, 49, 10)),
], ids=["resnet8", "dscnn"])  # fmt: skip
@pytest.mark.parametrize("name", [
    pytest.param("x86_64-avx512vnni", marks=x86), pytest.param("x86_64-amx", marks=x86),
    pytest.param("aarch64-dotprod", marks=arm),
])  # fmt: skip
def test_small_networks(
    name: str, architecture: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QCOMP_CACHE", str(tmp_path))
    check(name, architecture.case(), tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet8_32", "mobilenet_v2", "resnet50", "efficientnet_lite0"])
@pytest.mark.parametrize("name", [
    pytest.param("x86_64-avx512vnni", marks=x86), pytest.param("x86_64-amx", marks=x86),
    pytest.param("aarch64-dotprod", marks=arm),
])  # fmt: skip
def test_networks(name: str, network: str, tmp_path: Path) -> None:
    """Two inputs each; EfficientNet needs torch, once."""
    check(name, qcomp.zoo.load(network), tmp_path, 2)


WITHOUT_TVM = """
import importlib.abc, sys

class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tvm", "tvm_ffi", "jinja2", "onnx"):
            raise ImportError(name)

sys.meta_path.insert(0, Refused())
import numpy as np
import qcomp
with qcomp.load(sys.argv[1]) as model:
    np.savez(sys.argv[2], **model.run(dict(np.load(sys.argv[3]))))
assert not any(name.partition(".")[0] in ("tvm", "tvm_ffi") for name in sys.modules)
assert "libtvm" not in open("/proc/self/maps").read(), "a library of TVM is loaded"
"""


@x86
def test_an_artifact_runs_where_there_is_no_tvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCOMP_CACHE", str(tmp_path))
    case = Architecture("dscnn_49x10", dscnn, (1, 49, 10)).case()
    artifact = qcomp.compile(case.onnx_path, calibration=case.calibration_samples(8), options=BY_TVM)
    path = artifact.save(tmp_path / "model.so")
    feed = case.feed(0)
    np.savez(tmp_path / "in.npz", **feed)
    script = [sys.executable, "-c", WITHOUT_TVM, str(path), str(tmp_path / "out.npz"), str(tmp_path / "in.npz")]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        for name, array in run(artifact.graph, feed).items():
            assert same_bits(array, found[name])


@x86
def test_two_models_fit_into_one_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What TVM compiled has names of its model, and nothing else of TVM is in the sources."""
    monkeypatch.setenv("QCOMP_CACHE", str(tmp_path))
    compiler, machine, objects = find_compiler(), target("x86_64-avx512vnni"), []
    for name in ("first", "second"):
        case = Architecture(name, dscnn, (1, 49, 10)).case()
        artifact = qcomp.compile(
            case.onnx_path, target=machine.name, calibration=case.calibration_samples(8), options=BY_TVM
        )
        folder = artifact.save_sources(tmp_path / f"{name}_sources")
        text = "".join(path.read_text() for path in folder.glob("*_functions*.S"))
        assert "_qc_tvm_" in text and "\tqc_tvm_" not in text
        assert not any(word in text for word in (".debug", ".loc", "__truncsfhf2", str(tmp_path), "TVMMod"))
        units = [path for path in folder.iterdir() if path.suffix in (".c", ".S") and path.name not in OF_PROGRAMS]
        flags = {".c": KERNEL_FLAGS, ".S": ()}
        objects += [
            str(folder / compile_unit(compiler, machine, folder, unit.name, flags[unit.suffix])) for unit in units
        ]
    command = [*compiler.command, *compiler.flags(machine, link=True), "-shared", *objects, "-o", "both.so"]
    run_tool(command, tmp_path)
    assert (tmp_path / "both.so").exists()


def test_the_versions_are_those_of_the_extra() -> None:
    import tomllib

    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    extra = tomllib.loads(text)["project"]["optional-dependencies"]["tvm"]
    assert extra == [f"{name}=={version}" for name, version in VERSIONS.items()]
