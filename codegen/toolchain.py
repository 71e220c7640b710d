"""Compilers: from a source package to one shared library."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.elf_size import Sizes, object_sizes
from qcomp.errors import QcompError
from qcomp.runtime.sources import INCLUDE_DIR, SOURCES
from qcomp.targets import Target

#: What every generated file is compiled with.  No flag here may change a result: see the numeric contract.
NUMERIC_FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
#: Nothing unwinds through generated code.
SMALL_FLAGS = ("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-stack-protector")
KERNEL_FLAGS: tuple[str, ...] = (
    "-std=c11", "-O3", *NUMERIC_FLAGS, "-ffreestanding", "-fPIC", "-fvisibility=hidden", "-g0",
    *SMALL_FLAGS, "-Wall", "-Werror=implicit-function-declaration",
)  # fmt: skip
#: Of code without an operating system: at fixed addresses, and what is not called takes no flash.
_BARE_FLAGS = ("-fno-pic", "-fomit-frame-pointer", "-ffunction-sections", "-fdata-sections")
_RUNTIME_FLAGS: tuple[str, ...] = ("-std=c11", "-O2", "-fPIC", "-g0", *SMALL_FLAGS)
_PROGRAM_FLAGS: tuple[str, ...] = ("-std=c11", "-O2", "-g0", "-s")
_LINK_FLAGS = ("-shared", "-O2", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,--hash-style=gnu", "-s")
_PROCESSES = 2


@dataclass(frozen=True)
class Compiler:
    """A C compiler: the command that starts it, and its kind ("zig", "gcc", "clang") as targets name it."""

    command: tuple[str, ...]
    kind: str

    def flags(self, target: Target, *, link: bool = False) -> tuple[str, ...]:
        """Flags for the target's machine.  zig links without CPU flags: it would build its own runtime for them."""
        machine = target.compiler_flags(self.kind)
        if self.kind != "zig":
            return machine
        triple = ("-target", target.triple) if target.triple else ()
        return triple if link else (*triple, *machine)


def kernel_flags(target: Target) -> tuple[str, ...]:
    """What generated files of a target are compiled with, besides the flags of its machine."""
    if not target.bare_metal:
        return KERNEL_FLAGS
    return (*(flag for flag in KERNEL_FLAGS if flag != "-fPIC"), *_BARE_FLAGS)


def find_compiler(cc: str | None = None) -> Compiler:
    """The compiler that `cc` names: None for the ziglang package, "gcc", "clang" or a path to one of them.

    Raises QcompError when it is not there.
    """
    if cc in (None, "zig"):
        if importlib.util.find_spec("ziglang") is None:
            raise QcompError("no C compiler: package ziglang is not installed", fix="pip install ziglang, or give --cc")
        return Compiler((sys.executable, "-m", "ziglang", "cc"), "zig")
    assert cc is not None
    path = shutil.which(cc)
    if path is None:
        raise QcompError(f"C compiler {cc!r} is not there", fix="give --cc the path of gcc or clang, or leave it out")
    kind = "clang" if "clang" in Path(path).name or "clang" in run_tool([path, "--version"], Path(".")) else "gcc"
    return Compiler((path,), kind)


def measure_code(package: SourcePackage) -> Sizes:
    """Bytes that the package's code takes, without the weights: compiled with the ziglang package, not linked."""
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="qcomp-") as name:
        folder = Path(name)
        package.write(folder)
        units = [u for u in package.units if not Path(u).stem.endswith("_weights")]
        with ThreadPoolExecutor(_PROCESSES) as executor:
            objects = executor.map(lambda unit: _compile(package, unit, folder, compiler), units)
            return sum((object_sizes((folder / o).read_bytes()) for o in objects), Sizes(0, 0))


def _compile(package: SourcePackage, unit: str, folder: Path, compiler: Compiler) -> str:
    machine = package.machine(unit)
    return compile_unit(compiler, machine, folder, unit, kernel_flags(machine))


def compile_units(package: SourcePackage, folder: Path, compiler: Compiler) -> list[str]:
    """Compiles the package's units that lie in `folder`; their objects, in order."""
    with ThreadPoolExecutor(_PROCESSES) as executor:
        return list(executor.map(lambda unit: _compile(package, unit, folder, compiler), package.units))


def link_library(package: SourcePackage, folder: Path, compiler: Compiler) -> Path:
    """Compiles the sources that lie in `folder` there; the shared library, without trailer."""
    named = _objects(compiler, package.machine, folder, [(unit, KERNEL_FLAGS) for unit in package.units])
    # The weights first: what follows them in the read-only data needs no gap.
    weights = package.units[-1]
    ordered = [named[weights], *(named[unit] for unit in sorted(named) if unit != weights)]
    command = [*compiler.command, *compiler.flags(package.target, link=True), *_LINK_FLAGS, *ordered]
    run_tool([*command, "-o", "model.so", "-lpthread"], folder)
    return folder / "model.so"


def _objects(
    compiler: Compiler, machine: Callable[[str], Target], folder: Path, jobs: list[tuple[str, tuple[str, ...]]]
) -> dict[str, str]:
    """Compiles files that lie in `folder`, each with its flags and for the machine that `machine` gives for its name,
    and those of the runtime; objects by file."""
    for source in SOURCES:
        shutil.copyfile(source, folder / source.name)
    jobs = jobs + [(source.name, (*_RUNTIME_FLAGS, f"-I{INCLUDE_DIR}")) for source in SOURCES]
    # Files that take longest first.
    jobs.sort(key=lambda job: (-(folder / job[0]).stat().st_size if job[0].endswith(".c") else 0, job[0]))
    with ThreadPoolExecutor(_PROCESSES) as executor:
        objects = list(executor.map(lambda job: compile_unit(compiler, machine(job[0]), folder, *job), jobs))
    return dict(zip((job[0] for job in jobs), objects, strict=True))


def build_kernel_library(
    compiler: Compiler, target: Target, folder: Path, kernels: Sequence[str], driver: str
) -> Path:
    """A shared library of files in `folder`: kernels, what calls them, and the runtime; without a trailer."""
    jobs = [(unit, KERNEL_FLAGS) for unit in kernels] + [(driver, (*_RUNTIME_FLAGS, f"-I{INCLUDE_DIR}"))]
    objects = _objects(compiler, lambda _: target, folder, jobs)
    command = [*compiler.command, *compiler.flags(target, link=True), *_LINK_FLAGS, *sorted(objects.values())]
    run_tool([*command, "-o", "kernels.so", "-lpthread"], folder)
    return folder / "kernels.so"


def build_plain_library(compiler: Compiler, target: Target, source: Path, flags: Sequence[str]) -> Path:
    """A shared library of one file beside it, without the runtime."""
    compiled = compile_unit(compiler, target, source.parent, source.name, (*flags, "-fvisibility=default"))
    library = source.with_suffix(".so")
    command = [*compiler.command, *compiler.flags(target, link=True), "-shared", "-nostdlib", compiled]
    run_tool([*command, "-o", library.name], source.parent)
    return library


def build_program(compiler: Compiler, target: Target, source: Path, out: Path, flags: Sequence[str]) -> None:
    """A program of one file for the target's machine, with its C library."""
    machine = compiler.flags(target, link=True)
    run_tool([*compiler.command, *machine, *_PROGRAM_FLAGS, *flags, str(source), "-o", str(out), "-ldl"], out.parent)


def compile_unit(compiler: Compiler, target: Target, folder: Path, unit: str, flags: Sequence[str]) -> str:
    """Compiles one file that lies in `folder`; the name of the object beside it."""
    output = f"{Path(unit).stem}.o"
    machine = compiler.flags(target)
    if not unit.endswith(".c"):
        flags = ("-g0",)
    run_tool([*compiler.command, *machine, *flags, "-I.", "-c", unit, "-o", output], folder)
    return output


def run_tool(command: Sequence[str], folder: Path) -> str:
    """Runs a compiler in `folder`; what it printed. QcompError with its first error."""
    environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise QcompError(f"cannot start the C compiler: {error}", where=command[0]) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        message = lines[0].strip() if lines else f"exit status {done.returncode}"
        raise QcompError(f"the C compiler failed: {message}", where=Path(command[0]).name)
    if "-o" in command and not (folder / command[command.index("-o") + 1]).exists():
        raise QcompError("wrote no file", where=command[0], fix="give --cc the path of gcc or clang, or leave it out")
    return done.stdout


def replace_file(path: Path, content: bytes, mode: int = 0o777) -> None:
    """Writes the file in one step: complete, or as it was before; `mode` less what the process's mask takes away."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise QcompError(f"cannot be written: {error.strerror}", where=str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, mode & ~mask)
        os.replace(name, path)
    except OSError as error:
        raise QcompError(f"cannot be written: {error.strerror}", where=str(path)) from None
    finally:  # an interrupted run leaves nothing behind either
        Path(name).unlink(missing_ok=True)


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Writes files as one new folder; QcompError when it exists with something in it, or cannot be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QcompError("exists and is not an empty folder", where=str(folder), fix="give another -o")
    try:
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise QcompError(f"cannot be written: {error.strerror}", where=str(folder)) from None
    try:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        staging.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(staging, folder)
    except OSError as error:
        raise QcompError(f"cannot be written: {error.strerror}", where=str(folder)) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder
