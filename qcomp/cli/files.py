"""Files that commands read and write.  An output is there complete, or it is not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from qcomp.errors import QcompError

if TYPE_CHECKING:
    import numpy as np

    from qcomp.ir.graph import Graph


def check_input(path: Path) -> None:
    """QcompError unless there is a file to read."""
    if path.is_dir():
        raise QcompError("this is a folder", where=str(path), fix="give a file")
    if not path.exists():
        raise QcompError("no such file", where=str(path), fix="check the path")


def check_output(path: Path, *sources: Path) -> None:
    """QcompError if a file cannot be written there, before hours of work go into it."""
    if not path.parent.is_dir():
        raise QcompError(f"the folder {str(path.parent)!r} does not exist", where=str(path), fix="create it first")
    if path.is_dir():
        raise QcompError("this is a folder", where=str(path), fix="give the path of a file to write")
    _check_writable(path.parent, path)
    _check_not_a_source(path, *sources)


def check_output_folder(path: Path) -> None:
    """QcompError if a new folder cannot be made there."""
    if path.exists() and not path.is_dir():
        raise QcompError("this is a file", where=str(path), fix="give the path of a new folder")
    if path.is_dir() and any(path.iterdir()):
        raise QcompError("the folder is not empty", where=str(path), fix="give the path of a new folder")
    if not path.absolute().parent.is_dir():
        raise QcompError(f"the folder {str(path.parent)!r} does not exist", where=str(path), fix="create it first")
    _check_writable(path.absolute().parent, path)


def _check_writable(folder: Path, path: Path) -> None:
    """QcompError unless files can be made in the folder: permissions alone do not tell."""
    try:
        handle, probe = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise QcompError(
            f"the folder cannot be written to: {error.strerror}", where=str(path), fix="choose another output path"
        ) from None


def check_outputs(outputs: Mapping[str, Path | None], sources: Iterable[Path | None], folder: str = "") -> None:
    """QcompError if what a command writes, by its option (None: not given), cannot be written, or would replace what
    it reads (`sources`) or another output.  `folder`: the option of the one that is a folder to be made."""
    given = {option: path for option, path in outputs.items() if path is not None}
    read = [source for source in sources if source is not None and source.exists()]
    seen: dict[Path, str] = {}
    for option, path in given.items():
        if option == folder:
            check_output_folder(path)
        else:
            check_output(path, *read)
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise QcompError(
                f"{other} and {option} would replace each other", where=str(path), fix="choose another output path"
            )


def _check_not_a_source(path: Path, *sources: Path) -> None:
    """QcompError if writing `path` would replace what the command reads."""
    if path.exists() and any(path.samefile(read) for source in sources for read in _files_read(source, path)):
        raise QcompError("the output would replace the input", where=str(path), fix="choose another output path")


def _files_read(source: Path, path: Path) -> Iterator[Path]:
    """What is read for a source, as far as it might be `path`: itself, samples in a folder, and a model's weights
    beside it."""
    if not source.exists():
        return
    yield source
    if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
        from qcomp.quantize.sample_images import IMAGE_SUFFIXES
        from qcomp.quantize.sample_sources import ARRAY_SUFFIXES

        if path.suffix.lower() in (*ARRAY_SUFFIXES, *IMAGE_SUFFIXES):
            yield path
    elif source.suffix == ".onnx":
        yield from filter(Path.exists, _weight_files(source))


def _weight_files(model: Path) -> set[Path]:
    """The files beside an ONNX model that hold its weights (ONNX calls them external data); none if it is broken."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        stored = onnx.load(model, load_external_data=False).graph.initializer
    except (DecodeError, OSError):
        return set()
    return {model.parent / e.value for c in stored for e in c.external_data if e.key == "location"}


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file in one step: `write` fills a temporary one next to it, which then takes its place."""
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise QcompError(f"cannot be written: {error.strerror}", where=str(path), fix="choose another path") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def read_graph(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The graph of a .qir text or an ONNX model; errors name the file."""
    check_input(path)
    try:
        if path.suffix == ".qir":
            return _read_text(path, shapes)
        from qcomp.compiler import import_model

        return import_model(path, shapes)
    except QcompError as error:
        if str(error).startswith(str(path)):
            raise
        raise QcompError(str(error), where=str(path)) from error


def batch_notes(graph: Graph) -> list[str]:
    """Says so if the model leaves its batch dimension open and `read_graph` had to choose it."""
    inputs = graph.attrs.get("batch_set_to_1")
    if not isinstance(inputs, tuple):
        return []
    return [f"the open batch dimension was set to 1 (--shape sets another): {', '.join(map(str, inputs))}"]


def model_bytes(path: Path) -> int:
    """Size of a model's file, with the files beside it that hold its weights (ONNX calls them external data)."""
    files = {path} if path.suffix == ".qir" else {path, *_weight_files(path)}
    return sum(file.stat().st_size for file in files)


def _read_text(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    from qcomp.ir.text import parse_graph
    from qcomp.ir.verify import verify

    if shapes:
        raise QcompError("the shapes of a .qir file are fixed", where=str(path), fix="leave out --shape")
    try:
        graph = parse_graph(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise QcompError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise QcompError("this is no text", where=str(path), fix="give a .qir text or an .onnx model") from None
    verify(graph)
    return graph


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays by input name from an .npz, or from an .npy for the only input."""
    import zipfile
    import zlib

    import numpy as np

    check_input(path)
    # What zipfile and numpy raise for files that are cut off, garbled, or something else altogether.
    damaged = (OSError, EOFError, ValueError, KeyError, SyntaxError, NotImplementedError)
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            if len(names) != 1:
                raise QcompError(
                    f"one array without a name, but the model has {len(names)} inputs",
                    where=str(path), fix=f"give an .npz with the keys {', '.join(names)}",
                )  # fmt: skip
            return {names[0]: found}
        with found:
            return {key: found[key] for key in found.files}
    except (*damaged, zipfile.BadZipFile, zlib.error) as error:
        pickled = "object arrays" in str(error).lower()
        reason = "it holds pickled Python objects" if pickled else "it is no .npz or .npy file, or damaged"
        raise QcompError(f"cannot be read: {reason}", where=str(path), fix="write it with numpy.savez") from None
