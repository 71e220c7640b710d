"""Data movement on quantized integers is written on the reals they stand for.

    q = quantize(x); r = reshape(q)    ->    y = reshape(fake_quant(x)); r = quantize(y)

Moving elements commutes with dequantizing them, so the integers are the same, and the passes see float ops and grids
only, wherever an exporter put its quantize and dequantize.
"""

from __future__ import annotations

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.ops.quantization import Grid, dequantize, quantize
from qcomp.frontends.onnx.table import Converter
from qcomp.ir.graph import Value
from qcomp.ir.types import DType

_MOVES = frozenset(
    {
        *("DepthToSpace", "Expand", "Flatten", "Gather", "GlobalMaxPool", "MaxPool", "Pad", "Reshape", "Resize"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample"),
    }
)
_MOVES_ALL = frozenset({"Concat", "Max", "Min"})  # every input is data
_COMPARES = frozenset({"ArgMax", "ArgMin"})  # monotone: the result is the same on the reals, and no real itself


def convert_on_reals(node: OnnxNode, converter: Converter) -> list[Value] | None:
    """The results of a node that moves quantized activations; None for any other node."""
    op = node.proto.op_type
    if node.proto.domain not in ("", "ai.onnx") or op not in _MOVES | _MOVES_ALL | _COMPARES:
        return None
    names = [n for n in node.proto.input if n] if op in _MOVES_ALL else list(node.proto.input[:1])
    values = [node.scope.find(n) for n in names]
    grids = [_grid(v) for v in values]
    grid = grids[0] if grids else None
    if grid is None or any(g != grid for g in grids):
        return None
    inner = node.scope.inner()
    for name, value in zip(names, values, strict=True):
        inner.values[name] = dequantize(node, value, grid)
    if op == "Pad" and node.optional(2) is not None:
        stored = node.constant(2, "the padding value").astype(np.float32)
        real = (stored - np.float32(grid.quant.zero_point[0])) * np.float32(grid.quant.scale[0])
        inner.values[node.proto.input[2]] = node.const(real, DType.F32)
    results = converter(OnnxNode(node.importer, inner, node.proto))
    values = [results] if isinstance(results, Value) else list(results)
    return values if op in _COMPARES else [quantize(node, v, grid) for v in values]


def _grid(value: Value) -> Grid | None:
    """The grid of an activation that a `quantize` produces, one scale for the tensor."""
    produced = value.producer is not None and value.producer.op.name == "quantize"
    quant = value.quant
    return Grid(quant, value.dtype) if produced and quant is not None and quant.axis is None else None
