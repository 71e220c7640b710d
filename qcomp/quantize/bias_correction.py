"""Bias correction: what quantization does to the mean of a layer's results is taken off its bias.

Layer after layer, each on what the quantized layers before it really give, so that errors which cancel are not
corrected twice (Nagel et al. 2019, section 4.2, with data).  The mean is that of what the next layer reads: behind the
activation function, which turns noise into a mean of its own, and behind the clipping of the grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.interpreter import evaluate_node
from qcomp.ir.types import TensorType
from qcomp.passes.integer_regions import is_unary, scalar_operand
from qcomp.quantize.positions import Float64Array, distinct_weights, rows_of

_ROUNDS = 3
_MOST_ROWS = 2048
# Where the activation is flatter than this on average, a step of the bias is no longer than that.
_LEAST_SLOPE = 0.25


@dataclass(frozen=True)
class Correction:
    """What to add to the bias of a product (float32[channels]), and the noise of its results before and after, in
    shares of their power."""

    bias: np.ndarray
    before: float
    after: float


def functions_behind(graph: Graph, node: Node) -> list[Node]:
    """Functions of one element, fake quantization included, that all uses of a product's result lie behind."""
    chain: list[Node] = []
    value = node.output
    while True:
        user = graph.sole_user(value)
        if user is None or not (is_unary(user) or user.op.name == "fake_quant"):
            return chain
        chain.append(user)
        value = user.output


def correction(
    exact: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    axis: int,
    exact_chain: Sequence[Node] = (),
    found_chain: Sequence[Node] = (),
) -> Correction:
    """The correction for a layer's results on samples: `exact` of the float model, `found` of the quantized one.

    `axis` counts channels; the chains are the functions behind the layer in either model.
    """
    expected = np.concatenate(rows_of(exact, axis, _MOST_ROWS))
    actual = np.concatenate(rows_of(found, axis, _MOST_ROWS))
    weights = distinct_weights(expected)
    weights /= weights.sum()
    error = actual.astype(np.float64) - expected
    if exact_chain:
        bias = _solve(expected, actual, weights, exact_chain, found_chain)
    else:
        bias = -(weights @ error)
    bias = np.where(np.isfinite(bias), bias, 0.0)  # an infinite mask has no mean
    bias = bias * _certain(exact, found, axis, bias)
    power = max(float((weights @ expected.astype(np.float64) ** 2).sum()), 1e-30)
    before, after = (float((weights @ e**2).sum()) / power for e in (error, error + bias))
    return Correction(bias.astype(np.float32), before, after)


def _certain(
    exact: Sequence[np.ndarray], found: Sequence[np.ndarray], axis: int, bias: Float64Array
) -> Float64Array:
    """float64[channels] from 0 to 1, what of a bias is more than chance among the samples: 1 − variance of the mean
    error / bias² (the positive part of the estimator of James and Stein)."""
    others = tuple(i for i in range(exact[0].ndim) if i != axis)
    with np.errstate(all="ignore"):
        means = [np.mean(f.astype(np.float64) - e, axis=others) for e, f in zip(exact, found, strict=True)]
        chance = np.var(means, axis=0, ddof=1) / len(means) if len(means) > 1 else np.zeros_like(bias)
        return np.clip(1.0 - np.nan_to_num(chance) / np.maximum(bias**2, 1e-300), 0.0, 1.0)


def _solve(
    expected: np.ndarray,
    actual: np.ndarray,
    weights: Float64Array,
    exact_chain: Sequence[Node],
    found_chain: Sequence[Node],
) -> Float64Array:
    """float64[channels] that, added to `actual`, gives the mean of exact_chain(expected) behind found_chain."""
    target = weights @ apply(exact_chain, expected)
    spread = expected.std(axis=0, dtype=np.float64) * 0.5 + 1e-12
    up, down = (apply(exact_chain, expected + side * spread) for side in (1, -1))
    slope = np.abs(weights @ (up.astype(np.float64) - down) / (2 * spread))
    best = bias = np.zeros(expected.shape[1])
    least = np.full(expected.shape[1], np.inf)
    for _ in range(_ROUNDS):
        error = weights @ apply(found_chain, actual + bias) - target
        better = np.abs(error) < least
        best, least = np.where(better, bias, best), np.where(better, np.abs(error), least)
        bias = bias - error / np.maximum(slope, _LEAST_SLOPE)
    return np.asarray(best)


def apply(chain: Sequence[Node], rows: np.ndarray) -> np.ndarray:
    """float32 results of functions of one element, one after the other, on [positions, channels]."""
    graph = Graph("chain")
    current: Value = graph.input("x", TensorType.f32(*rows.shape))
    array = rows.astype(np.float32)
    for node in chain:
        scalar = scalar_operand(node)
        operands: list[Value | None] = [current]
        if scalar is not None:
            operands.insert(scalar, graph.constant(node.input(scalar).array.reshape(())))
        step = graph.add(node.op.name, operands, node.attrs)
        (array,) = evaluate_node(step, [array if v is current else v.array for v in operands if v is not None])
        current = step.output
    return array
