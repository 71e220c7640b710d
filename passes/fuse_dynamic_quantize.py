"""Joins what quantizes at run time, multiplies and scales, as onnxruntime writes it, into one product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.requantize import MOST_TAPS
from qcomp.ir.types import DType
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import is_op, plain_name, sole_producer


@dataclass(frozen=True)
class FuseDynamicQuantize(NodeRewrite):
    """The product of a tensor that was quantized at run time with constant weights, and its scaling, become
    dynamic_qgemm; an addition of N numbers becomes its bias.

    float32(acc)·(s_x·s_w) + bias is what both compute, so every bit stays.  Weights of uint8 move to int8, and so do
    their zero points, one a tensor or one a column.

    before:
        %q: u8[2,8], %s: f32[], %z: u8[] = dynamic_quantize(%x)
        %acc: i32[2,4] = matmul_integer(%q, %w, %z, %w_zp)
        %real: f32[2,4] = cast(%acc) {dtype = !f32}
        %scale: f32[4] = mul(%s, %w_scale)
        %y: f32[2,4] = mul(%real, %scale)
    after:
        %q.1: i8[2,8], %s.1: f32[], %z.1: i8[] = dynamic_quantize(%x) {dtype = !i8}
        %y: f32[2,4] = dynamic_qgemm(%q.1, %s.1, %z.1, %w.1, %w_scale)
    """

    name = "fuse-dynamic-quantize"
    exact = True
    ops = frozenset({"mul", "add"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        return _product(graph, node) if node.op.name == "mul" else _bias(graph, node)


def _product(graph: Graph, node: Node) -> bool:
    for real, scale in (node.inputs, node.inputs[::-1]):
        cast = None if real is None else sole_producer(graph, real, "cast")
        product = None if cast is None else sole_producer(graph, cast.input(0), "matmul_integer")
        if product is None or scale is None or not is_op(scale, "mul"):
            continue
        source = product.input(0).producer
        if source is None or source.op.name != "dynamic_quantize" or source.outputs[0] is not product.input(0):
            continue
        if source.attrs["dtype"] is not DType.U8 or source.attrs["per_row"] or not _scales(graph, node, product, scale):
            continue
        return _fuse(graph, node, product, source, scale)
    return False


def _scales(graph: Graph, node: Node, product: Node, scale: Value) -> bool:
    """Whether operands and shapes are those of dynamic_qgemm."""
    source, w = product.input(0).producer, product.input(1)
    assert source is not None
    if product.optional(2) is not source.outputs[2] or not w.is_constant or w.type.rank != 2:
        return False
    zeros = product.optional(3)
    if zeros is not None and not zeros.is_constant:
        return False
    factor = _factor(scale, source.outputs[1])
    rows = product.input(0).type.rank >= 1 and node.output.shape == product.output.shape
    columns = w.shape[1]
    fits = factor is not None and (factor.type.elements == 1 or factor.shape == (columns,))
    return rows and fits and w.shape[0] <= MOST_TAPS and (zeros is None or zeros.type.elements in (1, columns))


def _factor(scale: Value, of_x: Value) -> Value | None:
    """The constant scales of the weights, which `scale` multiplies with that of x."""
    node = scale.producer
    assert node is not None
    for a, b in (node.inputs, node.inputs[::-1]):
        if a is of_x and b is not None and b.is_constant:
            return b
    return None


def _fuse(graph: Graph, node: Node, product: Node, source: Node, scale: Value) -> bool:
    factor, w, zeros = _factor(scale, source.outputs[1]), product.input(1), product.optional(3)
    assert factor is not None
    columns, name = w.shape[1], plain_name(w)
    weights, points = w.array.T.astype(np.int64), np.zeros(columns, np.int64)
    if zeros is not None:
        points = np.broadcast_to(zeros.array.reshape(-1).astype(np.int64), (columns,))
    if w.dtype is DType.U8:
        weights, points = weights - 128, points - 128
    centred = weights - points[:, None]
    if centred.min(initial=0) >= -128 and centred.max(initial=0) <= 127:
        weights, points = centred, np.zeros(columns, np.int64)
    x = graph.add(
        "dynamic_quantize", [source.input(0)], {"dtype": DType.I8}, names=[v.name for v in source.outputs],
        node_name=source.name,
    )  # fmt: skip
    scales = np.ascontiguousarray(np.broadcast_to(factor.array.reshape(-1), (columns,)))
    operands = [
        *x.outputs,
        graph.constant(np.ascontiguousarray(weights.astype(np.int8)), name),
        graph.constant(scales.astype(np.float32), f"{name}.scale"),
        None,
        graph.constant(points.astype(np.int8), f"{name}.zp") if points.any() else None,
    ]
    graph.replace(node, graph.add("dynamic_qgemm", operands, names=[node.output.name], node_name=product.name).output)
    return True


def _bias(graph: Graph, node: Node) -> bool:
    for real, bias in (node.inputs, node.inputs[::-1]):
        product = None if real is None else sole_producer(graph, real, "dynamic_qgemm")
        if product is None or bias is None or not bias.is_constant or product.optional(5) is not None:
            continue
        columns = node.output.shape[-1]
        if node.output.shape != product.output.shape or bias.type.elements != columns or bias.shape[-1:] != (columns,):
            continue
        operands = [*(product.optional(i) for i in range(7))]
        operands[5] = graph.constant(bias.array.reshape(-1), plain_name(bias))
        fused = graph.add("dynamic_qgemm", operands, names=[node.output.name], node_name=product.name)
        graph.replace(node, fused.output)
        return True
    return False
