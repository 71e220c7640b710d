"""How layers of products are cut into tasks: lines of pixels, and parts of the channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcomp.codegen.c.vector.lines import Lines, flat_lines, row_lines
from qcomp.codegen.tvm.layers import Layer
from qcomp.codegen.tvm.packing import block_shape
from qcomp.codegen.tvm.shares import divisor
from qcomp.codegen.tvm.tiling import Tiling


@dataclass(frozen=True)
class Kind:
    """What one call computes: `blocks` blocks of `vectors` vectors of channels, of which there are `channels`."""

    blocks: int
    vectors: int
    channels: int


@dataclass(frozen=True)
class Share:
    """Channels of a task: of which kind, and from which element on of x, weights, bias and multipliers, and y."""

    kind: int
    x: int
    w: int
    c: int
    y: int


@dataclass(frozen=True)
class Grid:
    """Tasks: `together` lines of `lines`, times one of the shares."""

    lines: Lines
    together: int
    kinds: list[Kind]
    shares: list[Share]

    @property
    def count(self) -> int:
        return self.lines.count // self.together * len(self.shares)


def grid_of(layer: Layer, tiling: Tiling) -> Grid:
    """Lines are cut as the layer says; where that gives too few tasks, channels are cut too, in equal numbers of whole
    blocks."""
    shape, widths = layer.shape, tiling.widths(layer.outputs)
    if layer.flat:
        lines, together = flat_lines(shape, layer.line, shape.y.pixels), 1
    else:
        lines = row_lines(shape)
        together = lines.per_image // divisor(lines.per_image, -(-layer.pieces // shape.y.batch))
    missing = -(-layer.tasks // (lines.count // together * layer.groups))
    cuts = [divisor(widths[0][0], missing), *[1] * (len(widths) - 1)]
    kinds = [Kind(b // cut, v, c // cut) for (b, v, c), cut in zip(widths, cuts, strict=True)]
    return Grid(lines, together, kinds, _shares(layer, tiling, kinds, widths))


def _shares(
    layer: Layer, tiling: Tiling, kinds: Sequence[Kind], widths: Sequence[tuple[int, int, int]]
) -> list[Share]:
    shares, w, c, lanes = [], 0, 0, tiling.form.lanes
    for group in range(layer.groups):
        first = 0
        for index, (kind, (blocks, vectors, _)) in enumerate(zip(kinds, widths, strict=True)):
            size = math.prod(block_shape(layer, tiling, vectors))
            for _ in range(blocks // kind.blocks):
                x = group * layer.inputs + (first if layer.depthwise else 0)
                shares.append(Share(index, x, w, c, group * layer.outputs + first))
                w, c = w + kind.blocks * size, c + kind.blocks * vectors * lanes
                first += kind.channels
    return shares
