"""`qcomp opt`: runs passes on a graph and prints it, as mlir-opt does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import Json, Shapes

if TYPE_CHECKING:
    from qcomp.ir.graph import Graph
    from qcomp.passes.base import Pass

InputPath = Annotated[
    Path | None, typer.Argument(metavar="IN", help="A .qir text or an .onnx model.", show_default=False)
]
Pipeline = Annotated[
    str, typer.Option("--passes", metavar="a,b{option=value}", help="Passes to run, in order.", show_default=False)
]
OutputPath = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="OUT.qir", help="Write the graph.", show_default=False)
]
PrintAfterAll = Annotated[
    bool, typer.Option("--print-after-all", help="Show the graph after each pass, on standard error.")
]
CheckPasses = Annotated[
    bool, typer.Option("--check-passes", help="Run the interpreter between passes; fail where a pass changes results.")
]
ListPasses = Annotated[bool, typer.Option("--list", help="List the passes with their options.")]


def opt(
    input: InputPath = None,
    passes: Pipeline = "",
    output: OutputPath = None,
    shape: Shapes = None,
    print_after_all: PrintAfterAll = False,
    check_passes: CheckPasses = False,
    list_passes: ListPasses = False,
    json: Json = False,
) -> None:
    """Run passes on a graph and print it as .qir text."""
    from qcomp.errors import QcompError

    if list_passes:
        _list(json)
        return
    if input is None:
        raise QcompError("no graph to work on", where="qcomp opt", fix="give a .qir text or an .onnx model, or --list")
    from qcomp.cli.arguments import parse_shapes
    from qcomp.cli.files import check_outputs, read_graph, write_file
    from qcomp.cli.output import print_json
    from qcomp.ir.text import print_graph
    from qcomp.passes.manager import Checker, PassRecord, run_passes
    from qcomp.passes.registry import parse_pipeline

    check_outputs({"-o": output}, (input,))
    pipeline = parse_pipeline(passes)
    graph = read_graph(input, parse_shapes(shape))
    records: list[PassRecord] = []
    result = run_passes(
        graph,
        pipeline,
        check=Checker.random(graph) if check_passes else None,
        on_pass=records.append,
        print_after=print_step if print_after_all else None,
    )
    text = print_graph(result)
    if output is not None:
        write_file(output, lambda file: file.write(text.encode()))
    if json:
        print_json(
            {
                "input": str(input),
                "output": str(output) if output else None,
                "passes": [vars(r) for r in records],
                "nodes": len(result),
                "qir": None if output else text,
            }
        )
    elif output is None:
        sys.stdout.write(text)


def print_step(step: Pass, graph: Graph) -> None:
    """One step of `--print-after-all`: the graph with large constants left out."""
    from qcomp.ir.text import print_graph

    print(f"# after {step}\n{print_graph(graph, elide=True)}", file=sys.stderr)


def _list(json: bool) -> None:
    from dataclasses import MISSING, fields

    from qcomp.cli.output import print_json, print_table
    from qcomp.passes.registry import pass_options, pass_table

    rows: list[dict[str, Any]] = []
    for name, cls in pass_table().items():
        kinds = pass_options(cls)
        options = []
        for f in fields(cls):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            text = None if default is MISSING else str(default)
            options.append({"name": f.name, "type": _kind_text(kinds[f.name]), "default": text})
        summary = (cls.__doc__ or "").strip().split("\n")[0]
        rows.append({"name": name, "exact": cls.exact, "summary": summary, "options": options})
    if json:
        print_json({"passes": rows})
        return
    for row in rows:
        row["options"] = " ".join(f"{o['name']}={o['default']}" for o in row["options"])
    print_table("", ("pass", "options", "what it does"), [(r["name"], r["options"], r["summary"]) for r in rows])


def _kind_text(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
