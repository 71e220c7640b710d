"""CUDA C of the TVM computes: NVRTC compiles it, and a CPU that plays all threads one by one gets the numbers that the
contract defines."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qcomp.codegen.tvm.elementwise import Lookup, Pair, Windows
from qcomp.codegen.tvm.forms import VNNI
from qcomp.codegen.tvm.products import Products
from qcomp.errors import QcompError

pytest.importorskip("tvm", reason="needs the tvm extra")

from qcomp.codegen.tvm.cuda import SIGNED, CudaKernel, cuda_kernel

PLAYED = """
template <class T> static T min(T a, T b) { return b < a ? b : a; }
template <class T> static T max(T a, T b) { return a < b ? b : a; }
struct place { int x; };
static place blockIdx, threadIdx;
#define __global__
#define __launch_bounds__(n)
#define __restrict__
static float __fadd_rn(float a, float b) { return a + b; }
"""


def played(kernel: CudaKernel, arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Runs the kernel here, thread after thread; results are in the arrays."""
    pointers = ", ".join(f"void* p{i}" for i in range(len(kernel.parameters)))
    types = kernel.source[kernel.source.rindex(f"{kernel.name}(") :].partition("(")[2].partition(")")[0].split(",")
    cast = ", ".join(f"({kind.strip().rpartition('*')[0]}*)p{i}" for i, kind in enumerate(types))
    text = f"""{PLAYED}{kernel.source}
extern "C" void play({pointers}) {{
  for (blockIdx.x = 0; blockIdx.x < {kernel.blocks}; blockIdx.x++)
    for (threadIdx.x = 0; threadIdx.x < {kernel.threads}; threadIdx.x++) {kernel.name}({cast});
}}
"""
    (folder / "k.cpp").write_text(text)
    library = f"k{len(list(folder.iterdir()))}.so"  # one is never loaded twice
    flags = ["-O1", "-ffp-contract=off", "-fPIC", "-shared", "-o", library, "k.cpp"]
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *flags], cwd=folder, check=True, capture_output=True)
    play = ctypes.CDLL(str(folder / library)).play
    play(*(ctypes.c_void_p(arrays[name].ctypes.data) for name in kernel.parameters))


def rounded(real: np.ndarray, low: float, high: float, zp: int) -> np.ndarray:
    return (np.rint(np.clip(real, np.float32(low), np.float32(high))).astype(np.int64) + zp).astype(np.int8)


LINES, PIXELS, TAPS, DEPTH, OUTPUTS, WIDTH = 3, 7, (3, 2), 10, 21, 13


def products(residual: bool, dtype: str = "int8") -> Products:
    step = 5
    x_strides = (2 * WIDTH * step, WIDTH * step, step, 2 * step)
    return Products(
        SIGNED, LINES, 1, PIXELS, 1, TAPS, DEPTH, x_strides, 3, 2, OUTPUTS, (PIXELS * 30, 30),
        (PIXELS * 25, 25) if residual else None, dtype, False,
    )  # fmt: skip


@pytest.mark.parametrize(("residual", "dtype"), [(False, "int8"), (True, "int8"), (False, "float32")])
def test_products(residual: bool, dtype: str, tmp_path: Path) -> None:
    rng, spec = np.random.default_rng(5), products(residual, dtype)
    x = rng.integers(-128, 128, 4000, dtype=np.int8)
    rows, units = spec.padded_channels, spec.units
    w = rng.integers(-127, 128, (rows, *TAPS, 4 * units), dtype=np.int8)
    w[..., DEPTH:] = 0
    arrays = {
        "x": x, "bias": rng.integers(-900, 900, rows, dtype=np.int32),
        "mult": rng.uniform(0.001, 0.01, rows).astype(np.float32),
        "reals": np.array([-100, 120, 0.7], np.float32), "integers": np.array([7, -3], np.int32),
        "r": rng.integers(-128, 128, LINES * PIXELS * 25, dtype=np.int8),
        "y": np.zeros(LINES * PIXELS * 30, spec.dtype),
        "w": np.ascontiguousarray(w.reshape(3, 2, 4, *TAPS, units, 1, 4).transpose(0, 3, 4, 5, 1, 6, 2, 7)),
    }  # fmt: skip
    played(cuda_kernel(spec, "k"), arrays, tmp_path)
    line, row, column, pixel = spec.x_strides
    at = np.add.outer(
        np.add.outer(np.arange(LINES) * line, np.arange(PIXELS) * pixel),
        np.add.outer(np.add.outer(np.arange(TAPS[0]) * row, np.arange(TAPS[1]) * column), np.arange(4 * units)),
    )
    acc = np.tensordot(x[at].astype(np.int64), w.astype(np.int64), axes=([2, 3, 4], [1, 2, 3])) + arrays["bias"]
    real = acc.astype(np.int32).astype(np.float32) * arrays["mult"]
    if residual:
        r = arrays["r"].reshape(LINES, PIXELS, 25)[..., :OUTPUTS].astype(np.float32) + 3
        real[..., :OUTPUTS] += r * np.float32(0.7)
    expected = real if dtype == "float32" else rounded(real, -100, 120, 7)
    found = arrays["y"].reshape(LINES, PIXELS, 30)
    assert np.array_equal(found[..., :OUTPUTS], expected[..., :OUTPUTS]) and not found[..., OUTPUTS:].any()


@pytest.mark.parametrize("average", [False, True])
def test_pools(average: bool, tmp_path: Path) -> None:
    rng, lines, pixels, channels = np.random.default_rng(6), 3, 5, 17
    spec = Windows("int8", average, lines, pixels, channels, (2, 3), (400, 200, 17, 34), (85, 17))
    arrays = {
        "x": rng.integers(-128, 128, 2000, dtype=np.int8), "y": np.zeros(lines * 85, np.int8),
        "mult": rng.uniform(0.1, 0.4, (lines, pixels)).astype(np.float32),
        "reals": np.array([-90, 90], np.float32), "integers": np.array([5, 12], np.int32),
    }  # fmt: skip
    played(cuda_kernel(spec, "k"), arrays, tmp_path)
    at = sum(
        np.arange(n).reshape([-1 if i == j else 1 for j in range(5)]) * step
        for i, (n, step) in enumerate([(lines, 400), (pixels, 34), (2, 200), (3, 17), (channels, 1)])
    )
    taken = arrays["x"][at]
    if average:
        total = taken.sum(axis=(2, 3), dtype=np.int32) - 12
        expected = rounded(total.astype(np.float32) * arrays["mult"][..., None], -90, 90, 5)
    else:
        expected = taken.max(axis=(2, 3))
    assert np.array_equal(arrays["y"].reshape(lines, pixels, channels), expected)


def test_sums_and_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    arrays = {
        "a": rng.integers(-128, 128, 150, dtype=np.int8), "b": rng.integers(-128, 128, 180, dtype=np.int8),
        "table": rng.integers(-128, 128, 256, dtype=np.int8), "y": np.zeros(210, np.int8),
        "reals": np.array([0.37, 0.81, 139, 28, 250], np.float32), "integers": np.array([3, -4, -128], np.int32),
    }  # fmt: skip
    played(cuda_kernel(Pair("int8", 3, 50, (50, 60, 70), True), "k"), arrays, tmp_path)
    a, b = (arrays[n].reshape(3, -1)[:, :50].astype(np.float32) for n in "ab")
    real = (a - 3) * np.float32(0.37) + (b + 4) * np.float32(0.81) + np.float32(139)
    expected = arrays["table"][np.rint(np.clip(real, 28, 250)).astype(int)]
    assert np.array_equal(arrays["y"].reshape(3, 70)[:, :50], expected)
    played(cuda_kernel(Lookup("int8", 3, 50, (50, 70)), "k"), arrays | {"x": arrays["a"]}, tmp_path)
    expected = arrays["table"][arrays["a"].reshape(3, 50).astype(int) + 128]
    assert np.array_equal(arrays["y"].reshape(3, 70)[:, :50], expected)


def test_forms_of_other_machines_are_refused() -> None:
    from dataclasses import replace

    with pytest.raises(QcompError, match=r"the form vnni is not for CUDA"):
        cuda_kernel(replace(products(False), form=VNNI), "k")


@pytest.mark.skipif(importlib.util.find_spec("nvidia") is None, reason="needs the cuda extra")
def test_nvrtc_compiles_it() -> None:
    import nvidia

    found = [path for root in nvidia.__path__ for path in Path(root).rglob("libnvrtc.so*")]
    if not found:
        pytest.skip("needs the cuda extra")
    nvrtc = ctypes.CDLL(str(found[0]))
    specs = [products(True), Windows("int8", True, 3, 5, 17, (2, 3), (400, 200, 17, 34), (85, 17)),
             Pair("int8", 3, 50, (50, 60, 70), True), Lookup("int8", 3, 50, (50, 70))]  # fmt: skip
    for spec in specs:
        program = ctypes.c_void_p()
        source = cuda_kernel(spec, "k").source.encode()
        assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"k.cu", 0, None, None) == 0
        options = (ctypes.c_char_p * 2)(b"--gpu-architecture=sm_75", b"-fmad=false")
        status = nvrtc.nvrtcCompileProgram(program, 2, options)
        log = ctypes.create_string_buffer(1 << 16)
        nvrtc.nvrtcGetProgramLog(program, log)
        assert status == 0, log.value.decode()
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
