"""Models with fixed arrays: `Model.bind`."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import expected_outputs

from qcomp.errors import QcompError
from qcomp.runtime.bound import Bound
from qcomp.runtime.loader import load

Feed = dict[str, np.ndarray]


def right(outputs: Feed, feed: Feed) -> bool:
    return all(np.array_equal(outputs[name], array) for name, array in expected_outputs(feed).items())


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bound_form_reads_and_writes_the_callers_arrays(artifact: Path, feed: Feed, threads: int) -> None:
    own = {"y": np.zeros((4, 250), np.float32)}
    with load(artifact, threads=threads) as model:
        bound = model.bind(feed, own)
        for shift in range(20):
            feed["x"] += shift
            outputs = bound.run()
            assert outputs["y"] is own["y"] and right(outputs, feed)
        assert bound() is outputs


def test_arrays_that_are_left_out_are_made(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        bound = model.bind()
        assert not bound.inputs["x"].any() and bound.inputs["q"].dtype == np.int8
        for name, array in feed.items():
            bound.inputs[name][...] = array
        assert right(bound.run(), feed) and bound.outputs["y"] is bound.run()["y"]


def test_bound_forms_and_runs_do_not_disturb_each_other(artifact: Path, feed: Feed) -> None:
    other = {name: array[::-1].copy() for name, array in feed.items()}
    with load(artifact, threads=2) as model:
        first, second = model.bind(feed), model.bind(other)
        wrong: list[str] = []

        def work(run: object, given: Feed, name: str) -> None:
            for _ in range(200):
                if not right(run(), given):  # type: ignore[operator]
                    wrong.append(name)

        jobs = [(first.run, feed, "first"), (second.run, other, "second"), (lambda: model.run(feed), feed, "run")]
        threads = [threading.Thread(target=work, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_unfit_arrays_are_refused(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        with pytest.raises(QcompError, match="input x is not contiguous"):
            model.bind({"x": np.zeros((250, 4), np.float32).T})
        with pytest.raises(QcompError, match="input x is a list"):
            model.bind({"x": [1.0]})  # type: ignore[dict-item]
        with pytest.raises(QcompError, match="unknown input w"):
            model.bind({"w": feed["x"]})
        with pytest.raises(QcompError, match="inputs are a list; give a dict of x, q to arrays"):
            model.bind([feed["x"]])  # type: ignore[arg-type]
        with pytest.raises(QcompError, match="outputs are a ndarray"):
            model.bind(feed, np.zeros((4, 250), np.float32))  # type: ignore[arg-type]
        with pytest.raises(QcompError, match="output y shares memory"):
            model.bind(feed, {"y": feed["x"]})


def test_a_closed_model_no_longer_runs_in_its_bound_form(artifact: Path, feed: Feed) -> None:
    model = load(artifact)
    bound = model.bind(feed)
    model.close()
    with pytest.raises(QcompError, match="the model is closed"):
        bound.run()
    with pytest.raises(QcompError, match="the model is closed"):
        model.bind(feed)


def test_closing_while_a_bound_form_runs_is_refused_and_changes_nothing(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        bound, other = model.bind(feed), model.bind(feed)
        assert bound.hold()
        with pytest.raises(QcompError, match="closed while it is running"):
            model.close()
        bound.let_go()
        assert right(bound.run(), feed) and right(other.run(), feed)


def test_a_bound_form_keeps_its_model_and_is_freed_with_it(artifact: Path, feed: Feed) -> None:
    bound = load(artifact).bind(feed)
    gc.collect()
    assert right(bound.run(), feed)


def race(bound: Bound, feed: Feed) -> bool:
    """Whether all of eight threads that start together get the right outputs."""
    good: list[bool] = []
    threads = [threading.Thread(target=lambda: good.append(right(bound.run(), feed))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return good == [True] * 8


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_threads_of_a_forked_child_may_share_a_bound_form(artifact: Path, feed: Feed) -> None:
    with load(artifact, threads=3) as model:
        bound = model.bind(feed)
        bound.run()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                ctypes.CDLL(None).alarm(20)
                sys.setswitchinterval(1e-6)
                os._exit(0 if race(bound, feed) else 1)
            assert os.waitpid(child, 0)[1] == 0
