"""What all TVM rows of the kernel table share."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.kernel import Kernel
from qcomp.ir import Value
from qcomp.targets import Target


class TvmKernel(Kernel):
    """A row that TVM compiles. Its C functions have names of their own: it can stand in for a kernel of any family."""

    kind: str
    family, standalone = "tvm", True

    def __init__(self) -> None:
        self.name = f"tvm_{self.kind}"


def stored_dtype(target: Target) -> str:
    """Of int8 activations, as TVM names it."""
    return "uint8" if target.stored_offset else "int8"


def stored_table(table: Value | None, target: Target) -> np.ndarray | None:
    """A table operand as stored bytes, None where it is absent."""
    if table is None:
        return None
    return np.asarray((table.array.astype(np.int16) + target.stored_offset).astype(stored_dtype(target)))
