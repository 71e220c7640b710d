"""What int8 in each layer costs the model's output, measured on samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.graph import Graph
from qcomp.quantize.answers import ARGMAX, Answers
from qcomp.quantize.fidelity import Fidelity, SampleFidelity, compare
from qcomp.quantize.float_runs import outputs_on, runner, side_by_side
from qcomp.quantize.labels import Labels
from qcomp.quantize.layers import ALONE, WITHOUT, Study
from qcomp.quantize.onnxruntime_session import Arrays
from qcomp.quantize.suffixes import Key, Keys, Suffix, suffix

Variant = tuple[str, str]  # "alone", "weights" or "without", and the layer
Progress = Callable[[int, int], None]

# Values that are kept of the samples of one round, at most; what one sample needs is kept in any case.
KEPT_BYTES = 2 << 30


@dataclass(frozen=True)
class Sensitivity:
    """A layer: the model with only it in int8, and with everything but it in int8."""

    name: str
    alone: Fidelity
    without: Fidelity


@dataclass(frozen=True)
class Measured:
    """Sample by sample, in their order: every variant, everything in int8, and float32 itself."""

    variants: dict[Variant, list[SampleFidelity]]
    int8: list[SampleFidelity]
    float32: list[SampleFidelity]

    def merge(self, later: Measured) -> Measured:
        """With the samples of another, which come after these."""
        joined = {variant: [*found, *later.variants[variant]] for variant, found in self.variants.items()}
        return Measured(joined, [*self.int8, *later.int8], [*self.float32, *later.float32])


def measure(
    study: Study,
    variants: Sequence[Variant],
    samples: Sequence[Arrays],
    labels: Labels | None = None,
    answers: Answers = ARGMAX,
    threads: int = 1,
    progress: Progress | None = None,
) -> Measured:
    """Runs variants of the model on samples.

    Those of one kind differ from one graph, all float32 or all int8, in one layer: that graph runs once, its values
    are kept where a variant leaves it, and each variant computes what comes after.  `labels` and `answers`
    say what is right.
    """
    keys = Keys()
    result = Measured({variant: [] for variant in variants}, [], [])
    kinds = list(dict.fromkeys(kind for kind, _ in variants)) or [ALONE]
    plans = {}
    for kind in kinds:
        base = study.int8 if kind == WITHOUT else study.graph
        plans[kind] = _Plan(base, [(v, study.variant(*v)) for v in variants if v[0] == kind], keys)
    room = max(1, KEPT_BYTES // max(1, max(plan.kept_bytes for plan in plans.values())))
    rounds = [slice(at, at + room) for at in range(0, len(samples), room)]
    done, total = 0, len(rounds) * max(1, len(variants))
    for part in rounds:
        here = samples[part]
        reference = outputs_on(study.graph, here, threads)
        judge = Judge(reference, [None] * len(here) if labels is None else labels[part], answers)
        result.float32.extend(map(judge, range(len(here)), reference))
        result.int8.extend(map(judge, range(len(here)), outputs_on(study.int8, here, threads)))
        for plan in plans.values():
            for variant, found in plan.run(here, threads, judge):
                result.variants[variant].extend(found)
                done += 1
                if progress is not None:
                    progress(done, total)
    return result


@dataclass(frozen=True)
class Judge:
    """Compares the outputs for sample `i` of a round with the float32 ones, and with the label if there is one."""

    reference: Sequence[Sequence[NDArray[Any]]]
    labels: Sequence[NDArray[np.int64] | None]
    answers: Answers

    def __call__(self, i: int, outputs: Sequence[NDArray[Any]]) -> SampleFidelity:
        return compare(self.reference[i], outputs, self.labels[i], self.answers)


class _Plan:
    """Graphs that agree with one base up to a layer each: the base with what it has to keep, and the suffixes."""

    def __init__(self, base: Graph, variants: Sequence[tuple[Variant, Graph]], keys: Keys) -> None:
        own = keys.of(base)
        known = set(own.values())
        self.suffixes: list[tuple[Variant, Suffix]] = [
            (variant, suffix(graph, keys.of(graph), known)) for variant, graph in variants
        ]
        wanted = {key for _, cut in self.suffixes for key in cut.keys}
        self.kept = {value.name: key for value, key in own.items() if key in wanted}
        self.inputs = [value.name for value in base.inputs]
        self.base = base.clone()
        computed = [v for v in self.base.values if v.name in self.kept and v.producer is not None]
        self.base.outputs = computed
        self.base.prune()
        self.kept_bytes = sum(v.type.elements * v.dtype.numpy.itemsize for v in computed)

    def run(
        self, samples: Sequence[Arrays], threads: int, judge: Judge
    ) -> Iterator[tuple[Variant, list[SampleFidelity]]]:
        """Every variant with what is found of each sample."""
        names = [value.name for value in self.base.outputs]
        computed = outputs_on(self.base, samples, threads) if names else [[] for _ in samples]
        kept = [
            {self.kept[name]: array for name, array in zip(names, arrays, strict=True)}
            | {self.kept[name]: sample[name] for name in self.inputs if name in self.kept}
            for sample, arrays in zip(samples, computed, strict=True)
        ]
        for variant, cut in self.suffixes:
            run = _function(cut)
            yield variant, side_by_side(_Judged(run, judge, kept), range(len(samples)), threads)


@dataclass(frozen=True)
class _Judged:
    """What is found of sample `i` of a round."""

    run: Callable[[Mapping[Key, NDArray[Any]]], list[NDArray[Any]]]
    judge: Judge
    kept: Sequence[Mapping[Key, NDArray[Any]]]

    def __call__(self, i: int) -> SampleFidelity:
        return self.judge(i, self.run(self.kept[i]))


def _function(cut: Suffix) -> Callable[[Mapping[Key, NDArray[Any]]], list[NDArray[Any]]]:
    """From the known values of a sample to the outputs of the whole graph."""
    run = runner(cut.graph) if cut.graph.outputs else None
    names = [value.name for value in dict.fromkeys(cut.graph.outputs)]

    def function(values: Mapping[Key, NDArray[Any]]) -> list[NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        if run is not None:
            found.update(zip(names, run({name: values[key] for name, key in cut.inputs.items()}), strict=True))
        return [found[output] if isinstance(output, str) else values[output] for output in cut.outputs]

    return function


def sensitivities(study: Study, measured: Measured) -> list[Sensitivity]:
    """The layers in the order of the graph; a part of the layers where a part was measured."""
    names = dict.fromkeys(name for _, name in measured.variants)
    return [
        Sensitivity(
            layer.name,
            Fidelity.of(measured.variants[ALONE, layer.name]),
            Fidelity.of(measured.variants[WITHOUT, layer.name]),
        )
        for layer in study.layers
        if layer.name in names
    ]
