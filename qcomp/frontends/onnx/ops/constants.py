"""Ops whose results are known at compile time: constants, shapes, ranges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import onnx_op
from qcomp.frontends.onnx.tensors import computed_dtype, dense
from qcomp.ir.graph import Value


@onnx_op("Constant")
def constant(node: OnnxNode) -> Value:
    if node.has("value"):
        return node.const(node.attr_tensor("value"))
    if node.has("sparse_value"):
        return node.const(dense(node.attributes["sparse_value"].sparse_tensor))
    if node.has("value_float"):
        return node.const(np.float32(node.attr_float("value_float")))
    if node.has("value_floats"):
        return node.const(np.asarray(node.attributes["value_floats"].floats, np.float32))
    if node.has("value_int"):
        return node.const(np.int64(node.attr_int("value_int")))
    if node.has("value_ints"):
        return node.const(np.asarray(node.attr_ints("value_ints"), np.int64))
    raise node.unsupported("a constant of strings", "use tensors of numbers")


@onnx_op("ConstantOfShape")
def constant_of_shape(node: OnnxNode) -> Value:
    fill = node.attr_tensor("value") if node.has("value") else np.zeros(1, np.float32)
    return node.const(np.full(node.constant_ints(0, "the shape"), fill.reshape(-1)[0], fill.dtype))


@onnx_op("Shape")
def shape(node: OnnxNode) -> Value:
    dims = node.value(0).shape
    end = node.attr_int("end", len(dims))
    return node.const(np.asarray(dims[slice(node.attr_int("start", 0), end)], np.int64))


@onnx_op("Size")
def size(node: OnnxNode) -> Value:
    return node.const(np.int64(node.value(0).type.elements))


@onnx_op("Range")
def range_(node: OnnxNode) -> Value:
    start, limit, step = (node.constant(i, w) for i, w in enumerate(("the start", "the limit", "the step")))
    first, last, delta = (a.reshape(-1)[0] for a in (start, limit, step))
    if delta == 0:
        raise node.fail("the step is 0")
    # Every element is start + i · step, in float64 and rounded once.
    count = max(int(np.ceil((float(last) - float(first)) / float(delta))), 0)
    return node.const((np.float64(first) + np.arange(count) * np.float64(delta)).astype(start.dtype))


@onnx_op("EyeLike")
def eye_like(node: OnnxNode) -> Value:
    x = node.value(0)
    dtype = computed_dtype(node.attr_int("dtype")) if node.has("dtype") else x.dtype
    return node.const(np.eye(x.shape[0], x.shape[1], k=node.attr_int("k", 0), dtype=dtype.numpy))


@onnx_op("Dropout")
def dropout(node: OnnxNode) -> Sequence[Value]:
    x = node.value(0)
    if node.optional(2) is not None and bool(node.constant(2, "training_mode").reshape(-1)[0]):
        ratio = node.optional_constant(1, "the ratio")
        if ratio is None or float(ratio.reshape(-1)[0]) != 0.0:
            raise node.unsupported("training mode", "export the model for inference")
    results = [x]
    if node.wants(1):
        results.append(node.const(np.ones(x.shape, np.bool_)))
    return results
