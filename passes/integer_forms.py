"""Builders of integer ops from float ops on dequantized operands.

Multipliers are (s_x·s_w)/s_y with both steps in float32, as onnxruntime's kernels compute them: a model that it
quantized gives the same integers.  Biases are rounded to int32 in units of s_x·s_w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.ops.qnormalize import exponentials
from qcomp.ir.ops.quantized import dequantize_array, quantize_array
from qcomp.ir.registry import Attribute
from qcomp.ir.requantize import ACTIVATIONS, largest_factor
from qcomp.ir.types import DType, Quantization
from qcomp.passes.insert_fake_quant import apply_unary_chain
from qcomp.passes.integer_regions import is_joint_product, is_product, normalizes_rows

_INT32 = 2.0**31 - 2.0**7  # below 2^31 also when rounded to float32


@dataclass(frozen=True)
class Target:
    """Where a fused op's result goes: its grid (None: float32), clamp on the integers, name, and type.

    bounded: the clamp is the model's own, even where the integers are those of the type."""

    quant: Quantization | None
    lo: int
    hi: int
    name: str
    bounded: bool = False
    dtype: DType = DType.I8


def dequantized(value: Value, dtypes: tuple[DType, ...] = (DType.I8,)) -> Value | None:
    """The integer tensor (of one of `dtypes`) on one per-tensor grid that a value is the dequantize of."""
    producer = value.producer
    if producer is None or producer.op.name != "dequantize":
        return None
    stored = producer.input(0)
    fits = stored.dtype in dtypes and stored.quant is not None and stored.quant.axis is None
    return stored if fits else None


def is_activation(quantize: Node) -> bool:
    """Whether the result of a quantize is one that integer ops have: int8 or int16, on one grid a tensor."""
    quant = quantize.attrs["quant"]
    return quantize.attrs["dtype"] in ACTIVATIONS and isinstance(quant, Quantization) and quant.axis is None


def clamp_limits(clamps: Sequence[Node], quant: Quantization, dtype: DType) -> tuple[int, int]:
    """Clamp on integers that equals float clamps before rounding: rounding is monotone, so bounds round likewise."""
    lo, hi = dtype.limits
    for node in reversed(clamps):
        low = 0.0 if node.op.name == "relu" else float(node.attrs["lo"])  # type: ignore[arg-type]
        high = np.inf if node.op.name == "relu" else float(node.attrs["hi"])  # type: ignore[arg-type]
        bounds = quantize_array(np.array([low, high], np.float32), quant, dtype)
        # Later clamps win, as they do on reals.
        lo, hi = (int(np.clip(b, bounds[0], bounds[1])) for b in (lo, hi))
    return lo, hi


def build_table(graph: Graph, source: Value, chain: list[Node], quant: Quantization, name: str) -> Value | None:
    """quantize(chain(dequantize(source))) as one table; None when the chain gives a NaN on the grid."""
    assert source.quant is not None
    every = np.arange(-128, 128).astype(np.int8)
    real = apply_unary_chain(chain, dequantize_array(every, source.quant))
    if np.isnan(real).any():
        return None
    table = graph.constant(quantize_array(real, quant, DType.I8), "table")
    return graph.add("table", [source, table], names=[name], node_name=chain[-1].name, quants=[quant]).output


def _weights(value: Value) -> tuple[np.ndarray, Quantization] | None:
    """int8 weights whose zero point is zero, and their quantization.

    Another zero point is taken off, which is exact as long as the differences fit into int8.
    """
    producer = value.producer
    if producer is None or producer.op.name != "dequantize":
        return None
    stored = producer.input(0)
    if stored.data is None or stored.dtype is not DType.I8 or stored.quant is None:
        return None
    if not any(stored.quant.zero_point):
        return stored.data, stored.quant
    _, zero = stored.quant.broadcast(stored.type.rank)
    centred = stored.data.astype(np.int64) - zero
    if np.abs(centred).max(initial=0) > 127:
        return None
    symmetric = Quantization(stored.quant.scale, (0,) * len(stored.quant.zero_point), stored.quant.axis)
    return centred.astype(np.int8), symmetric


def _bias_steps(value: Value | None, scales: np.ndarray, channels: int) -> np.ndarray | None:
    """The bias in units of `scales`, as integers in float64; keeps stored integers when their scale is the same."""
    if value is None:
        return np.zeros(channels)
    producer = value.producer
    real: np.ndarray
    if value.data is not None:
        real = value.data.astype(np.float64)
    elif producer is not None and producer.op.name == "dequantize" and producer.input(0).is_constant:
        stored = producer.input(0)
        assert stored.quant is not None and stored.data is not None
        scale, zero = stored.quant.broadcast(stored.type.rank)
        own = np.broadcast_to(np.asarray(scale, np.float64), stored.shape).reshape(-1)
        flat = stored.data.reshape(-1)
        if flat.size == channels and not zero.any() and np.allclose(own, scales, rtol=1e-5, atol=0):
            return flat.astype(np.float64)
        real = (stored.data.astype(np.float64) - zero) * scale
    else:
        return None
    return np.asarray(np.rint(np.broadcast_to(real.reshape(-1), (channels,)) / scales))


def build_product(graph: Graph, node: Node, target: Target) -> Value | None:
    """qconv2d, qconv_transpose2d or qgemm for a float product on dequantized operands; None if it has none."""
    x = dequantized(node.input(0), ACTIVATIONS)
    found = _weights(node.input(1))
    if x is None or x.quant is None or found is None or x.is_constant:
        return None
    stored, quant = found
    form = _FORMS[node.op.name](node, stored)
    if form is None or not is_product(node):
        return None
    op, weights, axis, attrs = form
    if quant.axis is not None and quant.axis != axis:
        return None
    channels = weights.shape[0]
    # A gemm's factor is one of its weights.
    factor = node.call.float("alpha") if node.op.name == "gemm" else 1.0
    s_w = np.broadcast_to(np.asarray(quant.scale, np.float64) * factor, (channels,))
    bias = _bias_steps(node.optional(2), s_w * float(x.quant.scale[0]), channels)
    if bias is None:
        return None
    # Next to a bias that int32 does not hold, the low bits of the weights do not matter.
    excess = 2.0 ** np.ceil(np.log2(np.maximum(np.abs(bias) / _INT32, 1.0)))
    weights = np.rint(weights / excess.reshape(-1, *(1,) * (weights.ndim - 1))).astype(np.int8)
    bias, s_w = np.rint(bias / excess), s_w * excess
    mult = (s_w.astype(np.float32) * np.float32(x.quant.scale[0])).astype(np.float32)
    if target.quant is not None:
        mult = _saturating(mult / np.float32(target.quant.scale[0]), target.dtype)
    attrs.update(x_zp=x.quant.zero_point[0], **_result(target))
    if target.bounded and op == "qconv2d":
        attrs["bounded"] = True
    base = node.input(1).name
    w_quant = Quantization.per_channel(s_w.astype(np.float32), 0)
    operands = [
        x,
        graph.constant(weights, f"{base}.w", w_quant),
        graph.constant(bias.astype(np.int32), f"{node.name}.bias"),
        graph.constant(mult.astype(np.float32), f"{node.name}.mult"),
    ]
    new = graph.add(op, operands, attrs, names=[target.name], node_name=node.name, quants=[target.quant])
    return new.output


def _saturating(mult: np.ndarray | np.float32, dtype: DType) -> np.ndarray:
    """From as many steps as the type has on, every sum but 0 saturates: a larger factor changes nothing and could
    overflow int32."""
    return np.asarray(np.minimum(mult, np.float32(2**dtype.bits)), np.float32)


_Form = tuple[str, np.ndarray, int, dict[str, Attribute]]


def _conv(node: Node, w: np.ndarray) -> _Form | None:
    if node.attrs["layout"] != "NHWC":
        return None
    attrs = {k: node.attrs[k] for k in ("strides", "dilations", "pads", "groups")}
    return "qconv2d", w.transpose(0, 2, 3, 1), 0, attrs


def _conv_transpose(node: Node, w: np.ndarray) -> _Form | None:
    if node.attrs["layout"] != "NHWC":
        return None
    attrs = {k: node.attrs[k] for k in ("strides", "dilations", "pads", "output_pads")}
    return "qconv_transpose2d", w.transpose(1, 2, 3, 0), 1, attrs


def _gemm(node: Node, w: np.ndarray) -> _Form | None:
    return ("qgemm", w, 0, {}) if node.attrs["trans_b"] else ("qgemm", w.T, 1, {})


_FORMS = {"conv2d": _conv, "conv_transpose2d": _conv_transpose, "gemm": _gemm}


def build_sum(graph: Graph, node: Node, target: Target) -> Value | None:
    """qadd for add and sub, qmul for mul, on two dequantized operands."""
    dtypes = (DType.I8,) if node.op.name == "mul" else ACTIVATIONS
    a, b = dequantized(node.input(0), dtypes), dequantized(node.input(1), dtypes)
    if a is None or b is None or a.quant is None or b.quant is None or target.quant is None:
        return None
    if a.is_constant and b.is_constant:
        return None
    s_a, s_b, s_y = a.quant.scale[0], b.quant.scale[0], target.quant.scale[0]
    attrs: dict[str, Attribute] = {
        "a_zp": a.quant.zero_point[0],
        "b_zp": b.quant.zero_point[0],
        "zp": target.quant.zero_point[0],
        "lo": target.lo,
        "hi": target.hi,
    }
    if node.op.name == "mul":
        if target.dtype is not DType.I8:
            return None
        op = "qmul"
        attrs["mult"] = float(np.float32(s_a) * np.float32(s_b) / np.float32(s_y))
    else:
        op = "qadd"
        factors = [float(np.float32(s / s_y)) for s in (s_a, -s_b if node.op.name == "sub" else s_b)]
        if not all(abs(factor) < largest_factor(v.dtype) for factor, v in zip(factors, (a, b), strict=True)):
            return None
        attrs["a_mult"], attrs["b_mult"] = factors
        attrs["dtype"] = target.dtype
    new = graph.add(op, [a, b], attrs, names=[target.name], node_name=node.name, quants=[target.quant])
    return new.output


def build_attention(graph: Graph, node: Node, target: Target) -> Value | None:
    """qattention on dequantized q, k and v; the mask stays as it is."""
    if not is_joint_product(node):
        return None
    operands: list[Value | None] = []
    attrs: dict[str, Attribute] = {}
    steps = []
    for index, name in enumerate("qkv"):
        stored = dequantized(node.input(index))
        if stored is None or stored.quant is None or stored.is_constant:
            return None
        operands.append(stored)
        attrs[f"{name}_zp"] = stored.quant.zero_point[0]
        steps.append(stored.quant.scale[0])
    scale = np.float32(steps[0] * steps[1] * node.call.float("scale"))
    mult = np.float32(steps[2] / (target.quant.scale[0] if target.quant is not None else 1.0))
    if not (np.isfinite(scale) and np.isfinite(mult)):
        return None
    attrs.update(scale=float(scale), mult=float(mult), **_result(target))
    operands.append(node.optional(3))
    new = graph.add("qattention", operands, attrs, names=[target.name], node_name=node.name, quants=[target.quant])
    return new.output


def build_matmul(graph: Graph, node: Node, target: Target) -> Value | None:
    """qmatmul of two dequantized operands."""
    if not is_joint_product(node):
        return None
    a, b = dequantized(node.input(0)), dequantized(node.input(1))
    if a is None or b is None or a.quant is None or b.quant is None or a.is_constant or b.is_constant:
        return None
    mult = np.asarray(a.quant.scale[0] * b.quant.scale[0], np.float32)
    if target.quant is not None:
        mult = _saturating(mult / np.float32(target.quant.scale[0]), target.dtype)
    attrs: dict[str, Attribute] = {"a_zp": a.quant.zero_point[0], "b_zp": b.quant.zero_point[0]}
    attrs.update(mult=float(mult), **_result(target))
    new = graph.add("qmatmul", [a, b], attrs, names=[target.name], node_name=node.name, quants=[target.quant])
    return new.output


def build_softmax(graph: Graph, node: Node, target: Target) -> Value | None:
    """qsoftmax of dequantized scores."""
    x = dequantized(node.input(0))
    if x is None or x.quant is None or x.is_constant or target.quant is None or not normalizes_rows(node):
        return None
    table = graph.constant(exponentials(x.quant.scale[0]), f"{node.name}.exponentials")
    attrs = {"mult": float(np.float32(1 / target.quant.scale[0])), **_result(target)}
    new = graph.add("qsoftmax", [x, table], attrs, names=[target.name], node_name=node.name, quants=[target.quant])
    return new.output


def build_layer_norm(graph: Graph, node: Node, target: Target) -> Value | None:
    """qlayer_norm of a dequantized tensor: scale and bias in steps of the result, epsilon in units of its sums."""
    x = dequantized(node.input(0), ACTIVATIONS)
    if x is None or x.quant is None or x.is_constant or not normalizes_rows(node):
        return None
    count, step = x.shape[-1], np.float64(1.0 if target.quant is None else target.quant.scale[0])
    operands = [x]
    for index, default, name in ((1, 1.0, "scale"), (2, 0.0, "bias")):
        value = node.optional(index)
        real = np.broadcast_to(np.float64(default) if value is None else value.array.reshape(-1), (count,))
        operands.append(graph.constant((real / step).astype(np.float32), f"{node.name}.{name}"))
    epsilon = np.float32(node.call.float("epsilon") * (count / np.float64(x.quant.scale[0])) ** 2)
    if not (np.isfinite(epsilon) and all(np.isfinite(v.array).all() for v in operands[1:])):
        return None
    attrs = {"epsilon": float(epsilon), **_result(target)}
    new = graph.add("qlayer_norm", operands, attrs, names=[target.name], node_name=node.name, quants=[target.quant])
    return new.output


def _result(target: Target) -> dict[str, Attribute]:
    """Attributes of a product that say what becomes of its accumulators."""
    if target.quant is None:
        return {"dtype": DType.F32}
    return {"dtype": target.dtype, "zp": target.quant.zero_point[0], "lo": target.lo, "hi": target.hi}


def build_average_pool(graph: Graph, node: Node, target: Target) -> Value | None:
    x = dequantized(node.input(0))
    if x is None or x.quant is None or target.quant is None or node.attrs["layout"] != "NHWC":
        return None
    if target.dtype is not DType.I8:
        return None
    attrs = {k: node.attrs[k] for k in ("kernel", "strides", "pads", "count_include_pad")}
    attrs.update(
        x_zp=x.quant.zero_point[0],
        ratio=x.quant.scale[0] / target.quant.scale[0],
        zp=target.quant.zero_point[0],
        lo=target.lo,
        hi=target.hi,
    )
    new = graph.add("qavg_pool", [x], attrs, names=[target.name], node_name=node.name, quants=[target.quant])
    return new.output


def build_rescale(graph: Graph, stored: Value, target: Target) -> Value | None:
    """rescale of integers to another grid; of int8 to int8 it would be a table."""
    if stored.quant is None or stored.is_constant or target.quant is None:
        return None
    mult = np.float32(stored.quant.scale[0] / target.quant.scale[0])
    if not np.isfinite(mult):
        return None
    attrs = {"x_zp": stored.quant.zero_point[0], "mult": float(mult), **_result(target)}
    return graph.add("rescale", [stored], attrs, names=[target.name], quants=[target.quant]).output
