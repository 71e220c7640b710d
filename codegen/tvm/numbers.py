"""The arithmetic of the numeric contract as TVM expressions: float32 steps, rounded half to even, clamped."""

from __future__ import annotations

from typing import Any

from qcomp.codegen.tvm.adapter import tvm

#: The bits of this float plus an integer below 2**22 in magnitude are the bits of their sum, rounded half to even.
_ROUNDER = 1.5 * 2.0**23


def added(left: Any, right: Any, kind: str) -> Any:
    """The float32 sum of two products, each rounded before: neither LLVM, which TVM lets do that, nor the CUDA compiler
    (`kind`) fuses one of them with the sum."""
    tirx = tvm().tirx
    if kind == "cuda":
        return tirx.call_pure_extern("float32", "__fadd_rn", left, right)
    return sum(tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", value) for value in (left, right))


def looked_up(byte: Any, table: Any, dtype: str) -> Any:
    """The entry of a table in the order of stored bytes, signed ones from -128 on."""
    return table[byte.astype("int32") + (128 if dtype == "int8" else 0)]


def stored(real: Any, low: Any, high: Any, zp: Any, dtype: str) -> Any:
    """A float32 number of steps as stored byte: clamped to low .. high, which are integers relative to the zero point,
    rounded half to even, the zero point added.

    Clamping first is exact, and leaves numbers that the rounding by a large addend is right for."""
    tirx = tvm().tirx
    shifted = tirx.max(tirx.min(real, high), low) + tirx.const(_ROUNDER, "float32")
    # The low byte of the bits is that of the integer; sums of unsigned bytes wrap.
    return (tirx.reinterpret("int32", shifted).astype("uint8") + zp.astype("uint8")).astype(dtype)
