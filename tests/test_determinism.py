"""The same model and data give the same bytes: in any folder, any process, any hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from generated_networks import Networks

import qcomp.zoo

# Compiles MODEL with DATA (- for none) for TARGET by a back end into OUT.so and the source package OUT/.
SCRIPT = """
import sys
import numpy as np
import qcomp
model, data, out, target, backend = sys.argv[1:]
samples = None if data == "-" else dict(np.load(data))
artifact = qcomp.compile(model, target=target, calibration=samples, options=qcomp.Options(backend=backend))
artifact.save(out + ".so")
artifact.save_sources(out)
"""


def compiled(
    model: Path, data: Path | None, folder: Path, hash_seed: str, target: str, backend: str
) -> dict[str, bytes]:
    """Every file that one process makes in `folder`, by name."""
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    arguments = [str(model), "-" if data is None else str(data), str(folder / "model"), target, backend]
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, env=environment, cwd=folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check(
    model: Path, data: Path | None, tmp_path: Path, target: str = "x86_64-avx512vbmi", backend: str = "c"
) -> None:
    (tmp_path / "deeper").mkdir()
    first = compiled(model, data, tmp_path / "one", "1", target, backend)
    second = compiled(model, data, tmp_path / "deeper" / "another folder", "4242", target, backend)
    assert list(first) == list(second)
    assert [name for name, content in first.items() if content != second[name]] == []
    assert "model.so" in first and sum(name.endswith(".c") for name in first) >= 3
    assert not any(str(tmp_path).encode() in content for content in first.values())


@pytest.mark.parametrize(("target", "backend"), [
    ("x86_64-avx512vbmi", "c"), ("x86_64", "c"), ("x86_64-amx", "tvm"), ("aarch64-dotprod", "tvm"),
])  # fmt: skip
def test_generated_networks(target: str, backend: str, tmp_path: Path) -> None:
    if backend == "tvm":
        pytest.importorskip("tvm", reason="needs the tvm extra")
    networks = Networks(77, 6)
    onnx.save(networks.model(), tmp_path / "networks.onnx")
    np.savez(tmp_path / "data.npz", **networks.samples)
    check(tmp_path / "networks.onnx", tmp_path / "data.npz", tmp_path, target, backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "ppocr_rec", "mnist_dscnn_qat"])
def test_models_of_the_zoo(name: str, tmp_path: Path) -> None:
    case = qcomp.zoo.load(name)
    data = None if name.endswith("_qat") else tmp_path / "data.npz"
    if data is not None:
        np.savez(data, allow_pickle=False, **case.calibration_samples(16))
    source = onnx.load(str(case.onnx_path))
    for value in source.graph.input:  # open dimensions, which the script does not bind
        if value.name in case.shapes:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, case.shapes[value.name], strict=True):
                dim.dim_value = size
    onnx.save(source, tmp_path / "model.onnx")
    check(tmp_path / "model.onnx", data, tmp_path)
