"""Convolutions and matrix products by SMLAD: pairs of output channels for two or three pixels at a time.

Two int8 weights of one input, of channels A and B, are packed as the halfword 256·B + A.  One SMLAD with that halfword
and one with its low byte give 256·ΣxB + ΣxA and ΣxA: half of the weights need no widening.  The difference is exact
modulo 2^32, so ΣxB must be proved to fit in 24 bits; where it is not, both bytes are widened.
"""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.cortex_m.ending import Ending
from qcomp.codegen.c.cortex_m.render import render
from qcomp.codegen.c.cortex_m.walk import Groups, Packed, Tile, line_length, walked
from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.vector.packing import as_bytes, padded, stored_bias
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32

#: Pixels of a tile: what 14 registers hold.
_MOST_PIXELS = 3
_MOST_UNROLLED = 4
#: Byte offsets that a load reaches from a register.
_FARTHEST = 4095


def tiles(length: int, step: int) -> list[Tile]:
    """Tiles of three and two pixels that cover a line of `length`; of one where pixels lie too far apart (`step`
    bytes) or there is but one."""
    if length == 1 or step * (_MOST_PIXELS - 1) + 4 * (_MOST_UNROLLED + 2) > _FARTHEST:
        return [Tile(1, length)]
    twos = (-length) % 3
    threes = (length - 2 * twos) // 3
    found = [Tile(3, threes), Tile(2, twos)]
    return [tile for tile in found if tile.repeats > 0]


def unrolled(dwords: int) -> int:
    """Words of a run that one turn of the inner loop takes: a divisor of their number."""
    if dwords <= _MOST_UNROLLED + 2:
        return dwords
    return max(u for u in range(1, _MOST_UNROLLED + 1) if dwords % u == 0)


def fits_24_bits(weights: Int8, bias: Int32) -> bool:
    """Whether no sum of products with int8, bias included, leaves 24 bits; weights [O, ...], bias as stored."""
    reach = np.abs(weights.reshape(weights.shape[0], -1).astype(np.int64)).sum(axis=1) * 128
    return bool(np.all(reach + np.abs(bias.astype(np.int64)) < 2**23)) and int(weights.min(initial=0)) > -128


def conv_code(
    shape: ConvShape, weights: Int8, bias: Int32, mult: Float32, x_zp: int, ending: Ending, symbol: str
) -> KernelCode:
    """C of a convolution (any groups, strides, dilations).

    weights: int8 [O, KH, KW, C/groups]; bias, mult: [O].  Up to 3 bytes behind the end of x are read.  Raises
    QcompError where bias - zp * sum(w) leaves int32."""
    layout = runs_of(shape)
    folded = stored_bias(weights, bias, x_zp)
    multipliers = ending.multipliers(mult)
    step = shape.x_step
    joint = fits_24_bits(weights, folded)
    even = layout.outputs + layout.outputs % 2
    packed, scales = [], []
    for block, dense in enumerate(layout.weights(weights, shape.groups)):
        own = slice(block * layout.outputs, (block + 1) * layout.outputs)
        packed.append(_packed(padded(dense, even), padded(folded[own], even), joint))
        scales.append(padded(multipliers[own], even))
    found = tiles(line_length(shape, ending.residual), step)
    sums = {tile.pixels: _sums(tile.pixels, step, layout.dwords, len(layout.offsets), joint) for tile in found}
    text = render(
        "dsp_conv.c.j2", symbol=symbol, runs=layout.offsets, joint=joint, tiles=found, ending=ending,
        names={pixels: helper.name for pixels, helper in sums.items()}, ys=shape.y.channels, outputs=layout.outputs,
        pair_bytes=8 * (1 + layout.dwords * len(layout.offsets)),
    )  # fmt: skip
    constants = (
        Packed("int8_t", "weights", np.concatenate(packed), int(packed[0].size)),
        Packed(ending.multiplier_type, "mult", np.concatenate(scales), even),
    )
    kernel = f"smlad {layout.kind} {found[0].pixels}x2"
    groups = Groups(layout.blocks, layout.inputs, layout.outputs)
    return walked(
        symbol, text, shape, ending, found, constants, 2, kernel, (ending.helper, *sums.values()), groups
    )


def _sums(pixels: int, step: int, dwords: int, runs: int, joint: bool) -> CFunction:
    """The function that sums up for `pixels` pixels, `step` bytes apart, and one pair of channels."""
    name = f"qc_dsp_{pixels}x{step}_{dwords}x{runs}" + ("" if joint else "_wide")
    values = {"pixels": pixels, "xs": step, "dwords": dwords, "unroll": unrolled(dwords), "runs": runs, "joint": joint}
    return CFunction(name, render("dsp_tile.c.j2", name=name, **values))


def _packed(weights: Int8, bias: Int32, joint: bool) -> np.ndarray:
    """For each pair of channels: two int32 that sums start from, then for each four inputs two words of weights.

    weights: [O, runs, dwords, 4], O even; bias [O]."""
    outputs = weights.shape[0]
    flat = weights.reshape(outputs // 2, 2, -1, 4).astype(np.int64)  # [pairs, AB, dwords, k]
    a, b = flat[:, 0], flat[:, 1]
    if joint:
        halves = (256 * b + a).astype(np.int16)  # [pairs, dwords, k]
    else:
        halves = ((b << 8) | (a & 0xFF)).astype(np.int16)
    words = halves[:, :, [0, 2, 1, 3]]  # as SXTB16 takes bytes 0 and 2, then 1 and 3
    starts = bias.reshape(-1, 2).astype(np.int64)
    if joint:
        starts = np.stack([starts[:, 0], starts[:, 0] + 256 * starts[:, 1]], axis=1)
    rows = [
        np.concatenate([as_bytes(start.astype(np.int64).astype(np.uint64).astype(np.uint32)), as_bytes(row)])
        for start, row in zip(starts, words, strict=True)
    ]
    return np.concatenate(rows)
