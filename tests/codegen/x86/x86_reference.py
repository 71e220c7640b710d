"""The integer definitions of the ops in plain numpy, on stored (unsigned) activations."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.vector.shapes import ConvShape, Requantization


def windows(full: np.ndarray, shape: ConvShape, i: int, j: int) -> np.ndarray:
    """Element of x under tap (i, j) of every output pixel; `full` includes the halo."""
    top = shape.x.halo[0] - shape.pads[0] + i * shape.dilations[0]
    left = shape.x.halo[1] - shape.pads[1] + j * shape.dilations[1]
    sh, sw = shape.strides
    return full[:, top : top + (shape.y.height - 1) * sh + 1 : sh, left : left + (shape.y.width - 1) * sw + 1 : sw]


def conv_acc(full: np.ndarray, weights: np.ndarray, bias: np.ndarray, x_zp: int, shape: ConvShape) -> np.ndarray:
    """int64 accumulators [N, OH, OW, O]: bias + sum of (x - x_zp) * w."""
    groups, per_in = shape.groups, weights.shape[3]
    acc = np.zeros((shape.y.batch, shape.y.height, shape.y.width, shape.y.channels))
    per_out = shape.y.channels // groups
    for i in range(shape.kernel[0]):
        for j in range(shape.kernel[1]):
            x = windows(full, shape, i, j).astype(np.float64) - x_zp
            for g in range(groups):
                out = slice(g * per_out, (g + 1) * per_out)
                acc[..., out] += x[..., g * per_in : (g + 1) * per_in] @ weights[out, i, j].T.astype(np.float64)
    return acc.astype(np.int64) + bias


def requantize(
    acc: np.ndarray, mult: np.ndarray, rq: Requantization, residual: np.ndarray | None = None
) -> np.ndarray:
    """The numeric contract: one float32 product (and the sum with the residual's), round half to even, zero point,
    clamp, table."""
    assert np.all(np.abs(acc) < 2**31)
    value = acc.astype(np.int32).astype(np.float32) * mult.astype(np.float32)
    assert value.dtype == np.float32
    if rq.dtype == "f32":
        return value
    if rq.residual is not None:
        assert residual is not None
        value = value + (residual.astype(np.float32) - np.float32(rq.residual.zp)) * np.float32(rq.residual.mult)
        assert value.dtype == np.float32
    stored = np.clip(np.rint(value).astype(np.float64) + rq.zp, rq.lo, rq.hi).astype(np.uint8)
    return stored if rq.table is None else np.array(rq.table, np.uint8)[stored]
