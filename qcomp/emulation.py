"""Artifacts of other machines run here, by the emulator that their target names."""

from __future__ import annotations

import math
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.codegen.toolchain import build_program, find_compiler
from qcomp.errors import QcompError
from qcomp.runtime.artifact import ArtifactInfo, TensorInfo, read_trailer
from qcomp.runtime.binding import Binding
from qcomp.runtime.sources import INCLUDE_DIR, RUN_FOREIGN
from qcomp.targets import Target
from qcomp.targets import target as target_named

Arrays = Mapping[str, NDArray[Any]]

#: Debian's packages with an emulator, and with the C library that programs in it need.
_PACKAGES = {
    "qemu-aarch64": "qemu-user libc6-arm64-cross", "qemu-arm": "qemu-user libc6-armhf-cross",
    "qemu-riscv64": "qemu-user libc6-riscv64-cross", "qemu-system-arm": "qemu-system-arm",
}  # fmt: skip


@dataclass(frozen=True)
class _Finished:
    """What became of an emulator: its exit status, the model's raw outputs, and what it said."""

    status: int
    outputs: bytes
    said: str


class EmulatedModel:
    """An artifact in its target's emulator; `run` and `run_all` are as `qcomp.load(...).run`.

    cpu: the emulator's name of a processor, in the place of the target's own.  QcompError where the target has no
    emulator, or it is not installed.
    """

    def __init__(self, path: str | Path, threads: int = 1, cpu: str | None = None) -> None:
        self.info: ArtifactInfo = read_trailer(path)
        self._path = Path(path)
        self._threads = threads
        self._command = emulator_command(target_named(self.info.target), cpu)
        self._binding = Binding(str(path), self.info.inputs, self.info.outputs)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self.info.inputs

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self.run_all([inputs])[0]

    def run_all(self, samples: Sequence[Arrays]) -> list[dict[str, NDArray[Any]]]:
        """The outputs for each of the samples, of one start of the emulator."""
        return self._results(self._start((), samples).outputs, len(samples))

    def traced(self, options: Sequence[str], samples: Sequence[Arrays]) -> str:
        """What the emulator, with these options of its own, says on standard error while it runs the samples."""
        return self._start(options, samples).said

    def _start(self, options: Sequence[str], samples: Sequence[Arrays]) -> _Finished:
        feeds = [self._binding.inputs(sample, ()) for sample in samples]
        given = b"".join(array.tobytes() for feed in feeds for array in feed)
        target = target_named(self.info.target)
        with tempfile.TemporaryDirectory(prefix="qcomp-") as name:
            folder = Path(name)
            run = self._on_board if target.bare_metal else self._in_process
            done = run(target, options, given, len(samples), folder)
        if done.status:
            lines = done.said.strip().splitlines()
            said = lines[-1] if lines else f"status {done.status}"
            raise QcompError(f"{self._command[0]} could not run it ({said})", where=str(self._path))
        return done

    def _in_process(
        self, target: Target, options: Sequence[str], given: bytes, samples: int, folder: Path
    ) -> _Finished:
        """A program for the machine's system loads the library."""
        sizes = [tensor.bytes for tensor in self.info.inputs], [tensor.bytes for tensor in self.info.outputs]
        program = folder / "run_foreign"
        build_program(find_compiler(), target, RUN_FOREIGN, program, [f"-I{INCLUDE_DIR}"])
        arguments = [self._path.absolute(), self._threads, samples, *sizes[0], "--", *sizes[1]]
        command = [*self._command, *options, str(program), *map(str, arguments)]
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        return _Finished(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def _on_board(self, target: Target, options: Sequence[str], given: bytes, samples: int, folder: Path) -> _Finished:
        """The image starts on the board; the emulator opens files for it."""
        (folder / "in.bin").write_bytes(struct.pack("<I", samples) + given)
        board = ("-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config", "enable=on,target=native")
        command = [*self._command, *board, *options, "-kernel", str(self._path.absolute())]
        done = subprocess.run(command, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        written = folder / "out.bin"
        content = written.read_bytes() if written.exists() else b""
        return _Finished(done.returncode, content, (done.stdout + done.stderr).decode(errors="replace"))

    def _results(self, content: bytes, samples: int) -> list[dict[str, NDArray[Any]]]:
        results, at = [], 0
        for _ in range(samples):
            found = {}
            for tensor in self.info.outputs:
                count = math.prod(tensor.shape)
                found[tensor.name] = np.frombuffer(content, tensor.dtype, count, at).reshape(tensor.shape).copy()
                at += tensor.bytes
            results.append(found)
        return results


def emulator_command(target: Target, cpu: str | None = None) -> list[str]:
    """The command that runs a program of the target here; QcompError, with what to install, where there is none."""
    if not target.emulator:
        raise QcompError("it names no emulator", where=f"target {target.name}", fix="run it on such a machine")
    command = list(target.emulator)
    packages = _PACKAGES.get(command[0], command[0])
    fix = f"install it (Debian: apt install {packages})"
    if shutil.which(command[0]) is None:
        raise QcompError(f"the emulator {command[0]} is not installed", where=f"target {target.name}", fix=fix)
    root = command[command.index("-L") + 1] if "-L" in command else None
    if root is not None and not os.path.isdir(root):
        what = f"the C library that {command[0]} needs is not in {root}"
        raise QcompError(what, where=f"target {target.name}", fix=fix)
    if cpu is not None:
        if "-cpu" not in command:
            raise QcompError("its emulator models one board, whose core is given", where=f"target {target.name}")
        command[command.index("-cpu") + 1] = cpu
    return command
