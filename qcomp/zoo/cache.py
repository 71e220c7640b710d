"""The zoo's folder on disk, and writes into it that are whole or not there at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qcomp.errors import QcompError


def root() -> Path:
    """The cache folder: ``$QCOMP_CACHE``, else ``~/.cache/qcomp/zoo``.  Created on first use."""
    folder = Path(os.environ.get("QCOMP_CACHE") or Path.home() / ".cache" / "qcomp" / "zoo").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QcompError(
            f"cannot create the zoo's cache folder: {error.strerror}",
            where=str(folder),
            fix="set QCOMP_CACHE to a folder that can be written",
        ) from error
    return folder.resolve()


def progress(message: str) -> None:
    """Tell the user what takes time; on standard error, so that ``--json`` output stays clean."""
    print(f"qcomp.zoo: {message.removeprefix('qcomp.zoo: ')}", file=sys.stderr, flush=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder inside the cache (same file system: a rename out of it is atomic), removed after."""
    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=root()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, final: Path) -> Path:
    """Move ``built`` (file or folder) to ``final``; where another process was first, keep that one's."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(built, final)
    except OSError:
        # A folder cannot replace a folder that has files: the other process finished the same work.
        if not final.is_dir():
            raise
    return final


def cached(relative: str, build: Callable[[Path], None]) -> Path:
    """The file ``relative`` in the cache, made by ``build(path)`` when it is missing.

    ``build`` writes to a path of its own; the file appears under its final name only when it is complete,
    so a crash or a second process never leaves half a file behind.  A change of ``build`` must change
    ``relative`` (cases put a version into it).
    """
    final = root() / relative
    if not final.exists():
        with scratch() as folder:
            built = folder / final.name
            build(built)
            publish(built, final)
    return final


def cached_arrays(
    relative: str, build: Callable[[], dict[str, npt.NDArray[np.generic]]]
) -> dict[str, npt.NDArray[np.generic]]:
    """Like :func:`cached` for named arrays, kept as ``.npz``."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **build())  # type: ignore[arg-type]

    with np.load(cached(relative, write)) as stored:
        return {name: stored[name] for name in stored.files}
