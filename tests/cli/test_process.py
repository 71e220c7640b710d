"""The command line as a process: start, help, exit statuses, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import qcomp.targets.loader
from qcomp import __version__

COMMANDS = ["compile", "run", "bench", "compare", "check", "inspect", "targets", "opt"]


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qcomp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_the_version_is_printed() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"qcomp {__version__}\n", "")


def test_help_names_every_command(qcomp: Any) -> None:
    outcome = qcomp("--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert all(f"  {command} " in outcome.out for command in COMMANDS)
    assert qcomp().out == outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(qcomp: Any, command: str) -> None:
    outcome = qcomp(command, "--help")
    assert outcome.status == 0 and f"Usage: qcomp {command}" in outcome.out and "--json" in outcome.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, qcomp.cli\n"
        "try: qcomp.cli.main(['compile', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'networkx', 'rich', 'PIL', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_errors_of_a_process_are_one_line_and_status_2(tmp_path: Path) -> None:
    done = process("inspect", tmp_path / "lost.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"qcomp: error: {tmp_path}/lost.onnx: no such file; check the path\n"


def test_a_traceback_is_shown_on_request(tmp_path: Path) -> None:
    done = process("inspect", tmp_path / "lost.onnx", QCOMP_TRACEBACK="1")
    assert done.returncode == 2 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("qcomp: error: ")


def test_a_defect_is_one_line_and_status_70(qcomp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("nobody\nthought of this")

    monkeypatch.setattr(qcomp_targets(), "native", broken)
    outcome = qcomp("targets")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (70, "", 1)
    assert outcome.err.startswith("qcomp: error: internal error: ZeroDivisionError in test_process.py:")
    assert "nobody thought of this" in outcome.err and "QCOMP_TRACEBACK=1" in outcome.err


def qcomp_targets() -> Any:
    return qcomp.targets.loader


def test_an_interrupted_command_is_status_130(qcomp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(qcomp_targets(), "native", interrupted)
    outcome = qcomp("targets")
    assert (outcome.status, outcome.out, outcome.err) == (130, "", "qcomp: error: interrupted\n")


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_no_file(made: Path, tmp_path: Path, number: int, status: int) -> None:
    compiler = tmp_path / "slowcc"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\ntouch {tmp_path}/started\nexec sleep 3\n')
    compiler.chmod(0o755)
    (tmp_path / "out").mkdir()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "qcomp", "compile", made / "qdq.onnx", "-o", tmp_path / "out" / "m.so"]
    command += ["--cc", compiler]
    running = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        # A background job of a shell inherits an ignored SIGINT, and Python then installs no handler for it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, number)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == status, errors
    assert errors.count("\n") <= 1
    assert list((tmp_path / "out").iterdir()) == [] and list(temporary.iterdir()) == []


def test_a_full_disk_is_one_line(made: Path) -> None:
    script = f"{sys.executable} -m qcomp opt {made / 'mlp.onnx'} > /dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "qcomp: error: standard output: No space left on device; check space and permissions\n"


def test_names_of_other_alphabets_print_on_an_ascii_terminal(tmp_path: Path) -> None:
    text = 'graph @g {\n  input %"größe": f32[2]\n  %y: f32[2] = relu(%"größe")\n  output %y\n}\n'
    (tmp_path / "g.qir").write_text(text, encoding="utf-8")
    done = process("inspect", tmp_path / "g.qir", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in done.stdout


def test_a_reader_that_goes_away_is_no_error(made: Path) -> None:
    script = f"{sys.executable} -m qcomp opt {made / 'convnet.onnx'} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode in (0, 141) and done.stderr == ""
