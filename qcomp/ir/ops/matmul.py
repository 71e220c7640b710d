"""Matrix products; k runs in order (see `qcomp.ir.ordered`).  Integer products are exact modulo the dtype."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.intervals import collapse, operand_interval, outward, span
from qcomp.ir.ops.conv import product_bounds
from qcomp.ir.ordered import ordered_product
from qcomp.ir.registry import Attr, Call, Interval, Op, full_interval, register
from qcomp.ir.shapes import float_only, same_dtype, unquantized
from qcomp.ir.types import DType, TensorType


def _free_bounds(a: Interval, b: Interval, depth: int) -> Interval:
    """Bounds of a sum of `depth` products of anything in a and b."""
    size = max(abs(e) for e in span(a).span) * max(abs(e) for e in span(b).span) if depth else 0.0
    total = depth * size * (1 + (depth + 3) * 2.0**-24 * 1.01)
    return outward(np.asarray(-total), np.asarray(total))


@register
class Gemm(Op):
    """alpha · A·B + beta · c: A = a or aᵀ [M,K], B = b or bᵀ [K,N], c broadcasts to [M,N]; float.

    y = product; y = y · float32(alpha); y = y + c · float32(beta); factors of 1 and a missing c are left out.
    """

    name = "gemm"
    operands = ("a", "b", "c?")
    attributes = {
        "alpha": Attr("float", 1.0),
        "beta": Attr("float", 1.0),
        "trans_a": Attr("bool", False),
        "trans_b": Attr("bool", False),
    }

    def infer(self, call: Call) -> Sequence[TensorType]:
        a, b = float_only(call, call.type(0)), float_only(call, call.type(1))
        same_dtype(call, a, b, *([call.type(2)] if call.has(2) else []))
        if a.rank != 2 or b.rank != 2:
            raise call.fail(f"operands {list(a.shape)} and {list(b.shape)} are not matrices")
        left = a.shape[::-1] if call.bool("trans_a") else a.shape
        right = b.shape[::-1] if call.bool("trans_b") else b.shape
        if left[1] != right[0]:
            raise call.fail(f"matrices {list(left)} and {list(right)} do not multiply")
        shape = (left[0], right[1])
        if call.has(2):
            c = call.type(2)
            try:
                fits = np.broadcast_shapes(c.shape, shape) == shape
            except ValueError:
                fits = False
            if not fits:
                raise call.fail(f"c {list(c.shape)} does not broadcast to {list(shape)}")
        return [a.with_shape(shape)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands[:2]
        c = operands[2] if len(operands) > 2 else None
        assert a is not None and b is not None
        y = ordered_product(a.T if call.bool("trans_a") else a, b.T if call.bool("trans_b") else b)
        if call.float("alpha") != 1.0:
            y = y * y.dtype.type(call.float("alpha"))
        if c is not None:
            y = y + (c if call.float("beta") == 1.0 else c * c.dtype.type(call.float("beta")))
        return [y]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        a, weights = operand_interval(call, operands, 0), call.constant(1)
        depth = call.type(0).shape[0 if call.bool("trans_a") else 1]
        if weights is None:
            y = _free_bounds(a, operand_interval(call, operands, 1), depth)
        else:
            matrix = weights if call.bool("trans_b") else weights.T
            x = span(a)
            y = Interval(*product_bounds(matrix, x.lo, x.hi, None))
        ends = [np.nan_to_num(e * call.float("alpha"), nan=0.0, posinf=np.inf, neginf=-np.inf) for e in (y.lo, y.hi)]
        y = outward(np.minimum(*ends), np.maximum(*ends))
        if call.has(2):
            c = operand_interval(call, operands, 2)
            with np.errstate(all="ignore"):
                ends = [e * call.float("beta") for e in (c.lo, c.hi)]
                ends = [np.where(np.isnan(e), 0.0, e) for e in ends]
                added = outward(np.minimum(*ends), np.maximum(*ends))
                y = outward(y.lo + added.lo, y.hi + added.hi)
        return [y]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * call.type(0).shape[0 if call.bool("trans_a") else 1]


@register
class MatMul(Op):
    """a [..., M, K] · b [..., K, N] -> [..., M, N] as numpy.matmul: batches broadcast, vectors lose their dimension."""

    name = "matmul"
    operands = ("a", "b")

    def infer(self, call: Call) -> Sequence[TensorType]:
        a, b = unquantized(call, call.type(0)), unquantized(call, call.type(1))
        same_dtype(call, a, b)
        if a.dtype is DType.BOOL:
            raise call.fail("operands are bool, not numbers")
        try:
            shape = _matmul_shape(a.shape, b.shape)
        except ValueError:
            raise call.fail(f"shapes {list(a.shape)} and {list(b.shape)} do not multiply") from None
        return [a.with_shape(shape)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands
        assert a is not None and b is not None
        if a.dtype.kind != "f":
            return [np.asarray(np.matmul(a, b))]
        left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        y = np.empty((*batch, left.shape[-2], right.shape[-1]), a.dtype)
        if right.ndim == 2:  # one matrix for all batches: one tall product
            y[...] = ordered_product(left.reshape(-1, left.shape[-1]), right).reshape(y.shape)
        else:
            lefts = np.broadcast_to(left, (*batch, *left.shape[-2:]))
            rights = np.broadcast_to(right, (*batch, *right.shape[-2:]))
            for index in np.ndindex(*batch):
                y[index] = ordered_product(lefts[index], rights[index])
        return [y.reshape(call.results[0].shape)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        if not call.results[0].dtype.is_float:
            return [full_interval(call.results[0])]
        a, b, depth = operand_interval(call, operands, 0), call.constant(1), call.type(0).shape[-1]
        if b is None or b.ndim != 2:
            return [_free_bounds(a, operand_interval(call, operands, 1), depth)]
        rank = call.type(0).rank
        x = collapse(a, rank, tuple(range(rank - 1)))
        return [Interval(*product_bounds(b.T, x.lo.reshape(-1), x.hi.reshape(-1), None))]

    def macs(self, call: Call) -> int:
        return call.results[0].elements * call.type(0).shape[-1]


def _matmul_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """numpy.matmul's shape rule; ValueError when the operands do not multiply."""
    if not a or not b:
        raise ValueError
    left, right = ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)
    if left[-1] != right[-2]:
        raise ValueError
    shape = (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    if len(a) == 1:
        shape = (*shape[:-2], shape[-1])
    return shape[:-1] if len(b) == 1 else shape
