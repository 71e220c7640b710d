"""The artifact file: an ELF shared library with a checksum appended, and its metadata if the ELF lacks it.

    ELF | metadata (JSON, UTF-8), unless the ELF part holds the same bytes | footer (64 bytes, little-endian)

    footer:  0  magic "QCOMPART"      8  u32 format       12  u32 where the metadata is in the ELF, 0: after it
            16  u64 length of ELF    24  u64 length of metadata
            32  16-byte checksum of everything before it, these first 32 bytes of the footer included
            48  16 zero bytes

A dynamic linker does not look past the ELF part, so the file is an ordinary library to everybody else.

The checksum is defined in qcomp.runtime.checksum.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from qcomp.errors import QcompError
from qcomp.runtime.checksum import Checksum
from qcomp.runtime.metadata import metadata_text, parse_metadata

FORMAT = 2  # 1: one level
MAGIC = b"QCOMPART"
FOOTER_BYTES = 64

_FOOTER = struct.Struct("<8sIIQQ16s16x")
_CHECKED_FOOTER_BYTES = 32
_ZEROS_AT = 48

_ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}

# Metadata may use numpy's names or the intermediate representation's.
_DTYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "i64": "int64", "u64": "uint64", "i32": "int32",
    "u32": "uint32", "i16": "int16", "u16": "uint16", "i8": "int8", "u8": "uint8",
}  # fmt: skip
_NUMPY_NAMES = frozenset(_DTYPES.values()) | {"bool"}

T = TypeVar("T")


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model. `scale` and `zero_point` are empty for a tensor that is not quantized."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class StepInfo:
    """One step of a model, in the order of execution. `macs` counts multiply-accumulates, `bytes_moved` the bytes
    of operands and results."""

    name: str
    op: str
    kernel: str
    macs: int = 0
    shape: tuple[int, ...] = ()
    bytes_moved: int = 0
    precision: str = ""


@dataclass(frozen=True)
class LevelInfo:
    """The code for one target in an artifact that has several: which features it needs, its steps and its arena."""

    name: str
    isa: tuple[str, ...]
    steps: tuple[StepInfo, ...]
    arena_bytes: int
    metadata: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class ArtifactInfo:
    """What an artifact says about itself. `metadata` is the whole JSON object that the other fields come from.

    Where it has code for several targets, `levels` lists them, the best first; `target`, `isa`, `steps` and
    `arena_bytes` are those of the last one, which every machine that can load the file can run, or of the one that `at`
    was asked for.
    """

    path: str
    format: int
    machine: str
    elf_bytes: int
    checksum: str
    model: str
    target: str
    isa: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    steps: tuple[StepInfo, ...]
    arena_bytes: int
    weights_bytes: int
    metadata: Mapping[str, Any] = field(repr=False)
    levels: tuple[LevelInfo, ...] = field(default=(), repr=False)

    def at(self, name: str) -> ArtifactInfo:
        """What holds for one level; an artifact of one target has that alone. QcompError for any other name."""
        if not self.levels and name == self.target:
            return self
        for level in self.levels:
            if level.name == name:
                return replace(
                    self, target=name, isa=level.isa, steps=level.steps, arena_bytes=level.arena_bytes,
                    metadata={**self.metadata, **level.metadata},
                )  # fmt: skip
        there = ", ".join(level.name for level in self.levels) or self.target
        raise QcompError(f"it has no level {name!r}", where=self.path, fix=f"use {there}, or name none")


def write_trailer(elf: bytes | str | os.PathLike[str], metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a whole artifact: the given ELF library (its bytes, or the path to read them from), the metadata
    as JSON where the library does not hold just that, and the footer.  The same arguments give the same bytes.

    Raises QcompError if `elf` is not an ELF library or the metadata lacks what the loader needs.
    """
    if isinstance(elf, bytes):
        code, where = elf, "<bytes>"
    else:
        where = os.fspath(elf)
        with open(where, "rb") as file:
            code = file.read()
    text = metadata_text(metadata)
    found = code.find(text)
    place = found if 0 < found < 1 << 32 else 0
    appended = b"" if place else text
    version = FORMAT if metadata.get("levels") else 1
    head = struct.pack("<8sIIQQ", MAGIC, version, place, len(code), len(text))
    state = Checksum()
    for piece in (code, appended, head):
        state.update(piece)
    digest = state.digest()
    _describe(where, version, _elf_machine(where, code[:20]), len(code), digest, parse_metadata(text))
    return b"".join((code, appended, head, digest, bytes(FOOTER_BYTES - _ZEROS_AT)))


def read_trailer(path: str | os.PathLike[str]) -> ArtifactInfo:
    """Reads an artifact's metadata after checking every byte of the file; runs none of its code.

    Raises QcompError, one line each, if the file cannot be read, is not an artifact, is truncated or damaged, or was
    made by a newer qcomp.
    """
    where = os.fspath(path)
    try:
        with open(where, "rb", buffering=0) as file:
            return read_open_file(file, where)
    except OSError as error:
        raise unreadable(where, error) from error


def read_open_file(file: io.FileIO, where: str) -> ArtifactInfo:
    """`read_trailer` on a file that is already open for reading; `where` names it in errors."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(20) or b""
    if size < FOOTER_BYTES:
        raise _not_an_artifact(where, start)
    file.seek(size - FOOTER_BYTES)
    footer = file.read(FOOTER_BYTES) or b""
    magic, version, place, elf_bytes, text_bytes, digest = _FOOTER.unpack(footer)
    if magic != MAGIC:
        raise _not_an_artifact(where, start)
    if version > FORMAT:
        raise QcompError(
            f"artifact format {version} is newer than format {FORMAT}, which this qcomp reads",
            where=where, fix="upgrade qcomp or compile the model with this version",
        )  # fmt: skip
    checked = size - FOOTER_BYTES
    lengths = elf_bytes == checked and place + text_bytes <= checked if place else elf_bytes + text_bytes == checked
    if version < 1 or not lengths or any(footer[_ZEROS_AT:]):
        raise _damaged(where)

    state = Checksum()
    file.seek(0)
    state.update_from(file, checked)
    state.update(footer[:_CHECKED_FOOTER_BYTES])
    if state.digest() != digest:
        raise _damaged(where)
    file.seek(place or elf_bytes)
    text = file.read(text_bytes) or b""
    try:
        metadata = parse_metadata(text)
    except ValueError as error:
        raise QcompError(f"metadata is malformed: {error}", where=where, fix="compile the model again") from error
    return _describe(where, version, _elf_machine(where, start), elf_bytes, digest, metadata)


def unreadable(where: str, error: OSError) -> QcompError:
    return QcompError(f"cannot be read: {error.strerror}", where=where, fix="give the path of an artifact")


def _not_an_artifact(where: str, start: bytes) -> QcompError:
    if start.startswith(b"\x7fELF"):
        return QcompError(
            "a shared library without qcomp's trailer: not made by qcomp, stripped or truncated",
            where=where, fix="give an artifact as `qcomp compile` wrote it",
        )  # fmt: skip
    return QcompError("not a qcomp artifact", where=where, fix="give a file that `qcomp compile` wrote")


def _damaged(where: str) -> QcompError:
    return QcompError(
        "the artifact is damaged: its contents do not match its checksum",
        where=where, fix="copy it again or compile the model again",
    )  # fmt: skip


def _elf_machine(where: str, start: bytes) -> str:
    if len(start) < 20 or not start.startswith(b"\x7fELF"):
        raise QcompError("not an ELF shared library", where=where, fix="give a file that `qcomp compile` wrote")
    number = int.from_bytes(start[18:20], "little" if start[5] == 1 else "big")
    return _ELF_MACHINES.get(number, f"ELF machine {number}")


def _describe(
    where: str, version: int, machine: str, elf_bytes: int, digest: bytes, metadata: object
) -> ArtifactInfo:
    try:
        whole = _object(metadata)
        return ArtifactInfo(
            path=where,
            format=version,
            machine=machine,
            elf_bytes=elf_bytes,
            checksum=digest.hex(),
            model=str(whole.get("model", "")),
            target=str(whole.get("target", "")),
            isa=_each(whole, "isa", str),
            inputs=_each(whole, "inputs", _tensor),
            outputs=_each(whole, "outputs", _tensor),
            steps=_each(whole, "steps", _step),
            arena_bytes=int(whole["arena_bytes"]),
            weights_bytes=int(whole.get("weights_bytes", 0)),
            metadata=whole,
            levels=_levels(whole),
        )
    except KeyError as error:
        raise QcompError(f"metadata lacks {error}", where=where, fix="compile the model again") from error
    except (TypeError, ValueError) as error:
        raise QcompError(f"metadata is malformed: {error}", where=where, fix="compile the model again") from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return value


def _each(whole: dict[str, Any], key: str, parse: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(whole[key], list | tuple):
        raise TypeError(f"{key} is not a list")
    return tuple(parse(item) for item in whole[key])


def _levels(whole: dict[str, Any]) -> tuple[LevelInfo, ...]:
    levels = _each(whole, "levels", _level) if "levels" in whole else ()
    if len({level.name for level in levels}) != len(levels):
        raise ValueError("two levels have one name")
    if levels and levels[-1].name != whole.get("target"):
        raise ValueError("the last level is not the artifact's target")
    return levels


def _level(value: object) -> LevelInfo:
    item = _object(value)
    return LevelInfo(
        name=str(item["target"]),
        isa=_each(item, "isa", str),
        steps=_each(item, "steps", _step),
        arena_bytes=int(item["arena_bytes"]),
        metadata=item,
    )


def _tensor(value: object) -> TensorInfo:
    item = _object(value)
    name = _DTYPES.get(item["dtype"], item["dtype"])
    if name not in _NUMPY_NAMES:
        raise ValueError(f"unknown dtype {name!r}")
    quantization = item.get("quantization") or {}
    return TensorInfo(
        name=str(item["name"]),
        dtype=np.dtype(name),
        shape=tuple(int(size) for size in item["shape"]),
        scale=tuple(float(s) for s in _as_list(quantization.get("scale", []))),
        zero_point=tuple(int(z) for z in _as_list(quantization.get("zero_point", []))),
    )


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _step(value: object) -> StepInfo:
    item = _object(value)
    return StepInfo(
        name=str(item["name"]),
        op=str(item["op"]),
        kernel=str(item["kernel"]),
        macs=int(item.get("macs", 0)),
        shape=tuple(int(size) for size in item.get("shape", ())),
        bytes_moved=int(item.get("bytes_moved", 0)),
        precision=str(item.get("precision", "")),
    )
