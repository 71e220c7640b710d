"""Artifacts for AMX that run on machines without it: the same C over a software model of the tile instructions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qcomp.codegen.c.package import SourcePackage
from qcomp.targets import target

AMX, VECTORS = target("x86_64-amx"), target("x86_64-avx512vbmi")
MODEL = Path(__file__).parent / "codegen" / "x86" / "amx_model.h"


def modelled(package: SourcePackage) -> SourcePackage:
    """A package for AMX as one that is compiled for, and asks for, AVX512-VNNI and VBMI; its files are untouched."""
    assert package.target is AMX
    flags = {"zig": (*VECTORS.compiler_flags("zig"), "-include", str(MODEL))}
    metadata = {**package.metadata, "isa": sorted(VECTORS.features)}
    return replace(package, target=replace(AMX, flags=flags), metadata=metadata)
