"""Files of the zoo appear whole or not at all, in one folder."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from qcomp.errors import QcompError
from qcomp.zoo import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "zoo"
    monkeypatch.setenv("QCOMP_CACHE", str(folder))
    return folder


def test_the_environment_names_the_folder(own_cache: Path) -> None:
    assert cache.root() == own_cache.resolve()
    assert own_cache.is_dir()


def test_without_the_environment_it_is_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QCOMP_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache.root() == (tmp_path / ".cache" / "qcomp" / "zoo").resolve()


def test_a_folder_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("QCOMP_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(QcompError, match="set QCOMP_CACHE"):
        cache.root()


def test_a_file_is_built_once() -> None:
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(path)
        path.write_text("made")

    first, second = cache.cached("models/a.onnx", build), cache.cached("models/a.onnx", build)
    assert first == second
    assert first.read_text() == "made"
    assert len(built) == 1
    assert built[0] != first


def test_a_build_that_fails_leaves_nothing(own_cache: Path) -> None:
    def build(path: Path) -> None:
        path.write_text("half")
        raise QcompError("no network")

    with pytest.raises(QcompError, match="no network"):
        cache.cached("models/a.onnx", build)
    assert list(own_cache.rglob("*")) == []


def test_a_folder_that_another_process_finished_first_is_kept(own_cache: Path) -> None:
    final = own_cache / "packages" / "p-1"
    for content in ("first", "second"):
        with cache.scratch() as folder:
            built = folder / "unpacked"
            built.mkdir()
            (built / "file").write_text(content)
            assert cache.publish(built, final) == final
    assert (final / "file").read_text() == "first"


def _build_slowly(path: Path) -> None:
    with path.open("w") as file:
        for _ in range(20):
            file.write("x" * 1000)
            file.flush()
            time.sleep(0.005)


def _race(_: int) -> int:
    return len(cache.cached("models/raced.onnx", _build_slowly).read_text())


def test_processes_that_race_all_see_the_whole_file(own_cache: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_race, range(4), chunksize=1) == [20_000] * 4
    assert [path.name for path in own_cache.rglob("*") if path.is_file()] == ["raced.onnx"]
