"""MetaSchedule as what looks for tilings: TVM's search over this back end's own space, with its own builder, timer and
model of costs.

A point of the space is the number of a tiling; the search strategy proposes some that the model of costs thinks well of
and some at random, none twice, and what was measured teaches the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from qcomp.codegen.c.kernel import Measure
from qcomp.codegen.tvm.adapter import guarded, tvm
from qcomp.codegen.tvm.tiling import Tiling

_BATCH = 8
_SEED = 1
_KEY = "qcomp.tiling"
_UNUSED = "tvm.s_tir.tensor_intrin"
#: From so many measurements on, the model of costs follows them.
_FEW = 6


def search(tilings: Sequence[Tiling], predicted: Sequence[float], most: int, measure: Measure) -> list[Tiling]:
    """Up to `most` of the tilings, measured, the fastest first; predicted: their expected cycles."""
    with guarded("search for schedules"):
        return _searched(tilings, predicted, most, measure)


def _searched(tilings: Sequence[Tiling], predicted: Sequence[float], most: int, measure: Measure) -> list[Tiling]:
    package = tvm()
    from tvm.s_tir import meta_schedule as ms

    model = _costs(tilings, predicted)
    with _without_shipped_intrinsics():
        context = ms.TuneContext(
            _placeholder(), target=package.target.Target({"kind": "llvm", "num-cores": 1}), num_threads=1,
            space_generator=ms.space_generator.ScheduleFn(_space(len(tilings)), [], [], {}), rand_state=_SEED,
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=max(64, 4 * len(tilings)), init_min_unmeasured=1, max_fail_count=50,
                genetic_num_iters=1, genetic_mutate_prob=0.0, eps_greedy=0.25,
            ),
        )  # fmt: skip
    database = ms.database.MemoryDatabase()
    context.pre_tuning(
        max_trials=most, num_trials_per_iter=min(_BATCH, most), design_spaces=context.generate_design_space(),
        database=database, cost_model=model,
    )  # fmt: skip
    workload = database.commit_workload(context.mod)
    times: dict[int, float] = {}
    while found := context.generate_measure_candidates():
        numbers = [_number(candidate.sch) for candidate in found]
        measured = measure([tilings[number].text for number in numbers])
        results = []
        for candidate, number, time in zip(found, numbers, measured, strict=True):
            times[number] = time
            seconds = [time * 1e-9] if np.isfinite(time) else [1e9]
            results.append(ms.runner.RunnerResult(seconds, None))
            trace, arguments = candidate.sch.trace, candidate.args_info
            record = ms.database.TuningRecord(trace, workload, seconds, context.target, arguments)
            database.commit_tuning_record(record)
        context.notify_runner_results(found, results)
        model.update(context, found, results)
    context.post_tuning()
    finite = (number for number in times if np.isfinite(times[number]))
    return [tilings[number] for number in sorted(finite, key=lambda number: (times[number], number))]


def _placeholder() -> Any:
    """What schedules are of, for TVM: a function with a block that a number can be written on."""
    te = tvm().te
    x = te.placeholder((1,), "int32", "x")
    func = te.create_prim_func([x, te.compute((1,), lambda i: x[i], name="y")])
    return func.with_attr("global_symbol", "main")


def _space(count: int) -> Callable[[Any], None]:
    def sampled(schedule: Any) -> None:
        number = schedule.sample_categorical(list(range(count)), [1.0 / count] * count)
        schedule.annotate(schedule.get_sblock("y"), _KEY, number)

    return sampled


def _number(schedule: Any) -> int:
    return int(schedule.get(schedule.get_sblock("y")).annotations[_KEY])


def _costs(tilings: Sequence[Tiling], predicted: Sequence[float]) -> Any:
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.cost_model import PyCostModel

    costs = Costs(tilings, predicted)

    @derived_object
    class Model(PyCostModel):  # type: ignore[misc]
        def update(self, context: Any, candidates: Any, results: Any) -> None:
            for candidate, result in zip(candidates, results, strict=True):
                costs.learn(_number(candidate.sch), float(result.run_secs[0]))

        def predict(self, context: Any, candidates: Any) -> np.ndarray:
            return np.array([costs.score(_number(candidate.sch)) for candidate in candidates], np.float64)

    return Model()


class Costs:
    """Predicts times by the expected cycles, and once some are measured by a fit of their logarithms to those and to
    the shape of a block (least squares, ridge of 1e-2)."""

    def __init__(self, tilings: Sequence[Tiling], predicted: Sequence[float]) -> None:
        expected = np.log(np.maximum(predicted, 1.0))
        sizes = [(1.0, np.log(t.rows), np.log(t.vectors), t.rows * t.vectors / t.form.sums) for t in tilings]
        self._features = np.column_stack([expected, np.array(sizes)])
        self._weights = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
        self._measured: dict[int, float] = {}

    def learn(self, number: int, seconds: float) -> None:
        self._measured[number] = float(np.log(seconds))
        if len(self._measured) < _FEW:
            return
        rows = self._features[list(self._measured)]
        values = np.array(list(self._measured.values()))
        square = rows.T @ rows + 1e-2 * np.eye(rows.shape[1])
        self._weights = np.linalg.solve(square, rows.T @ values)

    def score(self, number: int) -> float:
        """Larger for less time."""
        return -float(self._features[number] @ self._weights)


@contextmanager
def _without_shipped_intrinsics() -> Iterator[None]:
    """Contexts import TVM's own tensor intrinsics, which takes half a minute, and which nothing here uses."""
    known = _UNUSED in sys.modules
    sys.modules.setdefault(_UNUSED, ModuleType(_UNUSED))
    try:
        yield
    finally:
        if not known:
            del sys.modules[_UNUSED]
