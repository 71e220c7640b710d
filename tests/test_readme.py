"""The README's commands exist: subcommands, options, extras and Python snippets, and its test command is CI's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer.main

from qcomp.cli import app
from qcomp.frontends.onnx.table import supported_ops
from qcomp.targets import target_names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in FILES}
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -e '.[test,tvm]' && .venv/bin/python -m pytest"


def _commands() -> list[tuple[str, str]]:
    """(page, command line) of every line of a code block or indented block that starts with qcomp."""
    found = []
    for page, text in PAGES.items():
        for line in text.splitlines():
            match = re.match(r"(?:\$ | {4,})(qcomp .*)", line)
            if match:
                found.append((page, match[1].split("  #")[0]))
    return found


def _snippets() -> list[tuple[str, str]]:
    return [(page, code) for page, text in PAGES.items() for code in SNIPPET.findall(text)]


@cache
def _options() -> dict[str, set[str]]:
    """Option names of every subcommand, as the parser knows them."""
    group = typer.main.get_command(app)
    commands = getattr(group, "commands")  # noqa: B009 - typer's own class, which click's type stubs do not describe
    return {
        name: {"--help", *(text for parameter in command.params for text in parameter.opts)}
        for name, command in commands.items()
    }


def test_there_are_commands_and_snippets_to_check() -> None:
    assert len(_commands()) > 10
    assert len([page for page, _ in _snippets() if page == "README.md"]) == 2


@pytest.mark.parametrize(("page", "line"), _commands())
def test_a_command_exists_with_its_options(page: str, line: str) -> None:
    _, command, *words = shlex.split(line)
    assert command in _options(), line
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in _options()[command], line


@pytest.mark.parametrize("name", sorted(_options()))
def test_the_readme_shows_every_command(name: str) -> None:
    assert f"qcomp {name}" in README


def test_options_named_in_the_text_exist() -> None:
    known = set().union(*_options().values())
    named = set(re.findall(r"`(--[a-z0-9-]+)", README))
    assert named <= known | {"--cc"}, named - known


@pytest.mark.parametrize(("page", "code"), _snippets())
def test_a_python_snippet_compiles(page: str, code: str) -> None:
    compile(code, page, "exec")


def test_the_test_command_is_the_one_of_ci() -> None:
    assert f"    {TEST_COMMAND}\n" in README
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == TEST_COMMAND


def test_the_examples_of_the_readme_say_how_they_are_used() -> None:
    named = set(re.findall(r"examples/\w+\.py", README))
    assert named == {f"examples/{name}.py" for name in ("read_text", "classify_photos", "rate_sentences")}
    for name in sorted(named):
        done = subprocess.run([sys.executable, name, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "--output" in done.stdout, done.stderr


def test_every_extra_is_described() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = README.split("| extra | for |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row))) == set(extras)


def test_every_target_is_described() -> None:
    table = README.split("| target | code |")[1].split("\n\n")[0]
    described = re.findall(r"`([\w-]+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row))
    assert sorted(described) == sorted(target_names())


def test_the_number_of_onnx_ops_is_right() -> None:
    assert f"[{len(supported_ops())} ops]" in README
