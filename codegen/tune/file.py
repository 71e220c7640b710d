"""Tuning files: JSON with sorted keys, of one target; what was measured on a machine is an input of the compiler.

    {"backend": "c", "cpu": "AMD EPYC", "format": 1, "layers": {"qconv2d x=i8[1,56,56,64] ...": {
     "kernel": "avx512_conv", "schedule": "vectors=4*2 rows=6*9+2", "speedup": 1.08}}, "target": "x86_64-avx512vnni"}"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from qcomp.errors import QcompError

FORMAT = 1
_KEYS = {"backend": str, "cpu": str, "format": int, "layers": dict, "target": str}
_AGAIN = "run `qcomp tune` again"


@dataclass(frozen=True)
class Choice:
    """How to compute a layer, and how many times faster than by default that was where it was measured."""

    kernel: str
    schedule: str
    speedup: float


@dataclass(frozen=True)
class Tuning:
    """Choices by the layer's name (`layer_name`), for the target of that name, among the kernels of that back end;
    `cpu` is for people."""

    target: str
    cpu: str = ""
    layers: Mapping[str, Choice] = field(default_factory=dict)
    backend: str = "c"

    def check(self, target: str, where: str = "tuning") -> None:
        """QcompError if it is for another target; `where` is what the error names as the place."""
        if target != self.target:
            raise QcompError(f"the tuning is for {self.target}, not for {target}", where=where, fix="tune for that")

    def check_backend(self, backend: str, where: str = "tuning") -> None:
        """QcompError if it was measured with another one: its kernels, and what they are faster than, are others."""
        if backend != self.backend:
            raise QcompError(
                f"the tuning was measured with the back end {self.backend}, not {backend}", where=where,
                fix=f"compile with --backend {self.backend}, or tune with --backend {backend}",
            )  # fmt: skip

    def check_levels(self, targets: Sequence[str], where: str = "tuning") -> None:
        """As `check`, for an artifact that holds code of these targets: one alone can be tuned."""
        if len(targets) > 1:
            raise QcompError(
                f"the tuning is for {self.target} alone, and this artifact is for {len(targets)} targets",
                where=where, fix=f"compile for target {self.target}",
            )  # fmt: skip
        self.check(targets[0], where)

    def merged(self, other: Tuning) -> Tuning:
        """With the other's choices too, which win; QcompError for another target, back end or CPU."""
        self.check(other.target)
        self.check_backend(other.backend)
        if self.cpu != other.cpu:
            raise QcompError(
                f"the tuning was measured on {self.cpu!r}, this machine is {other.cpu!r}",
                where="tuning", fix="begin a new file",
            )  # fmt: skip
        return replace(self, layers={**self.layers, **other.layers})

    def text(self) -> str:
        """The file's content; the same tuning gives the same text."""
        layers = {name: {**vars(choice), "speedup": round(choice.speedup, 3)} for name, choice in self.layers.items()}
        content = {"backend": self.backend, "cpu": self.cpu, "format": FORMAT, "layers": layers, "target": self.target}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def parse_tuning(text: str, where: str) -> Tuning:
    """The tuning that a file's content says; QcompError for one that is damaged or of another version."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise QcompError("this is no tuning file, or damaged", where=where, fix=_AGAIN) from None
    if not isinstance(content, dict) or "format" not in content:
        raise QcompError("this is no tuning file", where=where, fix="give what `qcomp tune` wrote")
    if content["format"] != FORMAT or content["format"] is True:
        raise QcompError(
            f"tuning files of format {content['format']!r} are not read, only {FORMAT}", where=where, fix=_AGAIN
        )
    content.setdefault("backend", "c")  # files of before there was another one
    for key, kind in _KEYS.items():
        if not isinstance(content.get(key), kind):
            raise QcompError(f"the tuning file is damaged at {key!r}", where=where, fix=_AGAIN)
    layers = {name: _choice(entry, name, where) for name, entry in content["layers"].items()}
    return Tuning(content["target"], content["cpu"], layers, content["backend"])


def _choice(entry: Any, name: str, where: str) -> Choice:
    if isinstance(entry, dict) and entry.keys() == {"kernel", "schedule", "speedup"}:
        kernel, schedule, speedup = entry["kernel"], entry["schedule"], entry["speedup"]
        texts = isinstance(kernel, str) and isinstance(schedule, str)
        if texts and type(speedup) in (int, float) and isfinite(speedup):
            return Choice(kernel, schedule, float(speedup))
    raise QcompError(f"the tuning file is damaged at {name!r}", where=where, fix=_AGAIN)


def read_tuning(path: Path) -> Tuning:
    """The tuning in a file; QcompError when it cannot be read or is no tuning."""
    try:
        return parse_tuning(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise QcompError(f"cannot be read: {error.strerror}", where=str(path), fix="check the path") from None
    except UnicodeDecodeError:
        raise QcompError("this is no tuning file", where=str(path), fix="give what `qcomp tune` wrote") from None
