"""In which precision each node of a float graph shall compute: what a person or a search chose.

The choice stands in the graph's attribute `precision`, as "node=float32" texts; nodes that it does not name compute in
int8 where they can.  In int16 a node reads activations of 16 bits; its weights stay int8.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node
from qcomp.ir.types import DType

# What may be chosen, and the type that the activations which the node reads then have.
PRECISIONS: Mapping[str, DType] = {"int8": DType.I8, "int16": DType.I16, "float32": DType.F32}
DEFAULT = "int8"

ATTRIBUTE = "precision"
#: Names the attention nodes whose weights integers cannot hold (qcomp.quantize.attention_tails).
LONG_TAILS = "long_tails"


def chosen_precision(graph: Graph) -> dict[str, str]:
    """Node name -> precision, of the nodes that a choice names."""
    entries = graph.attrs.get(ATTRIBUTE, ())
    assert isinstance(entries, tuple)
    pairs = (str(entry).rpartition("=") for entry in entries)
    return {name: precision for name, _, precision in pairs}


def set_precision(graph: Graph, precision: Mapping[str, str]) -> None:
    """Notes the choice in the graph, for the passes that put grids in."""
    graph.attrs.pop(ATTRIBUTE, None)
    if precision:
        graph.attrs[ATTRIBUTE] = tuple(f"{name}={precision[name]}" for name in sorted(precision))


def float_names(graph: Graph) -> frozenset[str]:
    """The nodes that were chosen to compute on floats, or have to."""
    chosen = {name for name, chosen in chosen_precision(graph).items() if PRECISIONS[chosen].is_float}
    return frozenset(chosen | long_tails(graph))


def long_tails(graph: Graph) -> frozenset[str]:
    """The attention nodes that compute on floats since integers cannot hold their weights."""
    names = graph.attrs.get(LONG_TAILS, ())
    assert isinstance(names, tuple)
    return frozenset(map(str, names))


def chosen_float(graph: Graph, node: Node) -> bool:
    """Whether this node was chosen to compute on floats, or has to."""
    return bool({ATTRIBUTE, LONG_TAILS} & graph.attrs.keys()) and node.name in float_names(graph)


def check_precision(precision: Mapping[str, str], where: str) -> None:
    """QcompError for precisions that there are not."""
    for name, chosen in precision.items():
        if chosen not in PRECISIONS:
            raise QcompError(
                f"{chosen!r} is no precision", where=f"{where}: {name!r}", fix=f"use {', '.join(PRECISIONS)}"
            )


def check_names(graph: Graph, precision: Mapping[str, str], where: str) -> None:
    """QcompError for names that no node of the graph has."""
    known = {node.name for node in graph.nodes}
    for name in precision:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            fix = f"did you mean {', '.join(near)}?" if near else "`qcomp analyze` lists the layers by name"
            raise QcompError(f"the model has no node {name!r}", where=where, fix=fix)


def read_precision(path: Path) -> dict[str, str]:
    """The choice in a JSON file, an object of node name to precision; QcompError for anything else."""
    fix = 'write {"node": "float32"}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QcompError(f"cannot be read: {error.strerror}", where=str(path), fix="check the path") from None
    except ValueError:
        raise QcompError("this is no JSON", where=str(path), fix=fix) from None
    if not isinstance(content, dict) or not all(isinstance(chosen, str) for chosen in content.values()):
        raise QcompError("this is no object of node name to precision", where=str(path), fix=fix)
    check_precision(content, str(path))
    return content


def precision_text(precision: Mapping[str, str]) -> str:
    """The choice as `read_precision` takes it; equal choices give equal bytes."""
    return json.dumps(dict(precision), indent=1, ensure_ascii=False) + "\n"
