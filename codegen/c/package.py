"""What the emitter returns: files in memory, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcomp.codegen.plan import MemoryPlan
from qcomp.targets import Target


@dataclass(frozen=True)
class Options:
    """How to write the package.

    `prefix` starts every exported symbol; `form` is "lib" (sources of a shared library) or "c" (a package for
    people: build file, readme, example).  `weights` is "incbin" (assembler file that includes weights.bin) or
    "array" (a C array, for toolchains without an assembler).
    """

    prefix: str = "qcomp"
    form: str = "lib"
    weights: str = "incbin"
    version: str = "0.1.0"
    islands: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class SourcePackage:
    """Generated sources.

    `files` maps relative paths to contents, in a fixed order; `units` lists those to compile; `metadata` is the JSON
    object that is embedded and appended to an artifact.
    """

    name: str
    target: Target
    files: Mapping[str, bytes]
    units: tuple[str, ...]
    metadata: Mapping[str, Any]
    plan: MemoryPlan

    def write(self, folder: Path) -> None:
        """Writes all files below an existing folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
