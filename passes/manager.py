"""Runs passes: verifies after each (law 1), and on request proves each kept the results (law 2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph
from qcomp.ir.interpreter import run
from qcomp.ir.types import TensorType
from qcomp.ir.verify import verify as verify_graph
from qcomp.passes.base import Pass, PassGroup

Tensors = Mapping[str, np.ndarray]

# An output smaller than this is what is left where larger numbers cancel; its rounding is theirs.
_SMALLEST_SCALE = 1e-2


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: whether it changed the graph, how many nodes there were, and how long it took."""

    name: str
    changed: bool
    nodes_before: int
    nodes_after: int
    seconds: float


@dataclass(frozen=True)
class Checker:
    """Translation validation: the interpreter runs these inputs before and after every pass."""

    inputs: tuple[Tensors, ...]

    @staticmethod
    def random(graph: Graph, *, samples: int = 1, seed: int = 0) -> Checker:
        """Standard normal inputs for floats, uniform ones over the dtype for integers, 0/1 for bool."""
        rng = np.random.default_rng(seed)
        return Checker(
            tuple({v.name: random_array(v.type, rng) for v in graph.inputs} for _ in range(samples))
        )

    def evaluate(self, graph: Graph) -> list[dict[str, np.ndarray]]:
        return [run(graph, inputs) for inputs in self.inputs]


def random_array(type: TensorType, rng: np.random.Generator) -> np.ndarray:
    if type.dtype.is_float:
        return rng.standard_normal(type.shape).astype(type.dtype.numpy)
    if type.dtype.is_integer:
        low, high = type.dtype.limits
        return rng.integers(low, high, type.shape, dtype=type.dtype.numpy, endpoint=True)
    return rng.integers(0, 2, type.shape).astype(np.bool_)


def run_passes(
    graph: Graph,
    passes: Iterable[Pass],
    *,
    verify: bool = True,
    print_after: Callable[[Pass, Graph], None] | None = None,
    check: Checker | None = None,
    on_pass: Callable[[PassRecord], None] | None = None,
) -> Graph:
    """The graph after all passes, in order; the caller's graph stays as it is.

    `verify` checks the graph before the first and after every pass, and that the pass kept inputs and outputs as
    it says; of a group, after every member.  `check` runs the interpreter between passes.  `print_after` sees every
    intermediate graph, `on_pass` a record of every pass.  Raises QcompError that names the pass which failed, broke
    the graph or changed results.
    """
    graph = graph.clone()
    if verify:
        verify_graph(graph)
    runner = _Runner(verify, print_after, check, on_pass, check.evaluate(graph) if check is not None else [])
    for step in passes:
        graph = runner.run(step, graph)
    return graph


@dataclass
class _Runner:
    verify: bool
    print_after: Callable[[Pass, Graph], None] | None
    check: Checker | None
    on_pass: Callable[[PassRecord], None] | None
    expected: list[dict[str, np.ndarray]]

    def run(self, step: Pass, graph: Graph) -> Graph:
        if not isinstance(step, PassGroup):
            return self.run_one(step, graph)
        for _ in range(step.max_rounds):
            before = fingerprint(graph)
            for member in step.steps():
                graph = self.run(member, graph)
            if fingerprint(graph) == before:
                break
        return graph

    def run_one(self, step: Pass, graph: Graph) -> Graph:
        before, interface, count = fingerprint(graph), _interface(graph), len(graph)
        start = time.perf_counter()
        try:
            graph = step.run(graph)
            seconds = time.perf_counter() - start
            changed = fingerprint(graph) != before
            if self.verify:
                verify_graph(graph)
                if step.keeps_interface:
                    _check_interface(interface, _interface(graph))
            if self.check is not None and changed:
                self.expected = _compare(step, self.expected, self.check.evaluate(graph))
        except QcompError as error:
            raise QcompError(str(error), where=f"pass {step.name}") from error
        if self.on_pass is not None:
            self.on_pass(PassRecord(step.name, changed, count, len(graph), seconds))
        if self.print_after is not None:
            self.print_after(step, graph)
        return graph


class _Same:
    """Equal only to the same array; holding it keeps its identity from being reused."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.array is other.array


def fingerprint(graph: Graph) -> list[object]:
    """Compares equal for graphs of the same structure, names, attributes and (identical) constants."""
    marks: list[object] = [dict(graph.attrs), [v.name for v in graph.inputs], [v.name for v in graph.outputs]]
    marks.extend((v.name, v.type, _Same(v.array)) for v in graph.constants)
    for node in graph.nodes:
        operands = [None if v is None else v.name for v in node.inputs]
        marks.append((node.op.name, operands, dict(node.attrs), [(v.name, v.type) for v in node.outputs]))
    return marks


def _interface(graph: Graph) -> tuple[list[tuple[str, TensorType]], list[tuple[str, TensorType]]]:
    return [(v.name, v.type) for v in graph.inputs], [(v.name, v.type) for v in graph.outputs]


def _check_interface(before: object, after: object) -> None:
    if before != after:
        raise QcompError(f"inputs and outputs were {before} and became {after}")


def _compare(step: Pass, before: list[dict[str, np.ndarray]], after: list[dict[str, np.ndarray]]) -> list[
    dict[str, np.ndarray]
]:
    for sample, (old, new) in enumerate(zip(before, after, strict=True)):
        for name, array in old.items():
            if name in new:
                _compare_output(step, array, new[name], f"output %{name}, check input {sample}")
    return after


def _compare_output(step: Pass, old: np.ndarray, new: np.ndarray, where: str) -> None:
    if old.shape != new.shape or old.dtype != new.dtype or np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
        return
    a, b = old.astype(np.float64), new.astype(np.float64)
    if step.exact:
        raise QcompError(f"changed {int((a != b).sum())} of {a.size} elements; it must keep them all", where=where)
    with np.errstate(invalid="ignore"):
        error = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    largest = float(np.abs(a[np.isfinite(a)]).max(initial=_SMALLEST_SCALE))
    allowed = step.tolerance * largest if np.isfinite(step.tolerance) else np.inf
    if not (error <= allowed).all():
        raise QcompError(f"moved a result by {float(error.max()):.3g}; it may move {allowed:.3g}", where=where)
