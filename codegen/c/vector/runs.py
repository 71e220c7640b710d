"""What a convolution multiplies: runs of contiguous bytes of its input with dense blocks of weights.

A kernel row is one contiguous run of KW*C bytes of an NHWC row whose halo holds the zero point, so a k x k
convolution is KH runs of products; dilated and grouped convolutions take one run per tap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.vector.packing import run_weights
from qcomp.codegen.c.vector.shapes import ConvShape, Int8


@dataclass(frozen=True)
class Runs:
    """The products of one block of groups, of which there are `blocks`: `inputs` to `outputs` channels.

    offsets: where runs start, in bytes from the output pixel's own input pixel; length: bytes of a run."""

    joined: int
    blocks: int
    inputs: int
    outputs: int
    per_tap: bool
    offsets: tuple[int, ...]
    length: int

    @property
    def kind(self) -> str:
        """What kernels are named by."""
        return "gemm" if len(self.offsets) == 1 else "conv"

    @property
    def dwords(self) -> int:
        return -(-self.length // 4)

    def weights(self, weights: Int8, groups: int) -> list[Int8]:
        """Of each block the weights [outputs, runs, dwords, 4], from [O, KH, KW, C/groups]."""
        dense = [block_weights(weights, groups, self.joined, b) for b in range(self.blocks)]
        return [run_weights(block, self.per_tap) for block in (dense if groups > 1 else [weights])]


def tap_offsets(shape: ConvShape) -> list[int]:
    """Bytes from an output pixel's own input pixel to that of each tap, in the order of the kernel."""
    (kh, kw), (dh, dw), x = shape.kernel, shape.dilations, shape.x
    top, left = shape.pads[:2]
    return [(i * dh - top) * x.row_stride + (j * dw - left) * x.channels for i in range(kh) for j in range(kw)]


def runs_of(shape: ConvShape) -> Runs:
    groups = shape.groups
    joined = group_blocks(groups, shape.x.channels // groups, shape.y.channels // groups) if groups > 1 else 1
    blocks = groups // joined
    inputs = shape.x.channels // blocks
    per_tap = (shape.dilations[1] != 1 and shape.kernel[1] > 1) or inputs != shape.x.channels
    length = inputs if per_tap else inputs * shape.kernel[1]
    return Runs(joined, blocks, inputs, shape.y.channels // blocks, per_tap, _offsets(shape, per_tap), length)


def _offsets(shape: ConvShape, per_tap: bool) -> tuple[int, ...]:
    row, column = shape.x.row_stride * shape.dilations[0], shape.x.channels * shape.dilations[1]
    origin = -shape.pads[0] * shape.x.row_stride - shape.pads[1] * shape.x.channels
    columns = range(shape.kernel[1]) if per_tap else range(1)
    return tuple(origin + i * row + j * column for i in range(shape.kernel[0]) for j in columns)


def group_blocks(groups: int, inputs: int, outputs: int) -> int:
    """How many groups one dense block joins, so that a block has 16 outputs or more where it can.

    inputs, outputs: channels of a group. Joined groups meet zeros in each other's weights."""
    for joined in range(1, groups + 1):
        if groups % joined == 0 and joined * outputs >= 16:
            return joined
    return groups


def block_weights(weights: Int8, groups: int, joined: int, block: int) -> Int8:
    """Dense weights [joined*Og, KH, KW, joined*Cg] of one block of groups, from [O, KH, KW, Cg]."""
    per_out, (kh, kw, per_in) = weights.shape[0] // groups, weights.shape[1:]
    dense = np.zeros((joined * per_out, kh, kw, joined * per_in), np.int8)
    for j in range(joined):
        source = (block * joined + j) * per_out
        dense[j * per_out : (j + 1) * per_out, :, :, j * per_in : (j + 1) * per_in] = weights[source : source + per_out]
    return dense
