"""Imports run downward only, and a deployed machine needs the loader and numpy alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Rooms from the ground up; a module may import rooms of its own level or below.
LEVELS = {
    "errors": 0,
    "runtime": 1,
    "ir": 1,
    "targets": 2,
    "passes": 3,
    "codegen": 3,
    "frontends": 4,
    "quantize": 4,
    "reports": 4,
    "compiler": 5,
    "tuning": 5,
    "calibration_study": 5,
    "analysis": 5,
    "confirmation": 5,
    "zoo": 5,
    "cli": 6,
}
# Rooms of one level that must not know each other.
STRANGERS = {("ir", "runtime"), ("runtime", "ir"), ("passes", "codegen"), ("codegen", "passes")}


def _modules() -> list[tuple[str, Path]]:
    found = []
    for room in LEVELS:
        for base in (ROOT / "qcomp", ROOT):
            folder, file = base / room, base / f"{room}.py"
            if folder.is_dir() and not folder.is_symlink():
                found += [(room, path) for path in sorted(folder.rglob("*.py"))]
            elif file.is_file():
                found.append((room, file))
    return found


def _imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports, inside of functions too, but not for type checking alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    rooms = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module]
            if node.module == "qcomp":
                names = [f"qcomp.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("qcomp.")}
    return rooms & LEVELS.keys()


@pytest.mark.parametrize("room", sorted(LEVELS))
def test_imports_run_downward(room: str) -> None:
    for owner, path in _modules():
        if owner != room:
            continue
        for imported in _imported_rooms(path):
            where = f"{path.relative_to(ROOT)} imports qcomp.{imported}"
            assert LEVELS[imported] <= LEVELS[room], where
            assert (room, imported) not in STRANGERS, where


def test_every_room_was_found() -> None:
    assert {room for room, _ in _modules()} == set(LEVELS)


def test_the_loader_imports_nothing_of_the_compiler() -> None:
    for owner, path in _modules():
        if owner == "runtime":
            assert _imported_rooms(path) <= {"runtime", "errors"}, path
