"""What a pass is: a frozen dataclass with a name, whose fields are its options, that rewrites a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, Field, dataclass, fields
from typing import ClassVar

from qcomp.ir.graph import Graph, Node, Value

_MAX_SWEEPS = 1000


@dataclass(frozen=True)
class Pass(ABC):
    """One rewrite of a graph.  Fields are options; the command line sets them as `name{option=value}`.

    A pass says what it may do to the results, and translation validation holds it to that: `exact` passes keep every
    output bit for bit; others keep it within `tolerance` times the largest magnitude of that output, or times 0.01
    where that is larger (`math.inf`: the pass changes values on purpose).  A pass that changes the names, types or
    number of the graph's inputs or outputs sets `keeps_interface` to False.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.0
    keeps_interface: ClassVar[bool] = True

    @abstractmethod
    def run(self, graph: Graph) -> Graph:
        """The rewritten graph; it may be the given one, modified in place."""

    def __str__(self) -> str:
        """The pass as a pipeline writes it, options that differ from their default included."""
        shown = [
            f"{f.name}={_option_text(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != _default(f)
        ]
        return f"{self.name}{{{','.join(shown)}}}" if shown else self.name


def _default(option: Field[object]) -> object:
    return option.default if option.default_factory is MISSING else option.default_factory()


def _option_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_option_text, value))}]"
    return str(value)


@dataclass(frozen=True)
class NodeRewrite(Pass):
    """A pass that looks at one node at a time, producers first, until no node changes any more.

    `ops` names the ops it wants to see (empty: all).  What its rewrites leave unused is removed.
    """

    ops: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def rewrite(self, graph: Graph, node: Node) -> bool:
        """Rewrites around `node` if it matches; True if the graph changed."""

    def run(self, graph: Graph) -> Graph:
        for _ in range(_MAX_SWEEPS):
            changed = False
            for node in graph.nodes:
                if (not self.ops or node.op.name in self.ops) and is_live(graph, node):
                    changed |= self.rewrite(graph, node)
            graph.prune()
            if not changed:
                return graph
        raise AssertionError(f"pass {self.name} does not come to an end")


@dataclass(frozen=True)
class PassGroup(Pass):
    """Passes in order, again and again until a round changes nothing, at most `max_rounds` times.

    `run_passes` verifies and validates after each of them, not only after the group.
    """

    max_rounds: int = 8

    @abstractmethod
    def steps(self) -> tuple[Pass, ...]:
        """The passes of one round."""

    def run(self, graph: Graph) -> Graph:
        from qcomp.passes.manager import run_passes

        return run_passes(graph, [self])


def is_live(graph: Graph, node: Node) -> bool:
    """Whether the node is (still) part of the graph."""
    result = node.outputs[0]
    return graph.has_value(result.name) and graph.value(result.name) is result


def may_become(graph: Graph, old: Value, new: Value) -> bool:
    """Whether `new` may take the place of `old`: outputs keep their names, so it must be free to be renamed."""
    if not graph.is_output(old):
        return True
    return new.producer is not None and not graph.is_output(new)
