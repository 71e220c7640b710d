"""Compiles generated x86 kernels into one shared library and calls them through ctypes."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from qcomp.codegen.c.kernel import KernelCode as Code
from qcomp.codegen.c.vector.shapes import Plane
from qcomp.codegen.c.x86.amx import FEATURES as AMX
from qcomp.codegen.c.x86.isa import AVX2, AVX512, AVX512_VBMI, AVXVNNI, Isa
from qcomp.codegen.c.x86.peak import permit_tiles
from qcomp.codegen.c.x86.render import merge_helpers
from qcomp.runtime.features import cpu_features

CPUS = {
    AVX512_VBMI: "-mcpu=x86_64_v4+avx512vnni+avx512vbmi",
    AVX512: "-mcpu=x86_64_v4+avx512vnni",
    AVXVNNI: "-mcpu=x86_64_v3+avxvnni",
    AVX2: "-mcpu=x86_64_v3",
}
#: Instruction sets whose code runs here.
HERE = [isa for isa in CPUS if isa.features <= cpu_features()]
every_isa = pytest.mark.parametrize("isa", [
    pytest.param(isa, id=isa.name + ("-vbmi" if isa.vbmi else ""), marks=() if isa in HERE else pytest.mark.skip(
        reason=f"needs {', '.join(sorted(isa.features - cpu_features()))}"))
    for isa in CPUS
])  # fmt: skip
#: What AMX code is compiled with: for the machine, or over a software model of the tile instructions.
AMX_MODEL = Path(__file__).parent / "amx_model.h"
TILE_CPUS = {
    "model": (CPUS[AVX512_VBMI], "-DAMX_MODEL_COUNTS", "-include", str(AMX_MODEL)),
    "machine": (CPUS[AVX512_VBMI] + "+amx_tile+amx_int8",),
}
_TILE_FEATURES = {"model": AVX512_VBMI.features, "machine": AVX512_VBMI.features | AMX}
every_tiles = pytest.mark.parametrize("tiles", [
    pytest.param(name, marks=() if needed <= cpu_features() else pytest.mark.skip(
        reason=f"needs {', '.join(sorted(needed - cpu_features()))}"))
    for name, needed in _TILE_FEATURES.items()
])  # fmt: skip
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-ffreestanding", "-std=c11", "-Wall", "-Wextra",
         "-Wno-unused-parameter", "-Werror"]  # fmt: skip
INCLUDES = "#include <immintrin.h>\n#include <stddef.h>\n#include <stdint.h>\n"
SLACK = 64
SHARED, INLINED = "static __attribute__((noinline)) ", "static inline __attribute__((always_inline)) "


def source(codes: dict[str, Code], inlined: bool = False) -> str:
    """One C file with every code and, for each, `run_SYMBOL(p, repeats)`.

    inlined: helpers are part of what calls them, as the compiler may have it in an artifact, where it knows lengths and
    zero points as constants."""
    helpers = [helper.text for helper in merge_helpers(*(code.helpers for code in codes.values()))]
    parts = [INCLUDES, *(text.replace(SHARED, INLINED) if inlined else text for text in helpers)]
    for symbol, code in codes.items():
        parts.append(code.text)
        parts.append(
            f"void run_{symbol}(void* const* p, int32_t repeats) {{\n  for (int32_t r = 0; r < repeats; r++)\n"
            f"    for (int32_t t = {code.tasks}; t-- > 0;) {symbol}(p, t);\n}}\n"
        )
    return "\n".join(parts)


def compiler(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *FLAGS, *arguments], check=True)


class Library:
    """Compiled codes; `run` gives each pointer 64-byte alignment and 64 readable bytes of slack."""

    def __init__(self, codes: dict[str, Code], isa: Isa, tiles: str = "", inlined: bool = False) -> None:
        self.codes = codes
        if tiles == "machine":
            permit_tiles()
        machine = TILE_CPUS[tiles] if tiles else (CPUS[isa], "-nostdlib")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernels.c"
            path.write_text(source(codes, inlined))
            library = str(path.with_suffix(".so"))
            compiler(*machine, "-shared", "-fPIC", str(path), "-o", library)
            self.handle = ctypes.CDLL(library)

    def pointers(self, symbol: str, buffers: list[int]) -> tuple[ctypes.Array[ctypes.c_void_p], list[np.ndarray]]:
        constants = [aligned(c) for c in self.codes[symbol].constants]
        addresses = [*buffers, *(c.ctypes.data for c in constants)]
        return (ctypes.c_void_p * len(addresses))(*addresses), constants

    def run(self, symbol: str, buffers: list[int], repeats: int = 1) -> None:
        """Every task of `symbol` in descending order; buffers are addresses of inputs, then outputs."""
        pointers, constants = self.pointers(symbol, buffers)
        getattr(self.handle, f"run_{symbol}")(pointers, repeats)
        del constants


def aligned(values: np.ndarray, slack: int = SLACK) -> np.ndarray:
    """A 64-byte aligned copy followed by `slack` bytes of noise."""
    raw = np.full(values.nbytes + slack + 64, 0xA5, np.uint8)
    offset = -raw.ctypes.data % 64
    view = raw[offset : offset + values.nbytes].view(values.dtype).reshape(values.shape)
    view[...] = values
    return view


class Guarded:
    """An activation whose buffer touches a page that cannot be read: before it, or `SLACK` bytes after it."""

    def __init__(self, plane: Plane, after: bool) -> None:
        page, libc = mmap.PAGESIZE, ctypes.CDLL(None)
        pages = -(-(plane.elements + SLACK) // page)
        self.memory = mmap.mmap(-1, (pages + 2) * page)
        self.raw = np.frombuffer(self.memory, np.uint8)
        for guard in (0, pages + 1):
            forbidden = ctypes.c_void_p(self.raw.ctypes.data + guard * page)
            assert libc.mprotect(forbidden, ctypes.c_size_t(page), 0) == 0
        start = (pages + 1) * page - SLACK - plane.elements if after else page
        self.full = self.raw[start : start + plane.elements]
        self.address = self.full.ctypes.data + plane.interior


class Image:
    """An activation in its buffer: `full` with the halo, `inner` without; noise before and after."""

    def __init__(self, plane: Plane, dtype: type = np.uint8, fill: int = 0) -> None:
        top, left, bottom, right = plane.halo
        shape = (plane.batch, top + plane.height + bottom, left + plane.width + right, plane.channels)
        self.plane = plane
        self.raw = np.full(plane.elements * np.dtype(dtype).itemsize + 3 * 64, 0xA5, np.uint8)
        start = -self.raw.ctypes.data % 64 + 64
        self.body = slice(start, start + plane.elements * np.dtype(dtype).itemsize)
        self.full = self.raw[self.body].view(dtype).reshape(shape)
        self.full[...] = fill
        self.inner = self.full[:, top : top + plane.height, left : left + plane.width, :]

    @property
    def address(self) -> int:
        return self.full.ctypes.data + self.plane.interior * self.full.itemsize

    def outside(self) -> np.ndarray:
        """Every byte that is not of the interior: a kernel must leave it as it was."""
        copy = self.raw.copy()
        top, left, _, _ = self.plane.halo
        full = copy[self.body].view(self.full.dtype).reshape(self.full.shape)
        full[:, top : top + self.plane.height, left : left + self.plane.width, :] = 0
        return copy
