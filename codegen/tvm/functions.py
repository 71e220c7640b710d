"""Functions that TVM compiled, as the C around them sees them: a prototype here, assembler text beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.tvm.adapter import assembly, guarded
from qcomp.targets import Target

_MOST_KEPT = 512
#: Stands in assembler text for the name that follows from it.
_NAME = "qc_tvm_function"


@lru_cache(_MOST_KEPT)
def compiled(
    spec: Hashable, scheduled: Callable[[Any], Any], target: Target, parameters: int, aliased: bool
) -> CFunction:
    """The function of pointers that `scheduled` makes a PrimFunc of; functions of the same code have the same name.

    aliased: results may lie where operands do."""
    with guarded(f"compile {type(spec).__name__}"):
        text = assembly(scheduled(spec), _NAME, target, aliased)
    name = f"qc_tvm_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    pointers = ", ".join(["const void*"] * (parameters - 1) + ["void*"])
    return CFunction(name, f"int32_t {name}({pointers});", text.replace(_NAME, name))
