"""What tests of other machines share: a mark for those that need an emulator, and the comparison of bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from generated_graphs import same_bits

from qcomp.emulation import EmulatedModel, emulator_command
from qcomp.errors import QcompError
from qcomp.ir import Graph, run
from qcomp.targets import target


def emulated(name: str) -> pytest.MarkDecorator:
    """Skips a test, and says why, where the emulator of a target is not installed."""
    reason = ""
    try:
        emulator_command(target(name))
    except QcompError as error:
        reason = str(error)
    return pytest.mark.skipif(bool(reason), reason=reason or "the emulator is there")


def wrong(
    graph: Graph, feeds: Mapping[str, np.ndarray], path: Path, threads: int = 1, cpu: str | None = None
) -> list[str]:
    """Outputs of an artifact in its emulator that differ from the interpreter's in any bit."""
    found = EmulatedModel(path, threads, cpu).run(feeds)
    return [name for name, array in run(graph, feeds).items() if not same_bits(array, found[name])]
