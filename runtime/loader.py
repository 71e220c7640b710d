"""Loading an artifact and running it, with numpy and the standard library alone.

    with qcomp.load("model.so", threads=2) as model:
        scores = model.run({"image": x})["scores"]
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from qcomp.errors import QcompError
from qcomp.runtime.artifact import ArtifactInfo, StepInfo, TensorInfo, read_open_file, unreadable
from qcomp.runtime.binding import Array, Binding
from qcomp.runtime.bound import Bound
from qcomp.runtime.features import cpu_features, machine
from qcomp.runtime.library import Exec, Library


@dataclass(frozen=True)
class StepTime:
    """What one step took: the median over the runs, and its share (0 to 1) of the sum over all steps."""

    name: str
    op: str
    kernel: str
    milliseconds: float
    macs: int
    share: float


def load(path: str | os.PathLike[str], threads: int = 1, level: str | None = None) -> Model:
    """Opens the artifact at `path` to run on `threads` threads; 0 means one for each CPU this process may use.

    An artifact for several targets runs the code of the best one for this machine, or that of the one called `level`.
    Before a line of its code runs, every byte of the file is checked against its checksum, and the machine against
    what the code needs. Raises QcompError, one line, where either fails.
    """
    return Model(path, threads, level)


def best_level(info: ArtifactInfo) -> str:
    """The level that the features of this machine's CPU allow: what `load` takes, unless the system refuses it."""
    fitting = [level.name for level in info.levels if cpu_features().issuperset(level.isa)]
    return fitting[0] if fitting and info.machine == machine() else info.target


def check_machine(info: ArtifactInfo) -> None:
    """Raises QcompError if this machine cannot run the artifact, or the level of it, naming what it lacks."""
    if sys.platform != "linux":
        raise QcompError("built for Linux, this is another system", where=info.path, fix="use `--emit c` here")
    here = machine()
    if info.machine != here:
        raise QcompError(
            f"built for {info.machine}, this machine is {here}", where=info.path,
            fix="compile with another --target, or run it in an emulator (qcomp run --emulate)",
        )  # fmt: skip
    missing = [name for name in info.isa if name not in cpu_features()]
    if missing and info.levels:
        raise QcompError(
            f"level {info.target} needs CPU features that this machine lacks: {', '.join(missing)}",
            where=info.path, fix=f"name none, or {best_level(info)}",
        )  # fmt: skip
    if missing:
        raise QcompError(
            f"needs CPU features that this machine lacks: {', '.join(missing)}",
            where=info.path, fix="compile with `--target native` on this machine, or for an older CPU",
        )  # fmt: skip


class _Call:
    """What one run at a time needs for itself: an arena, pointer arrays and an executor."""

    def __init__(self, info: ArtifactInfo, library: Library, pool: int | None) -> None:
        align = max(64, library.model.arena_align)
        self.memory = np.empty(library.model.arena_bytes + align, np.uint8)
        self.arena = -(-_address(self.memory) // align) * align
        self.inputs = (ctypes.c_void_p * max(1, len(info.inputs)))()
        self.outputs = (ctypes.c_void_p * max(1, len(info.outputs)))()
        self.exec = Exec(pool, library.parallel_for if pool else None, None, None)
        self.run = library.run
        self.arguments = (*map(ctypes.addressof, (self.exec, self.inputs, self.outputs)), self.arena)

    def point(self, arrays: Sequence[Array], results: Sequence[Array]) -> None:
        """Where the next run reads its inputs and writes its outputs."""
        for i, array in enumerate(arrays):
            self.inputs[i] = _address(array)
        for i, array in enumerate(results):
            self.outputs[i] = _address(array)


class Model:
    """A loaded artifact. Any number of threads may call `run` at the same time.

    The arena is allocated here, once; calls that overlap in time get further ones, which are kept. The thread pool
    serves one call at a time: one that finds it taken runs in its own thread. After a fork the child makes itself a
    new pool on its first run. `info` is what holds for the level that runs, where the artifact has several.
    """

    info: ArtifactInfo
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    threads: int
    _idle: list[_Call]
    _calls: list[_Call]
    _pool: int | None
    _pid: int  # the process that the pool belongs to
    _starting: threading.Lock

    def __init__(self, path: str | os.PathLike[str], threads: int = 1, level: str | None = None) -> None:
        self._closed = True
        where = os.fspath(path)
        if not isinstance(threads, int) or threads < 0:
            raise QcompError(f"threads is {threads!r}", where=where, fix="give a positive number, or 0 for all CPUs")
        try:
            with open(where, "rb", buffering=0) as file:
                self.info = read_open_file(file, where)
                check_machine(self.info if level is None else self.info.at(level))
                self._library = Library(where)
                if _identity(os.stat(where)) != _identity(os.fstat(file.fileno())):
                    raise QcompError("replaced while it was being loaded", where=where, fix="load it again")
        except OSError as error:
            raise unreadable(where, error) from error
        self.inputs, self.outputs = self.info.inputs, self.info.outputs
        self.threads = threads or len(os.sched_getaffinity(0))
        self._binding = Binding(self.info.model or where, self.inputs, self.outputs)
        self._choose(level)
        self._check_library()
        self._starting = threading.Lock()
        self._bound: weakref.WeakSet[Bound] = weakref.WeakSet()
        self._start()
        self._closed = False

    @property
    def name(self) -> str:
        """The model's name, as its source file had it."""
        return self.info.model

    def run(
        self, inputs: Mapping[str, Array] | Array, *more: Array, out: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Runs the model once and returns its outputs by name.

        `inputs` maps names to arrays; or the arrays are given one by one, in the order of `self.inputs`. Each has
        exactly the shape and dtype of its descriptor. A C-contiguous one is used in place, others are copied.
        `out` may give arrays to write outputs into (C-contiguous, writable, apart from all other arrays); they are
        returned in the place of new ones.

        Raises QcompError for missing, unknown or unfit arrays, and on a closed model.
        """
        arrays = self._binding.inputs(inputs, more)
        results = self._binding.outputs(out, arrays)
        call = self._borrow()
        try:
            self._execute(call, arrays, results)
        finally:
            self._idle.append(call)
        return self._binding.named_outputs(results)

    def bind(self, inputs: Mapping[str, Array] | None = None, outputs: Mapping[str, Array] | None = None) -> Bound:
        """The model with fixed arrays, for the shortest time from call to result.

        `inputs` and `outputs` map names to C-contiguous arrays of exactly the descriptors' shapes and dtypes; for
        those that are not given it makes new ones, inputs of zeros. Raises QcompError for arrays that do not fit.
        """
        arrays = self._binding.fixed_inputs(inputs)
        results = self._binding.outputs(outputs, arrays)

        def prepare() -> _Call:
            if self._closed:
                raise self._is_closed()
            self._restart_after_fork()
            call = _Call(self.info, self._library, self._pool)
            call.point(arrays, results)
            return call

        named = self._binding.named_inputs(arrays), self._binding.named_outputs(results)
        bound = Bound(*named, prepare, self.info.path)
        self._bound.add(bound)
        if self._closed:  # by another thread, which may not have seen this one
            raise self._is_closed()
        return bound

    def profile(self, inputs: Mapping[str, Array] | Array, *more: Array, runs: int = 10) -> list[StepTime]:
        """The time of every step, in order: the median over `runs` runs, after one that warms up.

        The clock is read in C around each step. Raises QcompError as `run` does.
        """
        if runs < 1:
            raise QcompError(f"runs is {runs}", where=self.info.path, fix="give a positive number")
        arrays = self._binding.inputs(inputs, more)
        results = self._binding.outputs(None, arrays)
        stamps = np.zeros((runs + 1, len(self.info.steps), 2), np.uint64)
        call = self._borrow()
        try:
            call.exec.on_step = self._library.profile_step
            for run in range(runs + 1):
                call.exec.profiler = _address(stamps[run])
                self._execute(call, arrays, results)
        finally:
            call.exec.on_step = call.exec.profiler = None
            self._idle.append(call)
        times = np.median(stamps[1:, :, 1] - stamps[1:, :, 0], axis=0) / 1e6
        whole = float(times.sum()) or 1.0
        return [_step_time(step, float(t), whole) for step, t in zip(self.info.steps, times, strict=True)]

    def close(self) -> None:
        """Ends the threads and frees the memory and the code. Closing twice is allowed.

        Raises QcompError if another thread is in a call.
        """
        if self._closed:
            return
        self._closed = True  # before the look at who is running: `_borrow` looks in the opposite order
        if self._pid == os.getpid() and len(self._idle) != len(self._calls):
            self._closed = False
            raise self._is_running()
        self._release_bound()
        self._idle, self._calls = [], []
        self._library.pool_destroy(self._pool)
        del self._library

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{t.name}: {t.dtype}{list(t.shape)}" for t in self.inputs)
        outputs = ", ".join(f"{t.name}: {t.dtype}{list(t.shape)}" for t in self.outputs)
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"<Model {self.name} ({inputs}) -> ({outputs}), {threads}>"

    def _choose(self, level: str | None) -> None:
        """The level that was asked for, or the one that the library's own look at the CPU has chosen."""
        if [told.name for told in self.info.levels] != list(self._library.levels):
            raise self._disagree()
        if not self.info.levels:
            return
        if level is not None:
            self._library.take(level)
        if not self._library.level:
            raise self._disagree()
        self.info = self.info.at(self._library.level)

    def _check_library(self) -> None:
        """The library and its metadata must tell the same story, or pointers would go astray."""
        told = (len(self.inputs), len(self.outputs), len(self.info.steps), self.info.arena_bytes)
        model = self._library.model
        if told != (model.inputs, model.outputs, model.steps, model.arena_bytes):
            raise self._disagree()
        if any(name.startswith("amx") for name in self.info.isa) and self._library.enable_amx() != 0:
            raise QcompError(
                "the system refuses the AMX registers", where=self.info.path, fix="compile for a target without AMX"
            )

    def _start(self) -> None:
        """Makes the pool and the first arena of this process.

        The process is noted last: who finds it noted finds all else in place.
        """
        self._pool = None
        if self.threads > 1:
            self._pool = self._library.pool_create(self.threads)
        self._calls = [_Call(self.info, self._library, self._pool)]
        self._idle = list(self._calls)
        self._pid = os.getpid()

    def _borrow(self) -> _Call:
        """An idle call. List append and pop are atomic: only a first run after a fork takes a lock."""
        if not self._closed:
            self._restart_after_fork()
        try:
            call = self._idle.pop()
        except IndexError:
            if self._closed:
                raise self._is_closed() from None
            call = _Call(self.info, self._library, self._pool)
            self._calls.append(call)
        if self._closed:
            self._idle.append(call)
            raise self._is_closed()
        return call

    def _restart_after_fork(self) -> None:
        if self._pid != os.getpid():
            with self._starting:
                if self._pid != os.getpid():
                    self._library.pool_destroy(self._pool)
                    self._start()

    def _release_bound(self) -> None:
        """Takes the library from all bound forms, or from none: raises QcompError if one is running."""
        held: list[Bound] = []
        for bound in list(self._bound):
            if bound.hold():
                held.append(bound)
            elif self._pid == os.getpid():  # else the holder is a thread of the parent
                for other in held:
                    other.let_go()
                self._closed = False
                raise self._is_running()
        for bound in held:
            bound.release()

    def _disagree(self) -> QcompError:
        return QcompError("its code and its metadata disagree", where=self.info.path, fix="compile the model again")

    def _is_running(self) -> QcompError:
        return QcompError("closed while it is running", where=self.info.path, fix="wait for the other threads")

    def _is_closed(self) -> QcompError:
        return QcompError("the model is closed", where=self.info.path, fix="load it again")

    def _execute(self, call: _Call, arrays: Sequence[Array], results: Sequence[Array]) -> None:
        call.point(arrays, results)
        status = self._library.run(*call.arguments)
        if status != 0:
            raise QcompError(f"run returned {status}", where=self.info.path, fix="report this as a defect of qcomp")


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _step_time(step: StepInfo, milliseconds: float, whole: float) -> StepTime:
    return StepTime(step.name, step.op, step.kernel, milliseconds, step.macs, milliseconds / whole)
