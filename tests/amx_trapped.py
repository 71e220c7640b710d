"""Machine code for AMX that runs on machines without it, as it is: a handler of SIGILL does the tile instructions."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from amx_modelled import AMX, MODEL, VECTORS

from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.toolchain import build_plain_library, find_compiler
from qcomp.runtime.features import cpu_features

_SOURCE = Path(__file__).parent / "amx_traps.c"


@cache
def traps() -> ctypes.CDLL | None:
    """The handler, installed; None where the CPU has tiles itself.

    Threads of the runtime's pool block signals: artifacts are to be run on one thread, the caller's."""
    if AMX.features <= cpu_features():
        return None
    with tempfile.TemporaryDirectory() as name:
        for path in (_SOURCE, MODEL):
            (Path(name) / path.name).write_bytes(path.read_bytes())
        source = Path(name) / _SOURCE.name
        library = ctypes.CDLL(str(build_plain_library(find_compiler(), VECTORS, source, ("-O2", "-fPIC"))))
    for name in ("products", "loads", "stores"):
        getattr(library, f"amx_{name}").restype = ctypes.c_int64
    assert library.amx_trap() == 0
    return library


def trapped(package: SourcePackage) -> SourcePackage:
    """The package with metadata that the loader takes here; its files are untouched."""
    if traps() is None:
        return package
    return replace(package, metadata={**package.metadata, "isa": sorted(VECTORS.features)})
