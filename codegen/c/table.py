"""The kernel table of the C back end: kernels for an instruction set first, portable ones behind them."""

from __future__ import annotations

from functools import cache

from qcomp.codegen.c.arm.kernels import ARM_KERNELS
from qcomp.codegen.c.cortex_m.kernels import CORTEX_M_KERNELS
from qcomp.codegen.c.kernel import KernelTable
from qcomp.codegen.c.portable import PORTABLE
from qcomp.codegen.c.x86.kernels import X86_KERNELS
from qcomp.codegen.c.x86.sharing import SHARING_X86_KERNELS


@cache
def kernel_table(*, portable_only: bool = False, sharing: bool = False) -> KernelTable:
    """All kernels in order of preference; the first that fits a node and target is taken.

    sharing: in the forms that have most constants in common with those of other targets."""
    if portable_only:
        return KernelTable(PORTABLE)
    return KernelTable((*(SHARING_X86_KERNELS if sharing else X86_KERNELS), *ARM_KERNELS, *CORTEX_M_KERNELS, *PORTABLE))
