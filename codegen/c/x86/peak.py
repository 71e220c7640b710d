"""Most multiply-accumulates a second that one core reaches with an instruction set: a loop of nothing else."""

from __future__ import annotations

import ctypes
import tempfile
import time
from pathlib import Path

import numpy as np

from qcomp.codegen.c.x86.isa import AVX2, AVX2_PAIRS, ISAS, Isa
from qcomp.codegen.c.x86.render import render
from qcomp.codegen.toolchain import KERNEL_FLAGS, build_plain_library, find_compiler
from qcomp.targets.loader import Target

_ROUNDS = 20_000
_TRIALS = 40


def products(isa: Isa) -> int:
    """Independent accumulators: more than latency times multipliers, with room for the operands in the registers."""
    return 24 if isa.bits == 512 else 12


def peak_source(isa: Isa) -> str:
    """C of `void qcomp_peak(uint8_t* data)`; data: `products(isa)` vectors of zeros."""
    register = "v" if isa.bits == 512 else "x"
    return render("peak.c.j2", V=isa, count=products(isa), rounds=_ROUNDS, register=register)


def measured_peak(target: Target, cc: str | None = None) -> float | None:
    """10^9 operations a second of one core of this machine, which must be able to run the target's code; None where
    the target has no vector kernels.  A multiply-accumulate counts as two operations.

    Raises QcompError when there is no compiler.
    """
    found = next((isa for isa in ISAS if isa.features <= target.features), None)
    if found is None:
        return None
    return max(_measure(isa, target, cc) for isa in ((AVX2, AVX2_PAIRS) if found is AVX2 else (found,)))


def _measure(isa: Isa, target: Target, cc: str | None) -> float:
    with tempfile.TemporaryDirectory(prefix="qcomp-") as name:
        source = Path(name) / "peak.c"
        source.write_text(peak_source(isa))
        library = ctypes.CDLL(str(build_plain_library(find_compiler(cc), target, source, KERNEL_FLAGS)))
    data = np.zeros(isa.bytes * products(isa), np.uint8)
    run = library.qcomp_peak
    run.argtypes = [ctypes.c_void_p]
    taps = 2 if isa is AVX2 else 4
    operations = 2 * taps * isa.lanes * products(isa) * _ROUNDS
    best = float("inf")
    for _ in range(_TRIALS):
        start = time.perf_counter()
        run(data.ctypes.data)
        best = min(best, time.perf_counter() - start)
    return operations / best / 1e9
