"""`qcomp check`: what of a model will run in int8, what will not, and why; it needs no data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import Json, ModelPath, Shapes, TargetName

if TYPE_CHECKING:
    from qcomp.ir.graph import Graph
    from qcomp.targets import Target


Precision = Annotated[
    Path | None,
    typer.Option("--precision", metavar="FILE", show_default=False, help="JSON of layers that stay float32."),
]


def check(
    model: ModelPath,
    target: TargetName = "native",
    shape: Shapes = None,
    precision: Precision = None,
    json: Json = False,
) -> None:
    """Show what will run in int8 on a target, what will not, and why."""
    from qcomp.cli.arguments import parse_shapes
    from qcomp.cli.files import batch_notes, check_input, read_graph
    from qcomp.cli.output import print_json
    from qcomp.errors import QcompError
    from qcomp.targets import target as target_named

    shapes = parse_shapes(shape)
    check_input(model)
    if precision is not None and str(precision) == "auto" and not precision.exists():
        raise QcompError(
            "check searches for nothing", where="--precision auto",
            fix="search with `qcomp compile --precision auto --save-precision FILE`, and give that file",
        )  # fmt: skip
    machine = target_named(target)
    from qcomp.compiler import Options, is_quantized, preview
    from qcomp.reports.arithmetic import check_arithmetic
    from qcomp.reports.coverage import coverage

    graph = read_graph(model, shapes)
    fixed = machine.requantize == "fixed"
    options = Options(precision=precision, requantize=machine.requantize, io="int8" if fixed else "")
    integer = preview(graph, options)
    notes = batch_notes(graph)
    try:
        check_arithmetic(integer, machine)
    except QcompError as error:
        notes.append(f"it cannot be compiled: {error}")
    found = coverage(integer)
    facts: dict[str, Any] = {
        "model": str(model),
        "target": machine.name,
        "quantized": is_quantized(graph),
        "inputs": [{"name": v.name, "dtype": v.dtype.value, "shape": list(v.shape)} for v in graph.inputs],
        "outputs": [{"name": v.name, "dtype": v.dtype.value, "shape": list(v.shape)} for v in graph.outputs],
        **found.facts(),
        "islands": [
            {"node": i.node, "op": i.op, "reason": i.reason, "detail": i.detail, "advice": i.advice, "macs": i.macs}
            for i in found.islands
        ],
        "float_copies": list(found.float_copies),
        "without_kernel": _without_kernel(integer, machine),
        "notes": notes,
    }
    if json:
        print_json(facts)
    else:
        _show(facts)


def _without_kernel(graph: Graph, target: Target) -> list[dict[str, str]]:
    """Nodes that cannot be compiled for the target."""
    from qcomp.codegen.c.table import kernel_table
    from qcomp.errors import QcompError

    table, missing = kernel_table(), []
    for node in graph.nodes:
        try:
            table.select(node, target)
        except QcompError as error:
            missing.append({"node": node.name, "op": node.op.name, "message": str(error)})
    return missing


def _show(facts: dict[str, Any]) -> None:
    from qcomp.cli.islands import show_islands, show_precisions

    for note in facts["notes"]:
        print(f"note: {note}")
    kind = "quantized" if facts["quantized"] else "not quantized: needs --calibrate to compile in int8"
    print(f"{facts['model']}: for {facts['target']}; {kind}")
    show_precisions(facts)
    show_islands("  float32  ", facts["islands"], facts["float_copies"])
    for missing in facts["without_kernel"]:
        print(f"  missing  {missing['message']}")
