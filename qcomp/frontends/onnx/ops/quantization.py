"""QuantizeLinear and DequantizeLinear: pairs become `fake_quant`, integer constants keep integers and grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import MICROSOFT, onnx_op
from qcomp.frontends.onnx.tensors import INTERFACE, element_name
from qcomp.ir.graph import Value
from qcomp.ir.types import DType, Quantization

_SIGNED = {DType.U8: DType.I8, DType.U16: DType.I16}


@dataclass(frozen=True)
class Grid:
    """The integers that stand for reals: their quantization and their dtype."""

    quant: Quantization
    dtype: DType

    @property
    def signed(self) -> Grid:
        """The same reals on a signed grid: integers and zero point move by half the range."""
        if self.dtype not in _SIGNED:
            return self
        half = 1 << (self.dtype.bits - 1)
        quant = self.quant
        return Grid(
            Quantization(quant.scale, tuple(z - half for z in quant.zero_point), quant.axis), _SIGNED[self.dtype]
        )


def read_grid(node: OnnxNode, scale: int, zero_point: int, rank: int, axis: int, dtype: DType | None = None) -> Grid:
    """The grid that two inputs of a node give; `axis` is used when there is more than one scale.

    `dtype` is that of the integers where it is known; else it is the zero point's, or uint8 without one.
    """
    scales = node.constant(scale, "the scale").astype(np.float32)
    given = node.optional_constant(zero_point, "the zero point")
    if zero_point < len(node.proto.input) and node.proto.input[zero_point]:
        check_width(node, node.value(zero_point))
    if dtype is None:
        dtype = DType.U8 if given is None else DType.of(given.dtype)
    if given is not None and given.dtype.kind not in "iu":
        raise node.fail(f"its zero point is {given.dtype}, not an integer", "quantize the model again")
    if given is not None and given.size != scales.size:
        raise node.fail(f"{scales.size} scales and {given.size} zero points")
    flat = scales.reshape(-1)
    if not (np.isfinite(flat).all() and (flat > 0).all()):
        bad = flat[~(np.isfinite(flat) & (flat > 0))][0]
        raise node.fail(f"scale {bad} is not a positive finite number", "calibrate the model again")
    zeros = np.zeros(flat.size, np.int64) if given is None else given.astype(np.int64).reshape(-1)
    if flat.size == 1:
        return Grid(Quantization.per_tensor(float(flat[0]), int(zeros[0])), dtype)
    return Grid(Quantization.per_channel(flat, node.normalize(axis, rank), zeros), dtype)


def check_width(node: OnnxNode, value: Value) -> None:
    """Unsupported for grids of less than eight bits, whose integers are stored in eight."""
    element = node.importer.narrow.get(value)
    if element is not None:
        raise node.unsupported(f"quantization to {element_name(element)}", "use INT8 or UINT8")


def dequantize(node: OnnxNode, q: Value, grid: Grid) -> Value:
    """The reals that q stands for on a grid."""
    key = (q, grid)
    known = node.importer.dequantized.get(key)
    if known is None:
        known = node.importer.dequantized[key] = _dequantize(node, q, grid)
    return known


def _dequantize(node: OnnxNode, q: Value, grid: Grid) -> Value:
    importer = node.importer
    if q.data is not None:
        moved = grid.signed
        data = q.data
        if moved is not grid:
            half = 1 << (grid.dtype.bits - 1)
            data = (data.astype(np.int32) - half).astype(moved.dtype.numpy)
        constant = importer.graph.constant(data, f"{q.name}.q", moved.quant)
        importer.wanted_names[constant] = q.name
        return node.emit("dequantize", [constant])
    producer = q.producer
    if producer is not None and producer.op.name == "quantize" and q.quant == grid.quant:
        moved = grid.signed
        return node.emit("fake_quant", [producer.input(0)], {"quant": moved.quant, "dtype": moved.dtype})
    return node.emit("dequantize", [_attach(node, q, grid.quant)])


def _attach(node: OnnxNode, q: Value, quant: Quantization) -> Value:
    """q with a quantization in its type."""
    if q.quant == quant:
        return q
    if q.quant is not None:
        raise node.unsupported(
            "its integers were quantized with another scale or zero point", "use one grid for each tensor"
        )
    if q in node.importer.graph.inputs and node.importer.readers[q.name] == 1:
        q.type = q.type.with_quant(quant)
        return q
    return node.emit("identity", [q], quant=quant)


def quantize(node: OnnxNode, x: Value, grid: Grid) -> Value:
    """x as integers of a grid."""
    return node.emit("quantize", [node.cast(x, DType.F32)], {"quant": grid.quant, "dtype": grid.dtype})


def is_plain(node: OnnxNode) -> bool:
    """True if scale and zero point are constants, one a tensor or one a channel."""
    scale = node.value(1)
    zero = node.optional(2)
    rank = 1 if scale.type.elements > 1 else 0
    constant = scale.is_constant and (zero is None or zero.is_constant)
    return constant and len(scale.shape) <= max(rank, 1)


def _spread(node: OnnxNode, x: Value, parameter: Value) -> Value:
    """A scale or zero point, broadcast to x: a scalar, one a channel, or one a block along the axis."""
    rank = len(x.shape)
    if parameter.type.elements == 1:
        return node.reshape(parameter, ())
    axis = node.axis(rank, 1)
    if len(parameter.shape) == 1:
        return node.reshape(parameter, tuple(parameter.shape[0] if d == axis else 1 for d in range(rank)))
    block = node.attr_int("block_size", 0) or -(-x.shape[axis] // parameter.shape[axis])
    index = np.arange(x.shape[axis], dtype=np.int64) // block
    return node.emit("gather", [parameter, node.const(index)], {"axis": axis})


@onnx_op("QuantizeLinear")
@onnx_op("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(node: OnnxNode) -> Value:
    x = node.value(0)
    dtype = None
    if node.attr_int("output_dtype", 0):
        element = node.attr_int("output_dtype")
        if element not in INTERFACE:
            raise node.unsupported(f"quantization to {element_name(element)}", "use INT8 or UINT8")
        dtype = INTERFACE[element]
    zero = node.optional(2)
    if zero is not None:
        check_width(node, zero)
    if is_plain(node):
        grid = read_grid(node, 1, 2, len(x.shape), node.attr_int("axis", 1), dtype)
        return quantize(node, x, grid)
    # Scales that are computed, or one for each block: plain arithmetic, which stays float.
    dtype = dtype or (DType.U8 if zero is None else zero.dtype)
    real = node.cast(x, DType.F32)
    y = node.emit("round", [node.emit("div", [real, _spread(node, x, node.cast(node.value(1), DType.F32))])])
    if zero is not None:
        y = node.emit("add", [y, _spread(node, x, node.cast(zero, DType.F32))])
    lo, hi = dtype.limits
    return node.cast(node.emit("clip", [y], {"lo": float(lo), "hi": float(hi)}), dtype)


@onnx_op("DequantizeLinear")
@onnx_op("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(node: OnnxNode) -> Value:
    q = node.value(0)
    if is_plain(node):
        return dequantize(node, q, read_grid(node, 1, 2, len(q.shape), node.attr_int("axis", 1), q.dtype))
    zero = node.optional(2)
    real = node.cast(q, DType.F32)
    if zero is not None:
        real = node.emit("sub", [real, _spread(node, q, node.cast(zero, DType.F32))])
    return node.emit("mul", [real, _spread(node, q, node.cast(node.value(1), DType.F32))])


@onnx_op("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: OnnxNode) -> tuple[Value, ...]:
    return node.emit_all("dynamic_quantize", [node.value(0)])
