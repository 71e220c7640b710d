"""The TVM rows of the kernel table."""

from __future__ import annotations

from qcomp.codegen.c.kernel import Kernel, KernelTable
from qcomp.codegen.tvm.plain_rows import PLAIN_ROWS
from qcomp.codegen.tvm.product_rows import PRODUCT_ROWS

#: Ops that there are rows for.
OPS = frozenset(row.op for row in (*PRODUCT_ROWS, *PLAIN_ROWS))


def tvm_kernels(fallback: KernelTable) -> tuple[Kernel, ...]:
    """The rows; `fallback` has others for all that these compute."""
    return (*(row(fallback) for row in PRODUCT_ROWS), *(row() for row in PLAIN_ROWS))
