"""Constants of layers of products, in the order that functions read them in."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.vector.packing import stored_bias
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import Float32, Int32
from qcomp.codegen.tvm.forms import Form
from qcomp.codegen.tvm.intrinsics.rows import row_bytes
from qcomp.codegen.tvm.layers import Layer
from qcomp.codegen.tvm.tiling import Tiling


def block_shape(layer: Layer, tiling: Tiling, vectors: int) -> tuple[int, ...]:
    """Weights of a block as they are packed."""
    form = tiling.form
    if form.by_rows:
        return (layer.taps[0], vectors, len(row_bytes(layer.taps[1])), form.lanes)
    if form.depthwise:
        return (layer.taps[0], vectors, layer.taps[1], form.lanes)
    return (*layer.taps, -(-layer.depth // form.unit), vectors, form.unit // 4, form.lanes, 4)


def packed(layer: Layer, tiling: Tiling) -> tuple[np.ndarray, Int32, Float32]:
    """Weights, biases with the zero point of x in them and multipliers of all blocks, one after the other; what fills
    the last vector is zero."""
    form, folded = tiling.form, stored_bias(layer.weights, layer.bias, layer.x_zp)
    dense = [layer.weights] if layer.depthwise else runs_of(layer.shape).weights(layer.weights, layer.shape.groups)
    packed, biases, mults = [], [], []
    for group, own in enumerate(dense):
        first = group * layer.outputs
        own = _aligned(layer, tiling, own)
        done = 0
        for blocks, vectors, channels in tiling.widths(layer.outputs):
            room = blocks * vectors * form.lanes - channels
            taken = slice(first + done, first + done + channels)
            values = np.pad(own[done : done + channels], ((0, room), *[(0, 0)] * (own.ndim - 1)))
            values = values.reshape(blocks, vectors, form.lanes, *own.shape[1:])
            packed.append(_packed_blocks(layer, form, values))
            biases.append(np.pad(folded[taken], (0, room)))
            mults.append(np.pad(layer.mult[taken], (0, room)))
            done += channels
    return np.concatenate(packed), np.concatenate(biases), np.concatenate(mults)


def _packed_blocks(layer: Layer, form: Form, values: np.ndarray) -> np.ndarray:
    """Weights [blocks, vectors, lanes, ...] in the order that the form reads them in."""
    if form.by_rows:
        return _packed_rows(values, layer.taps[1])
    order = (0, 3, 1, 4, 2) if form.depthwise else (0, 3, 4, 5, 1, 6, 2, 7)
    return np.ascontiguousarray(values.transpose(order)).reshape(-1)


def _packed_rows(values: np.ndarray, taps: int) -> np.ndarray:
    """Weights [blocks, 1, 64, rows, taps] as `row` has them: [blocks, rows, quads, vectors, lanes, 4]."""
    blocks, _, lanes, rows, _ = values.shape
    known = np.pad(values.astype(np.int8), [(0, 0)] * 4 + [(0, 1)])  # the last tap: none
    chosen = known[..., [taps if tap is None else tap for tap in row_bytes(taps)]]
    grouped = chosen.reshape(blocks, lanes // 16, 4, 4, rows, -1, 4)  # channel 16g + 4v + e: [g, v, e]
    return np.ascontiguousarray(grouped.transpose(0, 4, 5, 2, 1, 3, 6)).reshape(-1)


def _aligned(layer: Layer, tiling: Tiling, weights: np.ndarray) -> np.ndarray:
    """Weights of a group as [outputs, KH, KW] of a depthwise layer, else [outputs, rows, columns, units,
    quads, 4]."""
    form = tiling.form
    if form.depthwise:
        return weights.reshape(-1, *layer.taps).astype(form.weights)
    runs = weights.reshape(weights.shape[0], *layer.taps, -1)
    units = -(-layer.depth // form.unit)
    runs = np.pad(runs, ((0, 0), (0, 0), (0, 0), (0, units * form.unit - runs.shape[3])))
    return runs.reshape(*runs.shape[:3], units, form.unit // 4, 4)
