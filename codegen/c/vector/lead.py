"""How far the results of kernels that walk windows in order stay behind what they still read."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.vector.shapes import ConvShape
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType


def window_lead(x: Buffer, y: Buffer, shape: ConvShape, pixels: int | None = 1) -> int | None:
    """`Kernel.lead` of a kernel that goes through the rows of the result, and in each through groups of `pixels`
    neighbours (None: it takes each row as a whole), of which it may read and write in any order.

    shape: how the kernel sees the node on these buffers, of int8; None for others."""
    if x.dtype is not DType.I8 or y.dtype is not DType.I8:
        return None
    (sh, sw), (top, left, _, _) = shape.strides, shape.pads
    from_plane, to = shape.x, shape.y
    group = to.width if pixels is None else min(pixels, to.width)
    images, rows = np.arange(to.batch)[:, None, None], np.arange(to.height)[None, :, None]
    ends = np.arange(1, to.width + 1)[None, None, :]
    starts = np.maximum(ends - group, 0)  # wherever groups begin
    written = images * to.image_stride + rows * to.row_stride + ends * to.channels
    first = (rows * sh - top) * from_plane.row_stride + (starts * sw - left) * from_plane.channels
    return int((written - images * from_plane.image_stride - first).max())
