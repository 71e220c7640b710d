"""Artifacts of several levels, as the loader sees them: what is read, chosen, refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import METADATA, expected_outputs

from qcomp.errors import QcompError
from qcomp.runtime.artifact import FOOTER_BYTES, read_trailer, write_trailer
from qcomp.runtime.checksum import Checksum
from qcomp.runtime.loader import best_level, load

STEPS = [{**step, "kernel": "fast"} for step in METADATA["steps"]]
PLAIN = {"target": "plain", "isa": [], "arena_bytes": 4096, "steps": METADATA["steps"]}
BETTER = {"target": "better", "isa": [], "arena_bytes": 8192, "steps": STEPS}
LEVELS: dict[str, Any] = {**METADATA, "target": "plain", "levels": [BETTER, PLAIN]}


@pytest.fixture(scope="session")
def level_elf(build_elf: Callable[..., bytes]) -> bytes:
    """The tiny model twice; the library picks the better one."""
    return build_elf("-DLEVELS", "-DPICK=0")


@pytest.fixture
def level_file(level_elf: bytes, tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny model of two levels with some metadata replaced; returns its path."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "levels.so"
        path.write_bytes(write_trailer(level_elf, LEVELS | changes))
        return path

    return write


def test_the_picked_level_counts(level_file: Callable[..., Path], feed: dict[str, np.ndarray]) -> None:
    with load(level_file(), threads=2) as model:
        assert (model.info.target, model.info.arena_bytes) == ("better", 8192)
        assert [step.kernel for step in model.info.steps] == ["fast"] * 3 == [s.kernel for s in model.profile(feed)]
        outputs = model.run(feed)
        assert all(np.array_equal(outputs[name], array) for name, array in expected_outputs(feed).items())


def test_the_library_decides(build_elf: Callable[..., bytes], tmp_path: Path) -> None:
    path = tmp_path / "plain.so"
    path.write_bytes(write_trailer(build_elf("-DLEVELS", "-DPICK=1"), LEVELS))
    with load(path) as model:
        assert (model.info.target, model.info.arena_bytes) == ("plain", 4096)


@pytest.mark.parametrize(("level", "arena"), [("plain", 4096), ("better", 8192)])
def test_a_level_can_be_asked_for(
    level: str, arena: int, level_file: Callable[..., Path], feed: dict[str, np.ndarray]
) -> None:
    with load(level_file(), level=level) as model:
        assert (model.info.target, model.info.arena_bytes) == (level, arena)
        outputs = model.run(feed)
        assert all(np.array_equal(outputs[name], array) for name, array in expected_outputs(feed).items())


def test_an_artifact_of_one_target_has_that_level(artifact: Path) -> None:
    with load(artifact, level="native") as model:
        assert model.info == read_trailer(artifact).at("native")
    with pytest.raises(QcompError, match="it has no level 'fast'; use native, or name none"):
        load(artifact, level="fast")


def test_an_unknown_level_is_answered_with_the_known_ones(level_file: Callable[..., Path]) -> None:
    path = level_file()
    for ask in (lambda: load(path, level="best"), lambda: read_trailer(path).at("best")):
        with pytest.raises(QcompError, match="it has no level 'best'; use better, plain, or name none") as caught:
            ask()
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_level_that_this_cpu_lacks_is_refused_before_its_code_runs(level_file: Callable[..., Path]) -> None:
    path = level_file(levels=[{**BETTER, "isa": ["warp9"]}, PLAIN])
    assert best_level(read_trailer(path)) == "plain"
    with pytest.raises(QcompError, match="level better needs CPU features .* lacks: warp9; name none, or plain"):
        load(path, level="better")


def test_the_whole_file_needs_what_its_last_level_needs(level_file: Callable[..., Path]) -> None:
    levels = [{**BETTER, "isa": ["warp8", "warp9"]}, {**PLAIN, "isa": ["warp8"]}]
    with pytest.raises(QcompError, match="needs CPU features that this machine lacks: warp8"):
        load(level_file(isa=["warp8"], levels=levels))


def test_the_file_says_that_older_readers_cannot_take_it(level_file: Callable[..., Path], artifact: Path) -> None:
    def version(path: Path) -> int:
        found: int = struct.unpack("<I", path.read_bytes()[-FOOTER_BYTES + 8 :][:4])[0]
        return found

    assert (version(level_file()), version(artifact)) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"levels": [PLAIN]}, "disagree"),
        ({"levels": [PLAIN, BETTER], "target": "better"}, "disagree"),
        ({"levels": [{**BETTER, "target": "best"}, PLAIN]}, "disagree"),
        ({"levels": [{**BETTER, "arena_bytes": 64}, PLAIN]}, "disagree"),
        ({"levels": [{**BETTER, "steps": STEPS[:2]}, PLAIN]}, "disagree"),
        ({"levels": []}, "disagree"),
    ],
)
def test_levels_that_are_not_those_of_the_code_are_refused(
    changes: dict[str, Any], reason: str, level_file: Callable[..., Path]
) -> None:
    path = level_file(**changes)
    with pytest.raises(QcompError, match=reason) as caught:
        load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_code_of_one_level_is_not_taken_for_several(variant: Callable[..., Path]) -> None:
    with pytest.raises(QcompError, match="its code and its metadata disagree"):
        load(variant(target="plain", levels=[BETTER, PLAIN]))


def forged(elf: bytes, metadata: dict[str, Any]) -> bytes:
    """A file whose checksum is right, with metadata that `write_trailer` would refuse."""
    text = json.dumps(metadata).encode()
    head = struct.pack("<8sIIQQ", b"QCOMPART", 2, 0, len(elf), len(text))
    state = Checksum()
    for piece in (elf, text, head):
        state.update(piece)
    return b"".join((elf, text, head, state.digest(), bytes(16)))


@pytest.mark.parametrize(
    "levels",
    [
        3, [3], {"target": "plain"}, [BETTER, BETTER, PLAIN], [PLAIN, BETTER],
        [{**BETTER, "isa": "sse2"}, PLAIN], [{**BETTER, "arena_bytes": "many"}, PLAIN], [{**BETTER, "steps": 3}, PLAIN],
        [{**BETTER, "steps": [{"op": "a"}]}, PLAIN], [{**BETTER, "steps": {"op": ["a"], "name": []}}, PLAIN],
        [{**BETTER, "steps": {"op": {"values": ["a"], "index": [7]}}}, PLAIN],
        [{**BETTER, "steps": {"op": 3}}, PLAIN],
    ],
)  # fmt: skip
def test_malformed_levels_are_refused_in_one_line(levels: object, level_elf: bytes, tmp_path: Path) -> None:
    path = tmp_path / "forged.so"
    path.write_bytes(forged(level_elf, {**LEVELS, "levels": levels}))
    for reader in (read_trailer, load):
        with pytest.raises(QcompError, match="metadata (is malformed|lacks)") as caught:
            reader(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
