"""Sample arrays, in memory or in .npz and .npy files (headers are read at once, values file by file)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.quantize.inputs import InputSpec, check_headers, fed, only_input, take

ARRAY_SUFFIXES = (".npz", ".npy")

Sample = dict[str, NDArray[Any]]
Header = tuple[tuple[int, ...], np.dtype[Any]]

# What zipfile and numpy raise for files that are cut off, garbled, or something else altogether.
_DAMAGED = (OSError, EOFError, ValueError, KeyError, SyntaxError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class Source(Protocol):
    """Part of a sample set, usually a file: how many samples it has, and the samples in order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...

    def place(self, i: int) -> str:
        """What a sample is called in errors."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """Arrays in memory (or mapped from a file), shapes and types already checked; `where` names them in errors."""

    where: str
    arrays: Mapping[str, NDArray[Any]]
    inputs: tuple[InputSpec, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        for i in range(self.count):
            yield {spec.name: take(self.where, spec, self.arrays[spec.name], i) for spec in self.inputs}

    def place(self, i: int) -> str:
        return f"{self.where}: sample {i}"


@dataclass(frozen=True)
class ListSource:
    """Samples in memory, each the arrays of one run."""

    where: str
    samples: Sequence[Mapping[str, NDArray[Any]]]
    inputs: tuple[InputSpec, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        for i, sample in enumerate(self.samples):
            yield {spec.name: fed(self.place(i), spec, sample) for spec in self.inputs}

    def place(self, i: int) -> str:
        return f"{self.where}: sample {i}"


@dataclass(frozen=True)
class FileSource:
    """An .npz or .npy file: an .npz is in memory while its samples are read, an .npy is mapped."""

    path: Path
    inputs: tuple[InputSpec, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        names = [spec.name for spec in self.inputs]
        try:
            if self.path.suffix.lower() == ".npy":
                arrays = {names[0]: np.load(self.path, mmap_mode="r", allow_pickle=False)}
            else:
                with np.load(self.path, allow_pickle=False) as file:
                    arrays = {name: file[name] for name in names}
        except _DAMAGED as error:
            raise _damaged(self.path, error) from error
        yield from ArraySource(str(self.path), arrays, self.inputs, self.count)

    def place(self, i: int) -> str:
        return f"{self.path}: sample {i}"


def open_array_file(path: Path, inputs: tuple[InputSpec, ...]) -> tuple[FileSource, tuple[str, ...]]:
    """A source for a file whose keys, shapes and types fit the inputs, and the keys that are no inputs."""
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as stream:
                header = _header(stream)
            headers = {only_input(str(path), inputs).name: header}
        else:
            headers = _npz_headers(path)
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    for key, (_, dtype) in headers.items():
        if dtype.hasobject and key in {spec.name for spec in inputs}:
            raise QcompError(
                "holds pickled Python objects, which are not loaded",
                where=f"{path}: key {key!r}",
                fix="save a plain numeric array",
            )
    count = check_headers(str(path), inputs, headers)
    unused = tuple(sorted(set(headers) - {spec.name for spec in inputs}))
    return FileSource(path, inputs, count), unused


def _npz_headers(path: Path) -> dict[str, Header]:
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as stream:
                    headers[member.removesuffix(".npy")] = _header(stream)
    return headers


def _header(stream: IO[bytes]) -> Header:
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy_format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"npy format {version[0]}.{version[1]}, which plain numeric arrays do not use")
    return shape, dtype


def _damaged(path: Path, error: BaseException) -> QcompError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return QcompError(f"cannot be read ({reason})", where=str(path), fix="write it again with numpy.savez")
