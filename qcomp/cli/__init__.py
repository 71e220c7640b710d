"""The command line: one command a file.  Only typer is imported here, so that `qcomp --help` answers at once."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from qcomp import __version__
from qcomp.cli.analyze import analyze
from qcomp.cli.bench import bench
from qcomp.cli.check import check
from qcomp.cli.compare import compare
from qcomp.cli.compile import compile_model
from qcomp.cli.failure import status_of
from qcomp.cli.inspect import inspect
from qcomp.cli.opt import opt
from qcomp.cli.run import run
from qcomp.cli.targets import targets
from qcomp.cli.tune import tune

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qcomp {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _qcomp(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Compiles neural networks ahead of time to small, dependency-free int8 programs."""
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command("compile")(compile_model)
app.command("analyze")(analyze)
app.command("tune")(tune)
app.command("run")(run)
app.command("bench")(bench)
app.command("compare")(compare)
app.command("check")(check)
app.command("inspect")(inspect)
app.command("targets")(targets)
app.command("opt")(opt)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits: 0, 2 for bad input, 70 for a defect of qcomp, 130 when interrupted."""
    if arguments is None:
        signal.signal(signal.SIGTERM, _terminate)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of any model print on any terminal
    raise SystemExit(status_of(app, sys.argv[1:] if arguments is None else arguments))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the process as an error would, so that temporary files are removed on the way out."""
    raise SystemExit(128 + number)
