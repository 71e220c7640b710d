"""Nodes and their buffers as the generators of this folder see them: planes, windows, stored arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcomp.codegen.c.kernel import Buffer
from qcomp.codegen.c.vector.shapes import Plane, Requantization
from qcomp.codegen.c.vector.views import plane
from qcomp.codegen.c.x86.row import OFFSET
from qcomp.ir import DType, Node, Value

_RESULTS = {DType.I8: "u8", DType.I16: "i16", DType.F32: "f32"}


def stored_offset(value: Value) -> int:
    """What stored elements exceed their logical values by."""
    return OFFSET if value.dtype is DType.I8 else 0


def stored_limits(node: Node) -> dict[str, int]:
    """Zero point and bounds of an integer result, as it is stored."""
    return {name: node.call.int(name) + stored_offset(node.output) for name in ("zp", "lo", "hi")}


def stored_constant(value: Value) -> np.ndarray:
    """A constant operand as activations are stored."""
    if value.dtype is DType.I8:
        return np.asarray((value.array.astype(np.int16) + OFFSET).astype(np.uint8))
    return value.array


def stored_table(node: Node, operand: int) -> tuple[int, ...] | None:
    """The constant table operand as a map of stored to stored values, None where it is absent."""
    value = node.optional(operand)
    if value is None:
        return None
    return tuple(int(v) + OFFSET for v in value.array)




def requantization(node: Node, table: int | None = None) -> Requantization:
    """Output arithmetic of a node in stored terms; `table` is the index of its table operand."""
    call, words = node.call, node.input(0).dtype is DType.I16
    offset = 0 if node.output.dtype is DType.I16 else OFFSET
    return Requantization(
        call.int("x_zp") + (0 if words else OFFSET),
        call.int("zp") + offset,
        call.int("lo") + offset,
        call.int("hi") + offset,
        None if table is None else stored_table(node, table),
        _RESULTS[node.output.dtype],
        words=words,
    )


def byte_plane(buffer: Buffer) -> Plane:
    """An operand of products: its channels as bytes."""
    found = plane(buffer)
    return replace(found, channels=found.channels * buffer.dtype.numpy.itemsize)




