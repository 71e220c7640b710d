"""A model with fixed arrays: one call of C for a run, and next to nothing around it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from qcomp.errors import QcompError
from qcomp.runtime.binding import Array


class Prepared(Protocol):
    """What a run needs in this process: the C function, its arguments, and the memory that they point to."""

    run: Callable[..., int]
    arguments: tuple[int, ...]


class Bound:
    """Runs one model from and into the same arrays every time; `Model.bind` makes it.

    Fill `inputs` in place, call `run`, read `outputs`; both map names to arrays that stay the same. Calls that
    overlap wait for each other. It holds an arena of its own as long as it lives.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    _busy: threading.Lock
    _prepared: Prepared | None

    def __init__(
        self, inputs: dict[str, Array], outputs: dict[str, Array], prepare: Callable[[], Prepared], path: str
    ) -> None:
        self.inputs, self.outputs = MappingProxyType(inputs), MappingProxyType(outputs)
        self._prepare, self._path = prepare, path
        self._results = outputs
        self._starting = threading.Lock()
        self._pid = -1
        self._start()

    def run(self) -> dict[str, Array]:
        """One run; returns the arrays of `outputs`. Raises QcompError once the model is closed."""
        if self._pid != os.getpid():  # after a fork: the parent's threads, its lock's holder among them, are gone
            self._start()
        with self._busy:
            prepared = self._prepared
            if prepared is None:
                raise QcompError("the model is closed", where=self._path, fix="load it again")
            status = prepared.run(*prepared.arguments)
        if status != 0:
            raise QcompError(f"run returned {status}", where=self._path, fix="report this as a defect of qcomp")
        return self._results

    __call__ = run

    def hold(self) -> bool:
        """Keeps runs from starting; False if one is under way. `let_go` or `release` must follow."""
        return self._busy.acquire(blocking=False)

    def let_go(self) -> None:
        """Lets runs start again after `hold`."""
        self._busy.release()

    def release(self) -> None:
        """Gives up arena and model after `hold`; later runs raise."""
        self._prepared = None
        self._busy.release()

    def _start(self) -> None:
        """What this process needs; the process is noted last: who finds it noted finds all else in place."""
        with self._starting:
            if self._pid != os.getpid():
                self._busy = threading.Lock()
                self._prepared = self._prepare()
                self._pid = os.getpid()
