"""Artifacts of other machines run here, by the emulator that their target names."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
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
        return self._results(self._start((), samples).stdout, len(samples))

    def traced(self, options: Sequence[str], samples: Sequence[Arrays]) -> str:
        """What the emulator, with these options of its own, says on standard error while it runs the samples."""
        return self._start(options, samples).stderr.decode(errors="replace")

    def _start(self, options: Sequence[str], samples: Sequence[Arrays]) -> subprocess.CompletedProcess[bytes]:
        feeds = [self._binding.inputs(sample, ()) for sample in samples]
        sizes = [_bytes(tensor) for tensor in self.info.inputs], [_bytes(tensor) for tensor in self.info.outputs]
        with tempfile.TemporaryDirectory(prefix="qcomp-") as name:
            program = Path(name) / "run_foreign"
            target = target_named(self.info.target)
            build_program(find_compiler(), target, RUN_FOREIGN, program, [f"-I{INCLUDE_DIR}"])
            arguments = [self._path.absolute(), self._threads, len(samples), *sizes[0], "--", *sizes[1]]
            done = subprocess.run(
                [*self._command, *options, str(program), *map(str, arguments)],
                input=b"".join(array.tobytes() for feed in feeds for array in feed), capture_output=True, check=False,
            )  # fmt: skip
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            said = lines[-1] if lines else f"status {done.returncode}"
            raise QcompError(f"{self._command[0]} could not run it ({said})", where=str(self._path))
        return done

    def _results(self, content: bytes, samples: int) -> list[dict[str, NDArray[Any]]]:
        results, at = [], 0
        for _ in range(samples):
            found = {}
            for tensor in self.info.outputs:
                count = math.prod(tensor.shape)
                found[tensor.name] = np.frombuffer(content, tensor.dtype, count, at).reshape(tensor.shape).copy()
                at += _bytes(tensor)
            results.append(found)
        return results


def _bytes(tensor: TensorInfo) -> int:
    return tensor.dtype.itemsize * math.prod(tensor.shape)


def emulator_command(target: Target, cpu: str | None = None) -> list[str]:
    """The command that runs a program of the target here; QcompError, with what to install, where there is none."""
    if not target.emulator:
        raise QcompError("it names no emulator", where=f"target {target.name}", fix="run it on such a machine")
    command = list(target.emulator)
    if shutil.which(command[0]) is None:
        raise QcompError(
            f"the emulator {command[0]} is not installed", where=f"target {target.name}",
            fix="install it (Debian: apt install qemu-user libc6-arm64-cross)",
        )  # fmt: skip
    root = command[command.index("-L") + 1] if "-L" in command else None
    if root is not None and not os.path.isdir(root):
        raise QcompError(
            f"the C library that {command[0]} needs is not in {root}", where=f"target {target.name}",
            fix="install it (Debian: apt install libc6-arm64-cross)",
        )  # fmt: skip
    if cpu is not None:
        command[command.index("-cpu") + 1] = cpu
    return command
