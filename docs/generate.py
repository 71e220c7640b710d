"""Writes the pages that are lists of what the code holds: docs/passes.md and docs/supported-onnx-ops.md.

    python docs/generate.py

A test holds that the pages are up to date.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from qcomp.compiler import integer_lowering
from qcomp.frontends.onnx import table
from qcomp.frontends.onnx.reasons import reasons
from qcomp.passes.adjust_products import AdjustProducts
from qcomp.passes.base import Pass
from qcomp.passes.canonicalize import Canonicalize
from qcomp.passes.choose_precision import ChoosePrecision
from qcomp.passes.equalize_channels import EqualizeChannels
from qcomp.passes.integer_regions import (
    ARITHMETIC,
    CLAMPS,
    JOINT_PRODUCTS,
    MOVEMENT,
    NORMALIZING,
    PRODUCTS,
    SCALAR_UNARY,
    UNARY,
)
from qcomp.passes.registry import pass_options, pass_table
from qcomp.quantize.grids import grid_passes

FOLDER = Path(__file__).parent
WIDTH = 116
MADE = "<!-- made by docs/generate.py; do not edit -->"


def passes_page() -> str:
    """Every pass: in the order of compilation, then those that only `qcomp opt` runs."""
    stages: list[tuple[str, list[type[Pass]]]] = [
        ("Canonicalization", [type(step) for step in Canonicalize().steps()]),
        ("Calibrated grids", [ChoosePrecision, EqualizeChannels, *map(type, grid_passes({})), AdjustProducts]),
        ("Lowering to integers", list(dict.fromkeys(type(step) for step in integer_lowering()))),
    ]
    known = {found for _, passes in stages for found in passes}
    stages.append(("By name only", [found for found in pass_table().values() if found not in known]))
    lines = [
        MADE,
        "# Passes",
        "",
        *_filled("""
            A pass rewrites a graph into a graph; after each of them the verifier runs. `qcomp opt IN --passes a,b`
            runs passes by name, `qcomp opt --list` lists them, `qcomp compile --print-after-all` shows the graph after
            each, and `--check-passes` runs the interpreter between passes and names the one that changed the results
            beyond what it declares: *exact* passes keep every output bit for bit, others state a tolerance. The
            docstring of a pass shows the graph before and after it."""),
        "",
        *_filled("""
            Canonicalization runs in rounds until nothing changes. A model whose own quantization leaves nothing open
            skips the calibrated grids."""),
    ]
    for title, passes in stages:
        lines += ["", f"## {title}", "", "| pass | what it does | options | exact |", "|---|---|---|---|"]
        for found in passes:
            options = ", ".join(f"`{name}`" for name in pass_options(found))
            module = Path(inspect.getfile(found)).stem
            summary = (found.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")
            exact = "yes" if found.exact else ""
            lines.append(f"| [`{found.name}`](../passes/{module}.py) | {summary} | {options} | {exact} |")
    return "\n".join(lines) + "\n"


def onnx_page() -> str:
    """Every ONNX op that has a converter, and which of our ops run on integers."""
    families: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for domain, op in table.supported_ops():
        converter = table.converter_for(domain, op)
        assert converter is not None
        families[converter.__module__][domain or "ai.onnx"].append(op)
    counts = {domain: sum(1 for d, _ in table.supported_ops() if d == domain) for domain in ("", table.MICROSOFT)}
    lines = [
        MADE,
        "# Supported ONNX ops",
        "",
        *_filled(f"""
            {counts[""]} ops of ONNX, opsets 7 and later, and {counts[table.MICROSOFT]} of onnxruntime's own domain
            com.microsoft are imported. Shapes are static: dynamic dimensions are bound with `--shape`, and what a shape
            is computed from is evaluated at import. What is not covered is named, with its nodes, in one message."""),
        "",
        *_filled("""
            `python -m qcomp.frontends.onnx.coverage` runs ONNX's own node tests through import and interpreter, and
            prints what passes, what is skipped and why."""),
        "",
        "| family | ONNX | com.microsoft |",
        "|---|---|---|",
    ]
    for name in sorted(families):
        summary = (importlib.import_module(name).__doc__ or "").strip().splitlines()[0].rstrip(".")
        cells = [", ".join(sorted(families[name][domain])) for domain in ("ai.onnx", table.MICROSOFT)]
        lines.append(f"| {summary} | {cells[0]} | {cells[1]} |")
    lines += [
        "",
        "## What computes on int8",
        "",
        *_filled("""
            By qcomp's names of the ops; everything else stays float32, and `qcomp check` names each such op with a
            reason."""),
        "",
        *_item(f"""
            **Products** with constant weights: {_listed(PRODUCTS)}. A matmul with a weight becomes gemm; a transposed
            convolution needs one group."""),
        *_item(f"""
            **Products** of computed tensors: {_listed(JOINT_PRODUCTS)}; attention is found in the pieces that exporters
            write, softmax included, and its mask stays float32."""),
        *_item(f"""
            **Normalizations** along the last axis, between other integer ops: {_listed(NORMALIZING)}; that of a
            residual stream reads int16, as do the sums that make the stream."""),
        *_item(f"**Clamps** behind a product or a sum become part of it: {_listed(CLAMPS)}."),
        *_item(f"**Arithmetic** of computed tensors: {_listed(ARITHMETIC)}."),
        *_item(f"""
            **Functions of one element**, any chain of which is one table of 256 entries: {_listed(UNARY - CLAMPS)};
            with a constant number as the other operand also {_listed(SCALAR_UNARY)}."""),
        *_item(f"""
            **Data movement** keeps the grid of its operand: {_listed(MOVEMENT)}. resize does in mode nearest, a
            constant pad with zero."""),
        "",
        "## What is not imported, and why",
        "",
        *(f"- {reason}" for reason in reasons()),
    ]
    return "\n".join(lines) + "\n"


def _filled(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, break_on_hyphens=False)


def _item(text: str) -> list[str]:
    """A paragraph as an item of a list."""
    lines = textwrap.wrap(" ".join(text.split()), WIDTH - 2, break_on_hyphens=False)
    return [f"{'  ' if index else '- '}{line}" for index, line in enumerate(lines)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


PAGES = {"passes.md": passes_page, "supported-onnx-ops.md": onnx_page}


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
