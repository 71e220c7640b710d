"""Recurrent layers: a product over all steps at once, and one op a direction for the state"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import MICROSOFT, onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.types import DType

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_FLOAT_WEIGHTS = "quantize the recurrent weights with weight_type=QInt8, or leave the layer float32"

# (direction, steps of the input) -> what the input contributes, f32[T, B, gates·H], and the state's weights with scales
_Weights = Callable[[int], tuple[Value, Value, Value | None]]


def _directions(node: OnnxNode, activations: Sequence[str]) -> tuple[bool, ...]:
    """Whether each direction is reversed; Unsupported for forms that no op computes."""
    name = node.attr_str("direction", "forward").lower()
    if name not in _DIRECTIONS:
        raise node.fail(f"direction {name!r} is none of {', '.join(_DIRECTIONS)}")
    reverse = _DIRECTIONS[name]
    if node.has("activations"):
        given = [s.decode().lower() for s in node.attributes["activations"].strings]
        if given != [a.lower() for a in activations] * len(reverse):
            raise node.unsupported(f"activations {', '.join(given)}", f"use {', '.join(activations)}")
    if node.has("clip") and node.attr_float("clip") != 0.0:
        raise node.unsupported("clipped gates", "train without clip")
    if node.attr_int("input_forget", 0):
        raise node.unsupported("coupled input and forget gates", "use input_forget = 0")
    return reverse


def _check_lengths(node: OnnxNode, steps: int) -> None:
    if node.optional(4) is not None and any(n != steps for n in node.constant_ints(4, "the lengths of sequences")):
        raise node.unsupported("sequences that end early", f"give all {steps} steps, or leave sequence_lens out")


def _of_direction(node: OnnxNode, index: int, direction: int) -> Value | None:
    """What of an operand [directions, ...] belongs to one direction."""
    value = node.optional(index)
    return None if value is None else node.emit("gather", [value, node.const(np.int64(direction))], {"axis": 0})


def _state(node: OnnxNode, index: int, direction: int) -> Value | None:
    value = node.optional(index)
    axis = node.attr_int("layout", 0)
    return None if value is None else node.emit("gather", [value, node.const(np.int64(direction))], {"axis": axis})


def _part(node: OnnxNode, vector: Value, first: int, last: int) -> Value:
    return node.emit("slice", [vector], {"starts": (first,), "ends": (last,), "steps": (1,)})


def _input(node: OnnxNode) -> Value:
    """x in the order [steps, batch, inputs]."""
    x = node.value(0)
    if len(x.shape) != 3:
        raise node.fail(f"its input has {len(x.shape)} dimensions, not 3")
    x = node.emit("transpose", [x], {"perm": (1, 0, 2)}) if node.attr_int("layout", 0) else x
    _check_lengths(node, x.shape[0])
    return x


def _joined(node: OnnxNode, results: Sequence[Sequence[Value]]) -> list[Value]:
    """Results of the directions, as ONNX arranges them: y [T, D, B, H], states [D, B, H]; layout 1: batch first."""
    outputs = []
    for index, values in enumerate(zip(*results, strict=True)):
        axis = 1 if index == 0 else 0
        apart = [node.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in values]
        joined = apart[0] if len(apart) == 1 else node.emit("concat", apart, {"axis": axis})
        if node.attr_int("layout", 0):
            joined = node.emit("transpose", [joined], {"perm": (2, 0, 1, 3) if index == 0 else (1, 0, 2)})
        outputs.append(joined)
    return outputs


def _float_input(node: OnnxNode, x: Value, direction: int, bias: Value | None) -> Value:
    """x·Wᵀ + bias of a direction: f32[T, B, gates·H]."""
    w = _of_direction(node, 1, direction)
    assert w is not None
    rows = node.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))
    y = node.emit("gemm", [rows, w, bias], {"trans_b": True})
    return node.reshape(y, (*x.shape[:2], w.shape[0]))


def _float_weights(node: OnnxNode, direction: int) -> Value:
    node.constant(2, "the recurrent weights")
    r = _of_direction(node, 2, direction)
    assert r is not None
    return r


def _summed_bias(node: OnnxNode, direction: int, width: int) -> Value | None:
    """The biases of input and state, which are added to the same sums."""
    b = _of_direction(node, 3, direction)
    return None if b is None else node.emit("add", [_part(node, b, 0, width), _part(node, b, width, 2 * width)])


def _lstm(node: OnnxNode, weights: _Weights) -> list[Value]:
    if node.optional(7) is not None:
        raise node.unsupported("peepholes", "train without them")
    results = []
    for direction, reverse in enumerate(_directions(node, ("Sigmoid", "Tanh", "Tanh"))):
        x, r, scale = weights(direction)
        states = _state(node, 5, direction), _state(node, 6, direction)
        results.append(node.emit_all("lstm", [x, r, *states, scale], {"reverse": reverse}))
    return _joined(node, results)


@onnx_op("LSTM")
def lstm(node: OnnxNode) -> list[Value]:
    def weights(direction: int) -> tuple[Value, Value, Value | None]:
        r = _float_weights(node, direction)
        return _float_input(node, x, direction, _summed_bias(node, direction, r.shape[0])), r, None

    x = _input(node)
    return _lstm(node, weights)


@onnx_op("GRU")
def gru(node: OnnxNode) -> list[Value]:
    x, linear = _input(node), bool(node.attr_int("linear_before_reset", 0))
    results = []
    for direction, reverse in enumerate(_directions(node, ("Sigmoid", "Tanh"))):
        r, b = _float_weights(node, direction), _of_direction(node, 3, direction)
        width, hidden = r.shape
        bias, own = _summed_bias(node, direction, width), None
        if linear and b is not None:  # the last gate's bias of the state is multiplied by the reset gate
            both = node.emit("add", [_part(node, b, 0, 2 * hidden), _part(node, b, width, width + 2 * hidden)])
            bias = node.emit("concat", [both, _part(node, b, 2 * hidden, width)], {"axis": 0})
            own = _part(node, b, width + 2 * hidden, 2 * width)
        operands = [_float_input(node, x, direction, bias), r, own, _state(node, 5, direction)]
        attrs = {"reverse": reverse, "linear_before_reset": linear}
        results.append(node.emit_all("gru", operands, attrs))
    return _joined(node, results)


def _integer_weights(node: OnnxNode, index: int, scale: int, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """(int8 [gates·H, K], f32 [gates·H]) of a direction's weights [K, gates·H], without zero points."""
    raw = node.constant(index, "its weights")[direction].T.astype(np.int64)
    scales = node.constant(scale, "the scale of its weights").astype(np.float32)
    zeros = node.optional_constant(scale + 1, "the zero point of its weights")
    if zeros is not None:
        raw = raw - zeros.astype(np.int64).reshape(zeros.shape[0], -1)[direction][:, None]
    if raw.min(initial=0) < -128 or raw.max(initial=0) > 127:
        raise node.unsupported("weights with zero points that do not fit int8", _FLOAT_WEIGHTS)
    columns = np.broadcast_to(scales.reshape(scales.shape[0], -1)[direction], raw.shape[:1])
    return np.ascontiguousarray(raw.astype(np.int8)), np.ascontiguousarray(columns)


@onnx_op("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(node: OnnxNode) -> list[Value]:
    """The input gets one grid, as onnxruntime has it; the state gets one at each step, for each row of the batch."""

    def weights(direction: int) -> tuple[Value, Value, Value | None]:
        w, w_scale = _integer_weights(node, 1, 8, direction)
        r, r_scale = _integer_weights(node, 2, 10, direction)
        bias = _summed_bias(node, direction, w.shape[0])
        y = node.emit("dynamic_qgemm", [*quantized, node.const(w), node.const(w_scale), bias])
        return node.reshape(y, (*x.shape[:2], w.shape[0])), node.const(r), node.const(r_scale)

    x = _input(node)
    rows = node.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))
    quantized = node.emit_all("dynamic_quantize", [rows], {"dtype": DType.I8})
    return _lstm(node, weights)
