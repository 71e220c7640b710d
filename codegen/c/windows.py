"""How far the results of kernels that walk windows in order stay behind what they still read."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType, Node


def window_lead(node: Node, x: Buffer, y: Buffer, *, pixels: int | None = 1) -> int | None:
    """`Kernel.lead` of a kernel that goes through the result's rows, and in each through groups of `pixels` neighbours
    (None: it takes each row as a whole), of which it may read and write in any order.

    x, y: NHWC of int8, of any other rank rows of channels."""
    if x.dtype is not DType.I8 or y.dtype is not DType.I8:
        return None
    call = node.call
    top, left, stride = 0, 0, (1, 1)
    if len(x.shape) == 4 and "pads" in node.attrs:
        top, left = call.ints("pads")[:2]
        stride = (call.ints("strides")[0], call.ints("strides")[1])
    (_, height, width, outs), (_, _, _, channels) = (_as_image(buffer) for buffer in (y, x))
    group = width if pixels is None else min(pixels, width)
    x_image, x_row, _, _ = _strides(x)
    y_image, y_row, _, _ = _strides(y)
    images, rows = np.arange(_as_image(y)[0])[:, None, None], np.arange(height)[None, :, None]
    ends = np.arange(1, width + 1)[None, None, :]
    starts = np.maximum(ends - group, 0)  # wherever groups begin
    written = images * y_image + rows * y_row + ends * outs
    read = images * x_image + (rows * stride[0] - top) * x_row + (starts * stride[1] - left) * channels
    return int((written - read).max())


def _as_image(buffer: Buffer) -> tuple[int, int, int, int]:
    if len(buffer.shape) == 4:
        n, h, w, c = buffer.shape
        return n, h, w, c
    return 1, 1, int(np.prod(buffer.shape[:-1])), buffer.shape[-1]


def _strides(buffer: Buffer) -> tuple[int, ...]:
    return buffer.strides if len(buffer.shape) == 4 else (0, 0, buffer.shape[-1], 1)
