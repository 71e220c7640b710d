"""Back ends by name: which kernel tables the planner and the emitter, which all share, work with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from qcomp.codegen.c.kernel import KernelTable
from qcomp.codegen.c.package import Tuned
from qcomp.codegen.c.table import kernel_table
from qcomp.errors import QcompError
from qcomp.targets import Target

BACKENDS = ("c", "tvm", "auto")


@cache
def table_of(backend: str, sharing: bool = False) -> KernelTable:
    """The table of a back end: "c", "tvm" (TVM's kernels before those of C, which compute what TVM does not), or "auto"
    (the other way round: TVM computes what a tuning says). sharing: as of `kernel_table`.

    Raises QcompError for an unknown name, or where TVM is not installed."""
    own = kernel_table(sharing=sharing)
    if backend == "c":
        return own
    if backend not in BACKENDS:
        raise QcompError(f"unknown back end {backend!r}", fix=f"use {', '.join(BACKENDS)}")
    from qcomp.codegen.tvm.adapter import check_installed
    from qcomp.codegen.tvm.kernels import tvm_kernels

    check_installed()
    rows = tvm_kernels(own)
    return KernelTable((*rows, *own.kernels) if backend == "tvm" else (*own.kernels, *rows))


def check_backend(backend: str, targets: Sequence[Target], measured: bool) -> None:
    """QcompError where a back end cannot compile for any of the targets, "auto" has no measurements to follow, or TVM
    is not installed."""
    if backend == "c":
        return
    from qcomp.codegen.tvm.forms import DENSE

    if backend in BACKENDS and not any(form.fits(target) for target in targets for form in DENSE):
        raise QcompError(
            f"TVM computes no products for {', '.join(target.name for target in targets)}", where="back end",
            fix="use the back end c, or a target with AVX512-VNNI, AMX or ARM's dot products",
        )  # fmt: skip
    if backend == "auto" and len(targets) > 1:
        raise QcompError(
            f"the back end auto is for one target, and this artifact is for {len(targets)}", where="back end",
            fix=f"compile for one of them: {', '.join(target.name for target in targets)}",
        )  # fmt: skip
    if backend == "auto" and not measured:
        raise QcompError(
            "the back end auto takes what was measured as faster, and there is no tuning", where="back end",
            fix="run `qcomp tune --backend auto` and give its file as the tuning (--tuning)",
        )  # fmt: skip
    table_of(backend)


def check_followed(backend: str, tuned: Tuned | None) -> None:
    """QcompError where "auto" was given a tuning that has none of the model's layers."""
    if backend == "auto" and tuned is not None and tuned.layers and not tuned.found:
        raise QcompError(
            f"none of the model's {tuned.layers} layers is in the tuning, which the back end auto follows",
            where="back end", fix="run `qcomp tune --backend auto` on this model",
        )  # fmt: skip
