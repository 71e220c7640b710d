"""The kernel table of the C back end: kernels for an instruction set first, portable ones behind them."""

from __future__ import annotations

from functools import cache

from qcomp.codegen.c.kernel import Kernel, KernelTable
from qcomp.codegen.c.portable import PORTABLE
from qcomp.codegen.c.x86.kernels import X86_KERNELS


@cache
def kernel_table(*, portable_only: bool = False) -> KernelTable:
    """All kernels in order of preference; the first that fits a node and target is taken."""
    return KernelTable(PORTABLE if portable_only else (*_specialised(), *PORTABLE))


def _specialised() -> tuple[Kernel, ...]:
    return X86_KERNELS
