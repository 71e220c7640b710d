"""Most multiply-accumulates a second that one core reaches with an instruction set: a loop of nothing else."""

from __future__ import annotations

import ctypes
import tempfile
import time
from pathlib import Path

import numpy as np

from qcomp.codegen.c.x86.amx import FEATURES as AMX
from qcomp.codegen.c.x86.amx import tile_config
from qcomp.codegen.c.x86.amx_tiling import ACCUMULATORS, TILE_BYTES, TILE_ROWS, Depth
from qcomp.codegen.c.x86.isa import AVX2, AVX2_PAIRS, ISAS, Isa
from qcomp.codegen.c.x86.render import render
from qcomp.codegen.toolchain import KERNEL_FLAGS, build_plain_library, find_compiler
from qcomp.errors import QcompError
from qcomp.targets.loader import Target

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18

_ROUNDS = 20_000
_TRIALS = 40


def products(isa: Isa) -> int:
    """Independent accumulators: more than latency times multipliers, with room for the operands in the registers."""
    return 24 if isa.bits == 512 else 12


def peak_source(isa: Isa) -> str:
    """C of `void qcomp_peak(uint8_t* data)`; data: `products(isa)` vectors of zeros."""
    register = "v" if isa.bits == 512 else "x"
    return render("peak.c.j2", V=isa, count=products(isa), rounds=_ROUNDS, register=register)


def tile_peak_source() -> str:
    """The same with products of whole AMX tiles; data: one tile of zeros."""
    return render(
        "amx_peak.c.j2", count=ACCUMULATORS, rounds=_ROUNDS, config=tile_config(TILE_ROWS, Depth(1, 1, TILE_BYTES))
    )


def permit_tiles() -> None:
    """Asks Linux to let this process use the AMX registers, as the loader does for an artifact (runtime/src/amx.c).

    Raises QcompError where it refuses."""
    if ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) != 0:
        raise QcompError("the system refuses the AMX registers", fix="use a target without AMX")


def measured_peak(target: Target, cc: str | None = None) -> float | None:
    """10^9 operations a second of one core of this machine, which must be able to run the target's code; None where
    the target has no vector kernels.  A multiply-accumulate counts as two operations.

    Raises QcompError when there is no compiler.
    """
    if target.features >= AMX:
        permit_tiles()
        operations = 2 * TILE_ROWS * TILE_ROWS * TILE_BYTES * ACCUMULATORS
        return _measure(tile_peak_source(), operations, TILE_ROWS * TILE_BYTES, target, cc)
    found = next((isa for isa in ISAS if isa.features <= target.features), None)
    if found is None:
        return None
    return max(_measure_vectors(isa, target, cc) for isa in ((AVX2, AVX2_PAIRS) if found is AVX2 else (found,)))


def _measure_vectors(isa: Isa, target: Target, cc: str | None) -> float:
    operations = 2 * (2 if isa is AVX2 else 4) * isa.lanes * products(isa)
    return _measure(peak_source(isa), operations, isa.bytes * products(isa), target, cc)


def _measure(text: str, operations: int, data_bytes: int, target: Target, cc: str | None) -> float:
    """The best of some calls; operations: of a round."""
    with tempfile.TemporaryDirectory(prefix="qcomp-") as name:
        source = Path(name) / "peak.c"
        source.write_text(text)
        library = ctypes.CDLL(str(build_plain_library(find_compiler(cc), target, source, KERNEL_FLAGS)))
    data = np.zeros(data_bytes, np.uint8)
    run = library.qcomp_peak
    run.argtypes = [ctypes.c_void_p]
    best = float("inf")
    for _ in range(_TRIALS):
        start = time.perf_counter()
        run(data.ctypes.data)
        best = min(best, time.perf_counter() - start)
    return operations * _ROUNDS / best / 1e9
