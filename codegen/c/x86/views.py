"""Nodes and their buffers as the generators of this folder see them: planes, windows, stored arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qcomp.codegen.c.kernel import Buffer, Halo
from qcomp.codegen.c.x86.row import OFFSET
from qcomp.codegen.c.x86.shapes import ConvShape, Plane, Requantization
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


def plane(buffer: Buffer) -> Plane:
    """An NHWC buffer; of any other rank, its rows of channels as one line of pixels."""
    if len(buffer.shape) == 4:
        n, h, w, c = buffer.shape
        return Plane(n, h, w, c, buffer.halo)
    return Plane(1, 1, math.prod(buffer.shape[:-1]), buffer.shape[-1])


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


def window_shape(node: Node, x: Plane, y: Plane, kernel: tuple[int, int], groups: int) -> ConvShape:
    """Geometry of a node with attributes strides, pads and (optionally) dilations."""
    call = node.call
    sh, sw = call.ints("strides")
    dh, dw = call.ints("dilations") if "dilations" in node.attrs else (1, 1)
    top, left, bottom, right = call.ints("pads")
    return ConvShape(x, y, kernel, (sh, sw), (dh, dw), (top, left, bottom, right), groups)


def window_halo(node: Node, kernel: tuple[int, ...]) -> Halo:
    x, y = (plane(Buffer(v.dtype, v.shape)) for v in (node.input(0), node.output))
    return window_shape(node, x, y, (kernel[0], kernel[1]), 1).halo
