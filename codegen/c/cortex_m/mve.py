"""Convolutions and matrix products by Helium's VMLADAVA: sums of sixteen products, for four channels of two pixels."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.cortex_m.dsp import Tile
from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.lines import lines_of
from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.packing import padded, stored_bias
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32, Plane

_VECTOR = 16


def rounding() -> CFunction:
    """The C functions that the kernels of this file and of mve_depthwise share."""
    return CFunction("qc_mve_steps", render("mve_round.c.j2"))


def pairs(length: int) -> list[Tile]:
    """Tiles of two pixels, and of one for what is left, that cover a line."""
    two, one = divmod(length, 2)
    return [tile for tile in (Tile(2, two), Tile(1, one)) if tile.repeats]


def conv_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, residual: Plane | None,
    symbol: str,
) -> KernelCode:  # fmt: skip
    """C of a convolution (any groups, strides, dilations) that rounds by float32.

    weights: int8 [O, KH, KW, C/groups]; bias, mult: [O].  residual: where what `ending` adds lies.  Nothing behind the
    end of x is read.  Raises QcompError where bias - zp * sum(w) leaves int32."""
    layout = runs_of(shape)
    folded = stored_bias(weights, bias, x_zp)
    lines = lines_of(shape, residual)
    width = -(-layout.outputs // 4) * 4
    packed, starts, scales = [], [], []
    for block, dense in enumerate(layout.weights(weights, shape.groups)):
        own = slice(block * layout.outputs, (block + 1) * layout.outputs)
        packed.append(_packed(padded(dense.reshape(*dense.shape[:2], -1)[:, :, : layout.length], width)))
        starts.append(padded(folded[own], width))
        scales.append(padded(mult[own].astype(np.float32), width))
    parts = split(lines.count, shape.macs / max(1, lines.count) / _VECTOR)
    y = 1 + (residual is not None)
    found = pairs(lines.length)
    text = render(
        "mve_conv.c.j2", symbol=symbol, runs=layout.offsets, length=layout.length, ending=ending,
        slots={"y": y, "w": y + 1}, parts=parts, lines=lines, tiles=found, xs=shape.strides[1] * shape.x.channels,
        ys=shape.y.channels, blocks=layout.blocks, inputs=layout.inputs, outputs=layout.outputs, scales=width,
        block_bytes=int(packed[0].size),
        residual_mult=float_literal(0.0 if ending.residual is None else ending.residual.mult),
    )  # fmt: skip
    constants = [np.concatenate(packed), np.concatenate(starts), np.concatenate(scales)]
    if ending.table is not None:
        constants.append(np.array(ending.table, np.uint8))
    kind = "gemm" if len(layout.offsets) == 1 else "conv"
    kernel = f"mve {kind} {found[0].pixels}x4"
    return KernelCode((rounding(),), text, parts.count, tuple(constants), kernel)


def _packed(weights: Int8) -> Int8:
    """[O, runs, length], O a multiple of 4 -> for each four channels and each run: sixteen inputs (the last time fewer)
    of each channel after the other."""
    outputs, _, length = weights.shape
    quads = weights.reshape(outputs // 4, 4, -1, length).transpose(0, 2, 1, 3)  # [quads, runs, 4, length]
    whole = length - length % _VECTOR
    head = quads[..., :whole].reshape(*quads.shape[:3], -1, _VECTOR).swapaxes(2, 3)
    parts = [head.reshape(*quads.shape[:2], -1), quads[..., whole:].reshape(*quads.shape[:2], -1)]
    return np.concatenate(parts, axis=2).reshape(-1)
