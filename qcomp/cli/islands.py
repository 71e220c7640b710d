"""Coverage for people: how much runs in which precision, and one entry for all float islands of a kind."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from qcomp.cli.output import count_text, plural

_NAMED = 3


def show_precisions(facts: Mapping[str, Any]) -> None:
    """Prints a line for int8, and one for int16 if any node reads that."""
    nodes, macs = facts["nodes"], facts["macs"]
    total, work = sum(nodes.values()), sum(macs.values())
    print(
        f"  int8     {nodes['int8']} of {plural(total, 'node')}, "
        f"{facts['int8_share_of_macs']:.1%} of {count_text(work)} multiply-accumulates"
    )
    if nodes["int16"]:
        share = f", {macs['int16'] / work:.1%} of the multiply-accumulates" if macs["int16"] else ""
        print(f"  int16    {plural(nodes['int16'], 'node')}{share}")


def show_islands(label: str, islands: Sequence[Mapping[str, Any]], copies: Sequence[str]) -> None:
    """Prints the lines behind a label; folded where a person watches, so that programs find one line each."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in island_lines(islands, copies):
        text, indent = f"{label}{line}", " " * len(label)
        folded = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) if width else [text]
        print("\n".join(folded))


def island_lines(islands: Sequence[Mapping[str, Any]], copies: Sequence[str]) -> list[str]:
    """`2 x softmax (sm0, sm1): this op has no int8 form [no-int8-form]; nothing to do: ...`, most work first.

    A last line counts the copies, given by their ops.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for island in islands:
        groups.setdefault((island["op"], island["reason"]), []).append(island)
    ordered = sorted(groups.items(), key=lambda item: (-sum(i["macs"] for i in item[1]), item[0]))
    lines = []
    for (op, reason), members in ordered:
        nodes = list(dict.fromkeys(i["node"] for i in members))  # the directions of a layer have one name
        names = ", ".join(nodes[:_NAMED]) + (", ..." if len(nodes) > _NAMED else "")
        first = members[0]
        lines.append(f"{len(members)} x {op} ({names}): {first['detail']} [{reason}]; {first['advice']}")
    if copies:
        lines.append(f"{len(copies)} x data movement ({', '.join(sorted(set(copies)))}): it follows the ops beside it")
    return lines
