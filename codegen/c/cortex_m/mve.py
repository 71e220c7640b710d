"""Convolutions and matrix products by Helium's VMLADAVA: sums of sixteen products, for four channels of two pixels."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.cortex_m.walk import Groups, Packed, line_length, pairs, walked
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.vector.packing import padded, stored_bias
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32

_VECTOR = 16


def rounding() -> CFunction:
    """The C functions that the kernels of this file and of mve_depthwise share."""
    return CFunction("qc_mve_steps", render("mve_round.c.j2"))


def conv_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, symbol: str
) -> KernelCode:
    """C of a convolution (any groups, strides, dilations) that rounds by float32.

    weights: int8 [O, KH, KW, C/groups]; bias, mult: [O].  Nothing behind the end of x is read.  Raises QcompError where
    bias - zp * sum(w) leaves int32."""
    layout = runs_of(shape)
    folded = stored_bias(weights, bias, x_zp)
    width = -(-layout.outputs // 4) * 4
    packed, starts, scales = [], [], []
    for block, dense in enumerate(layout.weights(weights, shape.groups)):
        own = slice(block * layout.outputs, (block + 1) * layout.outputs)
        packed.append(_packed(padded(dense.reshape(*dense.shape[:2], -1)[:, :, : layout.length], width)))
        starts.append(padded(folded[own], width))
        scales.append(padded(mult[own].astype(np.float32), width))
    found = pairs(line_length(shape, ending.residual))
    text = render(
        "mve_conv.c.j2", symbol=symbol, runs=layout.offsets, length=layout.length, ending=ending, tiles=found,
        xs=shape.x_step, ys=shape.y.channels, outputs=layout.outputs,
    )  # fmt: skip
    constants = (
        Packed("int8_t", "weights", np.concatenate(packed), int(packed[0].size)),
        Packed("int32_t", "bias", np.concatenate(starts), width),
        Packed("float", "mult", np.concatenate(scales), width),
    )
    kernel = f"mve {layout.kind} {found[0].pixels}x4"
    groups = Groups(layout.blocks, layout.inputs, layout.outputs)
    return walked(symbol, text, shape, ending, found, constants, _VECTOR, kernel, (rounding(),), groups)


def _packed(weights: Int8) -> Int8:
    """[O, runs, length], O a multiple of 4 -> for each four channels and each run: sixteen inputs (the last time fewer)
    of each channel after the other."""
    outputs, _, length = weights.shape
    quads = weights.reshape(outputs // 4, 4, -1, length).transpose(0, 2, 1, 3)  # [quads, runs, 4, length]
    whole = length - length % _VECTOR
    head = quads[..., :whole].reshape(*quads.shape[:3], -1, _VECTOR).swapaxes(2, 3)
    parts = [head.reshape(*quads.shape[:2], -1), quads[..., whole:].reshape(*quads.shape[:2], -1)]
    return np.concatenate(parts, axis=2).reshape(-1)
