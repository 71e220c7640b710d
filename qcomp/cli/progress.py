"""Progress of long work on standard error: bars where a person watches, elsewhere now and then a line."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


#: Seconds of silence after which a log gets a line.
SILENCE = 10.0


class Stages:
    """One bar for each stage of the work; call it with (stage, done, total).  A new stage ends the one before.

    Where standard error is no terminal, work that takes long says where it is every ten seconds."""

    def __init__(self, quiet: bool = False) -> None:
        self._progress: Progress | None = None
        self._stage = ""
        self._task: TaskID | None = None
        self._quiet = quiet
        self._start = self._said = time.monotonic()
        if quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> Stages:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, stage: str, done: int = 0, total: int = 1) -> None:
        if self._progress is None:
            if not self._quiet:
                self._log(stage, done, total)
            return
        if stage != self._stage:
            self._finish()
            self._stage, self._task = stage, self._progress.add_task(stage, total=total)
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)

    def _log(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said < SILENCE:
            return
        self._said = now
        count = f" {done} of {total}" if total > 1 else ""
        print(f"qcomp: {stage}{count}, {now - self._start:.0f} s", file=sys.stderr, flush=True)

    def _finish(self) -> None:
        if self._progress is not None and self._task is not None:
            total = next(t.total for t in self._progress.tasks if t.id == self._task)
            self._progress.update(self._task, completed=total or 1)
