"""Nodes and their buffers as generators of vector code see them: planes and windows."""

from __future__ import annotations

import math

from qcomp.codegen.c.kernel import Buffer, Halo
from qcomp.codegen.c.vector.shapes import ConvShape, Plane
from qcomp.ir import Node


def plane(buffer: Buffer) -> Plane:
    """An NHWC buffer; of any other rank, its rows of channels as one line of pixels."""
    if len(buffer.shape) == 4:
        n, h, w, c = buffer.shape
        return Plane(n, h, w, c, buffer.halo)
    return Plane(1, 1, math.prod(buffer.shape[:-1]), buffer.shape[-1])


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


def all_constant(node: Node, *operands: int) -> bool:
    """Whether the operands that are there are constants."""
    return all(v is None or v.is_constant for v in map(node.optional, operands))


def is_depthwise(shape: ConvShape) -> bool:
    """One input channel and one output channel a group."""
    return shape.groups > 1 and shape.groups == shape.x.channels == shape.y.channels
