from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import METADATA, expected_outputs

import qcomp
from qcomp.errors import QcompError
from qcomp.runtime.artifact import write_trailer
from qcomp.runtime.loader import Model, load

Feed = dict[str, np.ndarray]


def assert_equal(actual: Feed, expected: Feed) -> None:
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype and np.array_equal(actual[name], array), name


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def threads_become(count: int) -> bool:
    """A joined thread may stay listed for a moment."""
    deadline = time.monotonic() + 5
    while thread_count() != count and time.monotonic() < deadline:
        time.sleep(0.001)
    return thread_count() == count


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


@pytest.mark.parametrize("threads", [1, 2, 4, 0])
def test_outputs_are_right_and_the_same_on_any_number_of_threads(artifact: Path, feed: Feed, threads: int) -> None:
    with qcomp.load(artifact, threads=threads) as model:
        for _ in range(50):
            outputs = model.run(feed)
            assert list(outputs) == ["y", "z", "where"]
            assert_equal(outputs, expected_outputs(feed))


def test_descriptors_tell_what_to_feed(artifact: Path) -> None:
    with load(artifact) as model:
        assert [(t.name, t.dtype, t.shape) for t in model.inputs] == [
            ("x", np.float32, (4, 250)), ("q", np.int8, (1000,)),
        ]  # fmt: skip
        assert model.name == "tiny" and model.threads == 1
        assert repr(model) == (
            "<Model tiny (x: float32[4, 250], q: int8[1000]) -> "
            "(y: float32[4, 250], z: int8[1000], where: uint64[4]), 1 thread>"
        )


def test_arrays_may_be_given_in_order(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        assert_equal(model.run(feed["x"], feed["q"]), expected_outputs(feed))


def test_contiguous_arrays_are_used_in_place(artifact: Path, feed: Feed) -> None:
    feed["x"].flags.writeable = False
    with load(artifact) as model:
        outputs = model.run(feed)
    where = outputs["where"].tolist()
    assert where[:3] == [address(feed["x"]), address(feed["q"]), address(outputs["y"])]
    assert where[3] % 64 == 0


def test_the_arena_is_allocated_once(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        assert len({int(model.run(feed)["where"][3]) for _ in range(10)}) == 1


def test_other_layouts_are_copied(artifact: Path, feed: Feed) -> None:
    expected = expected_outputs(feed)
    shifted = np.zeros(4001, np.uint8)[1:].view(np.float32).reshape(4, 250)
    shifted[:] = feed["x"]
    with load(artifact) as model:
        assert_equal(model.run({"x": np.asfortranarray(feed["x"]), "q": np.repeat(feed["q"], 2)[::2]}), expected)
        assert_equal(model.run({"x": shifted, "q": feed["q"]}), expected)


def test_outputs_go_where_the_caller_says(artifact: Path, feed: Feed) -> None:
    y = np.full((4, 250), np.nan, np.float32)
    with load(artifact) as model:
        outputs = model.run(feed, out={"y": y})
    assert outputs["y"] is y and int(outputs["where"][2]) == address(y)
    assert_equal(outputs, expected_outputs(feed))


def test_results_are_fresh_arrays(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        first, second = model.run(feed), model.run(feed)
    assert not np.shares_memory(first["y"], second["y"])


WRONG_INPUTS: list[tuple[str, Callable[[Feed], object], str]] = [
    ("missing", lambda f: {"x": f["x"]}, "tiny: missing input q; the model takes x, q"),
    ("unknown", lambda f: f | {"r": f["q"]}, "tiny: unknown input r; the model has x, q"),
    ("dtype", lambda f: f | {"x": f["x"].astype(np.float64)},
     "tiny: input x is float64, the model has float32; convert it, as with .astype('float32')"),
    ("byte order", lambda f: f | {"x": f["x"].astype(">f4")},
     "tiny: input x is >f4, the model has float32; convert it, as with .astype('float32')"),
    ("shape", lambda f: f | {"x": f["x"].ravel()},
     "tiny: input x has shape [1000], the model has [4, 250]; reshape it"),
    ("transposed", lambda f: f | {"x": f["x"].T},
     "tiny: input x has shape [250, 4], the model has [4, 250]; transpose it, as with numpy.transpose"),
    ("too many rows", lambda f: f | {"x": np.concatenate([f["x"], f["x"]])},
     "tiny: input x has shape [8, 250], the model has [4, 250]; run 4 at a time, or compile the model for this shape"),
    ("size", lambda f: f | {"x": f["x"][:, :9]},
     "tiny: input x has shape [4, 9], the model has [4, 250]; compile the model for this shape"),
    ("list", lambda f: f | {"q": f["q"].tolist()},
     "tiny: input q is int64, the model has int8; convert it, as with .astype('int8')"),
    ("reals for integers", lambda f: f | {"q": f["q"].astype(np.float32)},
     "tiny: input q is float32, the model has int8; quantize it: numpy.clip(numpy.round(x / 0.5) + 3, -128, 127)"
     ".astype('int8')"),
    ("too few", lambda f: f["x"], "tiny: 1 arrays given, the model takes 2; give x, q in this order"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), [row[1:] for row in WRONG_INPUTS], ids=[row[0] for row in WRONG_INPUTS])
def test_wrong_inputs_are_explained(artifact: Path, feed: Feed, wrong: Callable[[Feed], Feed], message: str) -> None:
    with load(artifact) as model:
        for call in (model.run, model.profile):
            with pytest.raises(QcompError) as caught:
                call(wrong(feed))
            assert str(caught.value) == message
        with pytest.raises(QcompError, match="both a mapping and further arrays"):
            model.run(feed, feed["x"])
        assert_equal(model.run(feed), expected_outputs(feed))


def test_wrong_outputs_are_explained(artifact: Path, feed: Feed) -> None:
    y = np.zeros((4, 250), np.float32)
    frozen = y.copy()
    frozen.flags.writeable = False
    wrong: list[tuple[Feed, str]] = [
        ({"w": y}, "unknown output w"),
        ({"y": y[:2]}, "has shape"),
        ({"y": y.astype(np.float64)}, "output y is float64, the model has float32; give a float32 array"),
        ({"y": frozen}, "not contiguous and writable"),
        ({"y": np.asfortranarray(y)}, "not contiguous and writable"),
        ({"y": feed["x"]}, "output y shares memory"),
        ({"y": y, "z": y.view(np.int8).ravel()[:1000]}, "output z shares memory"),
        ({"y": y.tolist()}, "output y is a list"),  # type: ignore[dict-item]
    ]
    with load(artifact) as model:
        for out, reason in wrong:
            with pytest.raises(QcompError, match=reason):
                model.run(feed, out=out)


def test_profile_times_every_step(artifact: Path, feed: Feed) -> None:
    with load(artifact, threads=2) as model:
        table = model.profile(feed, runs=5)
        assert_equal(model.run(feed), expected_outputs(feed))
    assert [(row.name, row.op, row.kernel, row.macs) for row in table] == [
        ("a", "scale", "c", 1000), ("b", "reverse", "c", 0), ("c", "triple", "c", 2000),
    ]  # fmt: skip
    assert all(0 < row.milliseconds < 1000 for row in table)
    assert sum(row.share for row in table) == pytest.approx(1)


def test_a_run_after_a_profile_is_not_timed(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        model.profile(feed, runs=1)
        assert model._idle[0].exec.on_step is None and model._idle[0].exec.profiler is None


@pytest.mark.parametrize("threads", [1, 3])
def test_many_python_threads_may_run_one_model(artifact: Path, threads: int) -> None:
    failures: list[str] = []

    def work(model: Model, seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(100):
            feed = {
                "x": generator.standard_normal((4, 250)).astype(np.float32),
                "q": generator.integers(-128, 128, 1000).astype(np.int8),
            }
            outputs = model.run(feed)
            if any(not np.array_equal(outputs[name], array) for name, array in expected_outputs(feed).items()):
                failures.append(f"seed {seed}")

    with load(artifact, threads=threads) as model:
        workers = [threading.Thread(target=work, args=(model, seed)) for seed in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(model._idle) == len(model._calls) <= 6
    assert failures == []


def test_overlapping_runs_get_arenas_of_their_own(artifact: Path, feed: Feed) -> None:
    with load(artifact) as model:
        first, second = model._borrow(), model._borrow()
        assert abs(first.arena - second.arena) >= 4096
        model._idle += [first, second]


def test_one_thread_creates_none_and_close_ends_all(artifact: Path, feed: Feed) -> None:
    time.sleep(0.05)  # what earlier tests left has gone
    before = thread_count()
    with load(artifact, threads=1) as model:
        model.run(feed)
        assert thread_count() == before
    with load(artifact, threads=4) as model:
        model.run(feed)
        assert thread_count() == before + 3
    assert threads_become(before)


def test_a_closed_model_says_so(artifact: Path, feed: Feed) -> None:
    model = load(artifact)
    model.close()
    model.close()
    with pytest.raises(QcompError, match="the model is closed; load it again"):
        model.run(feed)


def test_close_refuses_while_another_thread_runs(artifact: Path, feed: Feed) -> None:
    model = load(artifact)
    entered, leave = threading.Event(), threading.Event()
    run = model._library.run

    def slow_run(*arguments: object) -> int:
        entered.set()
        leave.wait(10)
        return int(run(*arguments))

    model._library.run = slow_run
    results: list[Feed] = []
    thread = threading.Thread(target=lambda: results.append(model.run(feed)))
    thread.start()
    entered.wait(10)
    with pytest.raises(QcompError, match="closed while it is running"):
        model.close()
    leave.set()
    thread.join()
    assert_equal(results[0], expected_outputs(feed))
    model.close()


def test_dropping_a_model_unloads_its_code(elf: bytes, tmp_path: Path, feed: Feed) -> None:
    path = tmp_path / "dropped.so"
    path.write_bytes(write_trailer(elf, METADATA))
    model = load(path, threads=2)
    other = load(path)
    model.run(feed)
    del model
    gc.collect()
    assert str(path) in Path("/proc/self/maps").read_text()
    assert_equal(other.run(feed), expected_outputs(feed))
    del other
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_model_compiled_again_to_the_same_path_is_the_new_one(
    elf: bytes, build_elf: Callable[..., bytes], tmp_path: Path, feed: Feed
) -> None:
    path, fresh = tmp_path / "model.so", tmp_path / "new.so"
    path.write_bytes(write_trailer(elf, METADATA))
    with load(path) as old:
        fresh.write_bytes(write_trailer(build_elf("-DFACTOR=5.0f"), METADATA))
        fresh.replace(path)
        with load(path) as new:
            assert_equal(old.run(feed), expected_outputs(feed, 2))
            assert_equal(new.run(feed), expected_outputs(feed, 5))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_runs_and_closes(artifact: Path, feed: Feed) -> None:
    with load(artifact, threads=3) as model:
        model.run(feed)
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).alarm(20)
            good = np.array_equal(model.run(feed)["y"], expected_outputs(feed)["y"]) and thread_count() == 3
            model.close()
            os._exit(0 if good and threads_become(1) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert_equal(model.run(feed), expected_outputs(feed))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_threads_of_a_forked_child_may_all_run_first(artifact: Path, feed: Feed) -> None:
    def race(model: Model) -> bool:
        """Whether all of eight threads that start together get the right outputs."""
        start, good = threading.Barrier(8), []

        def run() -> None:
            start.wait()
            good.append(np.array_equal(model.run(feed)["y"], expected_outputs(feed)["y"]))

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return good == [True] * 8

    with load(artifact, threads=3) as model:
        model.run(feed)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                ctypes.CDLL(None).alarm(20)
                sys.setswitchinterval(1e-6)
                os._exit(0 if race(model) else 1)
            assert os.waitpid(child, 0)[1] == 0


def test_a_forked_child_may_close_at_once(artifact: Path, feed: Feed) -> None:
    with load(artifact, threads=3) as model:
        model.run(feed)
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).alarm(20)
            model.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("threads", [-1, 1.5, "2"])
def test_numbers_of_threads_that_are_none_are_refused(artifact: Path, threads: Any) -> None:
    with pytest.raises(QcompError, match=f"threads is {threads!r}"):
        load(artifact, threads=threads)


def test_no_runs_to_profile_are_refused(artifact: Path) -> None:
    with load(artifact) as model, pytest.raises(QcompError, match="runs is 0"):
        model.profile(runs=0, inputs={})
