from __future__ import annotations

from collections.abc import Callable

import pytest

from qcomp.ir import Graph, parse_graph, print_graph
from qcomp.passes.base import Pass
from qcomp.passes.manager import Checker, run_passes


def _rewritten(step: Pass, before: str, after: str | None, *, samples: int = 3) -> Graph:
    """Runs one pass on a graph's text with verification and translation validation; `after` None: unchanged."""
    graph = parse_graph(before)
    result = run_passes(graph, [step], check=Checker.random(graph, samples=samples))
    assert print_graph(result) == print_graph(parse_graph(before if after is None else after))
    return result


@pytest.fixture
def rewritten() -> Callable[..., Graph]:
    """`rewritten(step, before, after)`: the pass turns text before into text after and keeps the results."""
    return _rewritten
