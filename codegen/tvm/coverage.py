"""What TVM does not compute, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qcomp.codegen.tvm.kernels import OPS


def is_by_tvm(step: Mapping[str, Any]) -> bool:
    """Whether TVM computes a step, as artifacts' metadata has it."""
    return bool(step["kernel"].startswith("tvm "))


def macs_share(steps: Iterable[Mapping[str, Any]]) -> float:
    """Of the multiply-accumulates of all steps, what TVM computes."""
    macs = {True: 0, False: 0}
    for step in steps:
        macs[is_by_tvm(step)] += step["macs"]
    return macs[True] / max(1, sum(macs.values()))


def reason(op: str, backend: str) -> str:
    """Code of the reason for which C computes a step of that op: `tvm-no-kernel` where TVM has no lowering of it,
    `tvm-no-form` where it has none for the types or shapes, `as-tuned` where a tuning decides."""
    if op not in OPS:
        return "tvm-no-kernel"
    return "as-tuned" if backend == "auto" else "tvm-no-form"
