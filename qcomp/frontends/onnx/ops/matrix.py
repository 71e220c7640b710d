"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.ops.activation import fused_activation
from qcomp.frontends.onnx.table import MICROSOFT, onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.types import DType


@onnx_op("MatMul")
def matmul(node: OnnxNode) -> Value:
    return product(node, node.value(0), node.value(1))


def product(node: OnnxNode, a: Value, b: Value, op: str = "matmul", zeros: Sequence[Value | None] = ()) -> Value:
    """Matrix product; vectors become matrices and back."""
    left, right = len(a.shape) == 1, len(b.shape) == 1
    if left:
        a = node.reshape(a, (1, *a.shape))
    if right:
        b = node.reshape(b, (*b.shape, 1))
    y = node.emit(op, [a, b, *zeros])
    if not (left or right):
        return y
    shape = list(y.shape)
    if right:
        del shape[-1]
    if left:
        del shape[-1 if right else -2]
    return node.reshape(y, shape)


@onnx_op("Gemm")
def gemm(node: OnnxNode) -> Value:
    return gemm_of(node, node.value(0), node.value(1), node.optional(2))


def gemm_of(node: OnnxNode, a: Value, b: Value, c: Value | None) -> Value:
    """gemm with the node's attributes."""
    attrs = {
        "alpha": node.attr_float("alpha", 1.0),
        "beta": node.attr_float("beta", 1.0),
        "trans_a": bool(node.attr_int("transA", 0)),
        "trans_b": bool(node.attr_int("transB", 0)),
    }
    return node.emit("gemm", [a, b, c], attrs)


@onnx_op("FusedGemm", domain=MICROSOFT)
def fused_gemm(node: OnnxNode) -> Value:
    return fused_activation(node, gemm_of(node, node.value(0), node.value(1), node.optional(2)))


@onnx_op("FusedMatMul", domain=MICROSOFT)
def fused_matmul(node: OnnxNode) -> Value:
    if node.attr_int("transBatchA", 0) or node.attr_int("transBatchB", 0):
        raise node.unsupported("transposed batches", "use transA and transB")
    a, b = node.value(0), node.value(1)
    if node.attr_int("transA", 0):
        a = transposed(node, a)
    if node.attr_int("transB", 0):
        b = transposed(node, b)
    y = product(node, a, b)
    alpha = node.attr_float("alpha", 1.0)
    return y if alpha == 1.0 else node.emit("mul", [y, node.scalar(alpha, y)])


def transposed(node: OnnxNode, x: Value) -> Value:
    """The last two dimensions swapped."""
    rank = len(x.shape)
    return node.emit("transpose", [x], {"perm": (*range(rank - 2), rank - 1, rank - 2)})


@onnx_op("MatMulInteger")
def matmul_integer(node: OnnxNode) -> Value:
    return product(node, node.value(0), node.value(1), "matmul_integer", [node.optional(2), node.optional(3)])


@onnx_op("Einsum")
def einsum(node: OnnxNode) -> Value:
    """Sums of products of one or two tensors without repeated letters: transposes around one matrix product."""
    equation = node.attr_str("equation").replace(" ", "")
    values = [node.value(i) for i in range(len(node.proto.input))]
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    if "." in equation or any(len(set(t)) != len(t) for t in operands) or len(operands) not in (1, 2):
        raise node.unsupported(f"equation {equation!r}", "use one or two operands without ellipsis or repeated letters")
    if not arrow:
        letters = terms.replace(",", "")
        result = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    values = [node.cast(v, DType.F32) if v.dtype is DType.F64 else v for v in values]
    # Letters of one operand only, and not of the result, are summed first.
    for i, term in enumerate(operands):
        others = result + "".join(t for j, t in enumerate(operands) if j != i)
        axes = tuple(d for d, c in enumerate(term) if c not in others)
        if axes:
            values[i] = node.emit("reduce_sum", [values[i]], {"axes": axes, "keepdims": False})
            operands[i] = "".join(c for c in term if c in others)
    if len(operands) == 1:
        return _permute(node, values[0], operands[0], result)
    return _contract(node, values, operands, result)


def _contract(node: OnnxNode, values: Sequence[Value], terms: Sequence[str], result: str) -> Value:
    left, right = terms
    size = {c: d for term, v in zip(terms, values, strict=True) for c, d in zip(term, v.shape, strict=True)}
    batch = [c for c in left if c in right and c in result]
    inner = [c for c in left if c in right and c not in result]
    rows, columns = ([c for c in t if c not in o] for t, o in ((left, right), (right, left)))

    def count(letters: Sequence[str]) -> int:
        return int(np.prod([size[c] for c in letters], dtype=np.int64))

    a = node.reshape(
        _permute(node, values[0], left, [*batch, *rows, *inner]), (count(batch), count(rows), count(inner))
    )
    b = node.reshape(
        _permute(node, values[1], right, [*batch, *inner, *columns]), (count(batch), count(inner), count(columns))
    )
    order = [*batch, *rows, *columns]
    y = node.reshape(node.emit("matmul", [a, b]), tuple(size[c] for c in order))
    return _permute(node, y, order, result)


def _permute(node: OnnxNode, x: Value, have: Sequence[str], want: Sequence[str]) -> Value:
    perm = tuple(list(have).index(c) for c in want)
    return x if perm == tuple(range(len(perm))) else node.emit("transpose", [x], {"perm": perm})
