"""Recurrent layers with int8 weights: the portable walk, with vector products of the state."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.portable.recurrent import BLOCK, by_block
from qcomp.codegen.c.x86.epilogue import types_helper
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import render


def packed_state_weights(isa: Isa, weights: np.ndarray, gates: int) -> tuple[np.ndarray, tuple[CFunction, ...]]:
    """int8 [gates * H, H] as [blocks, dwords of a state, gates * BLOCK, 4], as the products of `isa` take them, and the
    functions that these need."""
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 4)))
    blocks = by_block(padded, gates)
    dwords = padded.shape[1] // 4
    taps = np.moveaxis(blocks.reshape(-1, dwords, 4, gates * BLOCK), 2, 3)
    isa = isa.for_weights(taps)
    arranged = np.ascontiguousarray(isa.dot.arrange(taps, isa.lanes))
    return arranged.reshape(taps.shape), (types_helper(isa), state_product(isa, gates))


def state_product(isa: Isa, gates: int) -> CFunction:
    """Sums of the products of a state with the weights of one block."""
    vectors = gates * BLOCK // isa.lanes
    lines = list(isa.dot.pixel(0, "q + 4 * k"))
    for v in range(vectors):
        lines += [*isa.dot.weights(v, f"w + {isa.bytes * v}"), f"c{v} = {isa.dot.product(f'c{v}', 0, v)};"]
    name = f"qc_x86_state_{gates}{isa.variant}"
    return CFunction(name, render("state_product.c.j2", V=isa, name=name, vectors=vectors, lines=lines))
