"""What the emitter returns: files in memory, and what is known about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from qcomp.codegen.c.render import identifier
from qcomp.codegen.plan import MemoryPlan
from qcomp.errors import QcompError
from qcomp.targets import Target

#: Names that the files of a package must not have: headers of the C library, other files of the package.
_TAKEN = frozenset(
    (
        *("main", "qcomp", "pool", "profile", "amx", "assert", "complex", "ctype", "errno", "fenv", "float"),
        *("immintrin", "inttypes", "limits", "locale", "math", "setjmp", "signal", "stdarg", "stdatomic", "stdbool"),
        *("stddef", "stdint", "stdio", "stdlib", "string", "tgmath", "threads", "time", "uchar", "wchar", "wctype"),
    )
)


@dataclass(frozen=True)
class Options:
    """How to write the package.

    `form` is "lib" (sources of a shared library) or "c" (a package for people: build file, readme, example).
    `prefix` starts every exported symbol; by default "qcomp" for a library, the model's name for a package.
    `weights` is "incbin" (an assembler file that includes the bytes) or "array" (a C array, for toolchains without
    such an assembler: the default of packages for the generic target).  `islands` goes into the metadata.
    """

    form: str = "lib"
    prefix: str = ""
    weights: str = ""
    islands: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name, known in (("form", ("lib", "c")), ("weights", ("", "incbin", "array"))):
            if getattr(self, name) not in known:
                raise QcompError(f"{name} {getattr(self, name)!r} is not one of {', '.join(filter(None, known))}")
        if self.prefix and self.prefix != identifier(self.prefix):
            raise QcompError(f"prefix {self.prefix!r} is no C identifier", fix="use letters, digits and underscores")

    def resolved(self, model: str, target: Target) -> Options:
        """The options with the defaults filled in."""
        name = identifier(model)
        own = f"{name}_model" if name.lower() in _TAKEN else name
        prefix = self.prefix or ("qcomp" if self.form == "lib" else own)
        by_array = self.form == "c" and (target.arch == "generic" or target.bare_metal)
        return replace(self, prefix=prefix, weights=self.weights or ("array" if by_array else "incbin"))


@dataclass(frozen=True)
class Tuned:
    """What a tuning covers: `layers` that have a choice of schedules, how many of them were found in it, and how many
    of these are computed otherwise than by default."""

    layers: int
    found: int
    changed: int


@dataclass(frozen=True)
class SourcePackage:
    """Generated sources.

    `files` maps relative paths to contents, in a fixed order; `units` lists those to compile, the weights last;
    `metadata` is the JSON object that is embedded.  `levels` are the targets that it holds code for, the best first
    and `target` last, where there are several: `machines` has the units that are not compiled for `target`, and
    `plan` is that of `target`.  `tuned` says what a tuning, if there was one, did.
    """

    name: str
    target: Target
    files: Mapping[str, bytes]
    units: tuple[str, ...]
    metadata: Mapping[str, Any]
    plan: MemoryPlan
    levels: tuple[Target, ...] = ()
    machines: Mapping[str, Target] = field(default_factory=dict)
    tuned: Tuned | None = None

    @property
    def arena_bytes(self) -> int:
        """Bytes of an arena that every level can work in."""
        return max((level["arena_bytes"] for level in self.metadata.get("levels", ())), default=self.plan.arena_bytes)

    def tensor_bytes(self, key: str) -> list[int]:
        """Bytes of each of the "inputs" or "outputs", which are the caller's."""
        return [math.prod(t["shape"]) * np.dtype(t["dtype"]).itemsize for t in self.metadata[key]]

    @property
    def ram_bytes(self) -> int:
        """The arena and the caller's inputs and outputs."""
        return self.arena_bytes + sum(self.tensor_bytes("inputs")) + sum(self.tensor_bytes("outputs"))

    def machine(self, unit: str) -> Target:
        """What a unit is compiled for."""
        return self.machines.get(unit, self.target)

    def write(self, folder: Path) -> None:
        """Writes all files below an existing folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
