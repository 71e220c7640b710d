"""From a source package to the artifact: one file that is complete, or not there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.image import link_image
from qcomp.codegen.toolchain import find_compiler, link_library, replace_file
from qcomp.errors import QcompError
from qcomp.runtime.artifact import write_trailer


def build_library(package: SourcePackage, out: Path, cc: str | None = None) -> Path:
    """Compiles and links the package and writes the artifact to `out`, which is replaced in one step: a shared
    library, or for a core without an operating system an image that starts on the target's board.

    Raises QcompError with the compiler's first error, or when `out` cannot be written; no partial file stays.
    """
    compiler = find_compiler(cc)
    out = Path(out)
    if not out.parent.is_dir():
        raise QcompError(f"folder {str(out.parent)!r} does not exist", where=str(out))
    link = link_image if package.target.bare_metal else link_library
    with tempfile.TemporaryDirectory(prefix="qcomp-") as name:
        folder = Path(name)
        package.write(folder)
        replace_file(out, write_trailer(link(package, folder, compiler), package.metadata))
    return out
