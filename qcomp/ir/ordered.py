"""Sums in a stated order: the arithmetic of float products and reductions, the same in every back end.

- Products: acc = 0; then acc = acc + a[k]·b[k] for k in order, each product and sum rounded to the element type.
- Reductions: 16 partial results, element i of the row goes to partial i % 16 in order; then partials (i, i + 8)
  combine, then (i, i + 4), (i, i + 2), (i, i + 1).

Vectors run across outputs, never along the sum, so numpy gives these bits whatever its own vector width is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LANES = 16
_BLOCK = 1 << 14  # elements of the accumulator block: it stays in the first-level caches


def ordered_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [M, K] times b [K, N] -> [M, N] of the operands' dtype, k in order."""
    rows, depth = a.shape
    columns = b.shape[1]
    if columns < rows and columns < 64:  # keep numpy's inner loop long; products commute, so the bits are the same
        return np.ascontiguousarray(ordered_product(b.T, a.T).T)
    out = np.zeros((rows, columns), np.result_type(a, b))
    a, b = np.asarray(a, out.dtype), np.ascontiguousarray(b, out.dtype)
    wide = max(1, min(columns, _BLOCK))
    tall = max(1, _BLOCK // wide)
    scratch = np.empty((tall, wide), out.dtype)
    with np.errstate(all="ignore"):
        for top in range(0, rows, tall):
            factors = np.ascontiguousarray(a[top : top + tall].T)[:, :, None]
            for left in range(0, columns, wide):
                acc = out[top : top + tall, left : left + wide]
                term = scratch[: acc.shape[0], : acc.shape[1]]
                for k in range(depth):
                    np.multiply(factors[k], b[k, None, left : left + wide], out=term)
                    np.add(acc, term, out=acc)
    return out


def interleaved(
    rows: np.ndarray, combine: Callable[[np.ndarray, np.ndarray], np.ndarray], start: object
) -> np.ndarray:
    """Reduces rows [M, R] -> [M] with 16 partial results, all starting from `start` (neutral for `combine`)."""
    count, size = rows.shape
    steps = -(-size // LANES)
    padded = np.full((count, steps * LANES), start, rows.dtype)
    padded[:, :size] = rows
    lanes = padded.reshape(count, steps, LANES)
    acc = np.full((count, LANES), start, rows.dtype)
    with np.errstate(all="ignore"):
        for step in range(steps):
            acc = combine(acc, lanes[:, step])
        for half in (8, 4, 2, 1):
            acc = combine(acc[:, :half], acc[:, half : 2 * half])
    return np.asarray(acc[:, 0])


def ordered_sum(rows: np.ndarray) -> np.ndarray:
    """Sum of rows [M, R] -> [M]; a row without elements gives 0."""
    return interleaved(rows, np.add, 0)


def select_max(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """b > a ? b : a: the first of equals stays, NaN in b is passed over."""
    return np.where(b > a, b, a)


def select_min(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """b < a ? b : a."""
    return np.where(b < a, b, a)


def to_rows(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """x as [M, R]: kept axes flattened, then the reduced axes flattened in row-major order."""
    kept = [a for a in range(x.ndim) if a not in axes]
    moved = x.transpose(*kept, *sorted(axes))
    size = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    count = int(np.prod([x.shape[a] for a in kept], dtype=np.int64))
    return moved.reshape(count, size)
