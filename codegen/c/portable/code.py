"""Small pieces that portable kernels share: rendering, C helpers, how stored int8 is read and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelRequest
from qcomp.codegen.c.render import CTYPES, environment, float_literal
from qcomp.codegen.plan.buffer import Buffer
from qcomp.errors import QcompError
from qcomp.ir import DType, Node, Value

_TEMPLATES = Path(__file__).parent / "templates"

FIXED = CFunction(
    "q_clamp",
    """\
static inline int32_t q_clamp(int32_t v, int32_t lo, int32_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}
static inline __attribute__((unused)) int32_t q_clamp_wide(int64_t v, int32_t lo, int32_t hi)
{
    return v < lo ? lo : v > hi ? hi : (int32_t)v;
}""",
)

ROUND = CFunction(
    "q_round",
    """\
/* Clamps v to [lo, hi] (integers below 2^22) and rounds half to even: adding 1.5 * 2^23 leaves no fraction bits. */
static inline int32_t q_round(float v, float lo, float hi)
{
    v = v < lo ? lo : v;
    v = v > hi ? hi : v;
    return (int32_t)((v + 12582912.0f) - 12582912.0f);
}""",
)


def fixed_rounded(terms: str, shift: int, zp: int, lo: int, hi: int, stored: int, *, wide: bool = True) -> str:
    """C of a sum of products in fixed point (qcomp.ir.fixed_point), rounded, with zero point and clamp, as it is
    stored; it needs FIXED.  wide: the terms are int64, else int32."""
    half = f"{1 << (shift - 1)}" + ("LL" if shift > 31 else "")
    # From 32 bits on, what a 64-bit product of int32 leaves fits in an int32.
    narrowed = f"(int32_t)(({terms} + {half}) >> {shift})"
    clamped = f"q_clamp({narrowed}, {lo - zp}, {hi - zp})"
    if wide and shift < 32:
        clamped = f"q_clamp_wide(({terms} + {half}) >> {shift}, {lo - zp}, {hi - zp})"
    return f"{clamped} + {zp + stored}"


def rounded(real: str, zp: int, lo: int, hi: int, shift: int) -> str:
    """C of a float rounded to integers, zero point added and clamped to [lo, hi], as it is stored; it needs ROUND."""
    return f"q_round({real}, {float_literal(lo - zp)}, {float_literal(hi - zp)}) + {zp + shift}"


def render(template: str, **values: Any) -> str:
    """Text of `templates/TEMPLATE`; an unknown name is an error."""
    return environment(_TEMPLATES).get_template(template).render(**values)


def ctype(buffer: Buffer, request: KernelRequest) -> str:
    """C type of a buffer's elements."""
    if buffer.dtype is DType.I8:
        return "int8_t" if buffer.external else request.target.stored_ctype
    return scalar_type(buffer.dtype, request.node)


def scalar_type(dtype: DType, node: Node) -> str:
    if dtype not in CTYPES:
        raise QcompError(f"{dtype.value} has no C type", where=f"node {node.name!r}", fix="cast the model to float32")
    return CTYPES[dtype]


def stored_shift(buffer: Buffer, request: KernelRequest) -> int:
    """What a stored element exceeds its logical value by."""
    return request.stored_offset if buffer.dtype is DType.I8 and not buffer.external else 0


@dataclass(frozen=True)
class Source:
    """One operand as a kernel reads it: a pointer, element strides along the node's dimensions, C type and shift."""

    pointer: str
    ctype: str
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    shift: int = 0

    def load(self, element: str) -> str:
        """C expression of the logical value of a stored element."""
        if self.dtype is DType.I8:
            return f"((int32_t){element} - {self.shift})" if self.shift else f"(int32_t){element}"
        return element


class Operands:
    """Operands of a request by index, constants included; collects the constants to pack.

    p[] is laid out as the contract says: inputs, outputs, then constants in the order they were asked for.
    """

    def __init__(self, request: KernelRequest) -> None:
        self.request = request
        self.constants: list[np.ndarray] = []
        self._positions: dict[int, int] = {}
        for index, value in enumerate(request.node.inputs):
            if value is not None and not value.is_constant:
                self._positions[index] = len(self._positions)

    def constant(self, array: np.ndarray) -> str:
        """Packs an array; the pointer expression."""
        self.constants.append(np.ascontiguousarray(array))
        return f"p[{len(self.request.inputs) + len(self.request.outputs) + len(self.constants) - 1}]"

    def source(self, index: int) -> Source:
        """Operand `index`, computed or constant."""
        request = self.request
        value: Value = request.node.input(index)
        if value.data is not None:
            dense = Buffer(value.dtype, value.shape).strides
            array = value.data.view(np.uint8) if value.data.dtype == np.bool_ else value.data
            return Source(
                self.constant(array), scalar_type(value.dtype, request.node), value.dtype, value.shape, dense
            )
        position = self._positions[index]
        buffer = request.inputs[position]
        return Source(
            f"p[{position}]", ctype(buffer, request), buffer.dtype, buffer.shape, buffer.strides,
            stored_shift(buffer, request),
        )  # fmt: skip

    def result(self, index: int = 0) -> Source:
        """Result `index`; its pointer is writable."""
        request = self.request
        buffer = request.outputs[index]
        return Source(
            f"p[{len(request.inputs) + index}]", ctype(buffer, request), buffer.dtype, buffer.shape, buffer.strides,
            stored_shift(buffer, request),
        )  # fmt: skip

    def present(self, index: int) -> bool:
        return index < len(self.request.node.inputs) and self.request.node.inputs[index] is not None


def stored_table(table: np.ndarray, offset: int) -> np.ndarray:
    """i8[256] indexed by value + 128 -> u8[256] indexed by the stored byte, holding the stored byte."""
    stored = np.arange(256)
    logical = np.where(stored < 128, stored, stored - 256) if offset == 0 else stored - offset
    return (table[logical + 128].astype(np.int64) + offset).astype(np.uint8)


def signed_table(node: Node, operand: int) -> tuple[int, ...] | None:
    """The constant table operand of activations that are stored signed, as uint8 by stored byte; None where it is
    absent."""
    value = node.optional(operand)
    return None if value is None else tuple(int(v) for v in stored_table(value.array, 0))
