"""Which back end computes what of an artifact."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qcomp.codegen.c.package import SourcePackage


def backend_coverage(package: SourcePackage, backend: str) -> dict[str, Any] | None:
    """Of a package whose back end is not C alone: the steps that TVM computes, their share of the multiply-accumulates,
    and what C computes, with the reason.  Of several levels the best; "levels" has the share of each."""
    if backend == "c":
        return None
    from qcomp.codegen.tvm.coverage import is_by_tvm, macs_share, reason

    levels = package.metadata.get("levels", [package.metadata])
    steps = levels[0]["steps"]
    return {
        "name": backend,
        "steps": len(steps),
        "tvm_steps": sum(map(is_by_tvm, steps)),
        "tvm_macs_share": macs_share(steps),
        "levels": {level["target"]: macs_share(level["steps"]) for level in levels},
        "by_c": [
            {"node": step["name"], "op": step["op"], "kernel": step["kernel"], "reason": reason(step["op"], backend)}
            for step in steps
            if not is_by_tvm(step)
        ],
    }


def backend_text(coverage: dict[str, Any]) -> str:
    """The same on one line."""
    share, levels = coverage["tvm_macs_share"], coverage["levels"]
    text = f"{share:.1%} of the multiply-accumulates, {coverage['tvm_steps']} of {coverage['steps']} steps"
    others = Counter((step["op"], step["reason"]) for step in coverage["by_c"])
    if others:
        text += "; by C: " + ", ".join(f"{count} {op} ({why})" for (op, why), count in others.items())
    if len(levels) > 1:
        text = f"{next(iter(levels))}: {text}"
        text += "; " + ", ".join(f"{name} {of_level:.1%}" for name, of_level in list(levels.items())[1:])
    return text
