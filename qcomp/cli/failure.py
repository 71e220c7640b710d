"""How a command ends: its exit status, and one line on standard error for every failure."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import typer
from typer.main import get_command

from qcomp.errors import QcompError

BAD_INPUT, DEFECT, INTERRUPTED, BROKEN_PIPE = 2, 70, 130, 141

#: What typer raises for wrong usage; releases differ in where the class lives.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


def status_of(app: typer.Typer, arguments: Sequence[str]) -> int:
    """The exit status of the command that `arguments` ask for, after it ran."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries; what a user has to know is in the output or an error
    command = get_command(app)
    try:
        with command.make_context("qcomp", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return int(done.exit_code)
    except QcompError as error:
        return _fail(BAD_INPUT, str(error))
    except BrokenPipeError:
        _forget_output()
        return BROKEN_PIPE
    except OSError as error:  # a full disk, a file that went away
        if error.filename is None:
            _forget_output()
        place, reason = error.filename or "standard output", error.strerror or str(error)
        return _fail(BAD_INPUT, f"{place}: {reason}; check space and permissions")
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "interrupted")
    except _USAGE_ERROR as error:
        return _fail(BAD_INPUT, _usage(error))
    except MemoryError as error:
        return _fail(BAD_INPUT, f"out of memory: {error or 'no further detail'}; use a machine with more of it")
    except Exception as error:  # whatever else arrives here is a defect
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return _fail(
            DEFECT,
            f"internal error: {type(error).__name__} in {place}: {error}; please report it, with what "
            "QCOMP_TRACEBACK=1 in the environment shows",
        )
    return 0


def _fail(status: int, message: str) -> int:
    if os.environ.get("QCOMP_TRACEBACK"):
        traceback.print_exc()
    line = " ".join(message.split())
    print("qcomp: error:", "".join(c if c.isprintable() else "?" for c in line), file=sys.stderr)
    return status


def _forget_output() -> None:
    """Nobody takes standard output any more; Python would complain once more when it closes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "qcomp"
    message: str = error.format_message()  # type: ignore[attr-defined]
    message = message.replace("Value error, ", "")  # some releases put it in front of their own text
    return f"{message.rstrip('.')}; see `{command} --help`"
