"""Float ONNX networks as float .tflite files, for the ops of the zoo's convolutional networks.

Images lie with their channels last, as TFLite has them: where the ONNX model takes and gives [n, c, ...], the .tflite
takes and gives [n, ..., c].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert.schema_py_generated import ActivationFunctionType as Activation
from ai_edge_litert.schema_py_generated import Padding
from onnx import helper, numpy_helper
from tflite_file import TfliteFile

from qcomp.errors import QcompError

_ACTIVATIONS = {"Relu": Activation.RELU, "Relu6": Activation.RELU6}


def float_tflite(path: Path, folder: Path) -> bytes:
    """The network of an ONNX file with static shapes; `folder` takes a file on the way.

    Raises QcompError that names the first node which has no TFLite form here.
    """
    return _Conversion(_folded(path, folder / "folded.onnx")).run()


def channels_last(array: np.ndarray) -> np.ndarray:
    """[n, c, ...] as [n, ..., c]; arrays of fewer axes as they are."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if array.ndim > 2 else array


def _folded(path: Path, folded: Path) -> onnx.ModelProto:
    """The model with constants computed and batch normalizations folded into convolutions, and all shapes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.shape_inference.infer_shapes(onnx.load(str(folded)), strict_mode=True, data_prop=True)


class _Conversion:
    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.graph = graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.shapes = {
            v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
            for v in (*graph.input, *graph.value_info, *graph.output)
        }
        self.file = TfliteFile()
        self.tensors: dict[str, int] = {}
        self.activations: dict[str, str] = {}  # names of values that are not negative -> Relu or Relu6
        self.fused: set[str] = set()

    def run(self) -> bytes:
        names = [v.name for v in self.graph.input], [v.name for v in self.graph.output]
        for name in names[0]:
            self.output(name)
        for node in self.graph.node:
            if node.output[0] in self.fused:
                continue
            if node.op_type not in _OPS:
                raise _unsupported(node, node.op_type)
            _OPS[node.op_type](self, node)
        inputs, outputs = ({name: self.tensors[name] for name in group} for group in names)
        return self.file.finish(inputs, outputs)

    def value(self, name: str) -> int:
        """The tensor of a value that is computed; constants are stored by those who know their layout."""
        if name not in self.tensors:
            raise QcompError("a constant operand has no TFLite form here", where=name, fix="leave this model out")
        return self.tensors[name]

    def output(self, name: str) -> int:
        shape = self.shapes[name]
        self.tensors[name] = self.file.tensor(name, (shape[0], *shape[2:], shape[1]) if len(shape) > 2 else shape)
        return self.tensors[name]

    def constant(self, name: str, values: Any) -> int:
        return self.file.constant(name, np.asarray(values))

    def activated(self, node: onnx.NodeProto) -> tuple[int, int]:
        """The output of a node and its activation, which is that of a Relu or ReLU6 that alone uses the node."""
        name, kind = node.output[0], ""
        users = [user for user in self.graph.node if name in user.input]
        if len(users) == 1 and name not in {v.name for v in self.graph.output} and self.activation(users[0]):
            kind, name = self.activation(users[0]), users[0].output[0]
            self.fused.add(name)
            self.activations[name] = kind
        return self.output(name), _ACTIVATIONS.get(kind, Activation.NONE)

    def activation(self, node: onnx.NodeProto) -> str:
        """Relu or Relu6 where the node computes one."""
        if node.op_type == "Clip":
            limits = [float(self.constants[name]) for name in node.input[1:] if name in self.constants]
            return "Relu6" if limits == [0.0, 6.0] else ""
        return "Relu" if node.op_type == "Relu" else ""

    def padded(self, node: onnx.NodeProto, kernel: list[int], strides: list[int]) -> tuple[int, int]:
        """The node's input and its padding: TFLite knows none and "same"; before others stands a Pad of zeros."""
        x, rank = node.input[0], len(kernel)
        pads = _attribute(node, "pads", [0] * 2 * rank)
        before, after = pads[:rank], pads[rank:]
        sizes = list(zip(self.shapes[x][2:], kernel, strides, strict=True))
        total = [max((-(-size // stride) - 1) * stride + k - size, 0) for size, k, stride in sizes]
        if not any(pads):
            return self.value(x), Padding.VALID
        if before == [t // 2 for t in total] and after == [t - t // 2 for t in total]:
            return self.value(x), Padding.SAME
        if node.op_type == "MaxPool" and x not in self.activations:
            raise _unsupported(node, "padding of values that may be negative")
        n, c, *size = self.shapes[x]
        grown = [s + b + a for s, b, a in zip(size, before, after, strict=True)]
        result = self.file.tensor(f"{node.output[0]}_padded", (n, *grown, c))
        amounts = np.array([(0, 0), *zip(before, after, strict=True), (0, 0)], np.int32)
        self.file.operator("Pad", [self.value(x), self.constant(f"{node.output[0]}_pads", amounts)], result)
        return result, Padding.VALID


def _conv(net: _Conversion, node: onnx.NodeProto) -> None:
    weights = net.constants[node.input[1]]
    out, depth, *kernel = weights.shape
    groups, strides = _attribute(node, "group", 1), _attribute(node, "strides", [1, 1])
    if len(kernel) != 2 or any(d != 1 for d in _attribute(node, "dilations", [1, 1])):
        raise _unsupported(node, "a convolution that is not two-dimensional and dense")
    if groups > 1 and depth > 1:
        raise _unsupported(node, "a convolution in groups of several channels")
    x, padding = net.padded(node, kernel, strides)
    bias = net.constants[node.input[2]] if len(node.input) > 2 else np.zeros(out, np.float32)
    depthwise = groups > 1
    packed = weights.transpose(1, 2, 3, 0) if depthwise else weights.transpose(0, 2, 3, 1)
    output, activation = net.activated(node)
    stored = net.constant(f"{node.output[0]}_weights", packed), net.constant(f"{node.output[0]}_bias", bias)
    options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    multiplier = {"depthMultiplier": out // groups} if depthwise else {}
    net.file.operator("DepthwiseConv2D" if depthwise else "Conv2D", [x, *stored], output,
                      fusedActivationFunction=activation, **options, **multiplier)  # fmt: skip


def _gemm(net: _Conversion, node: onnx.NodeProto) -> None:
    if any(_attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")) or _attribute(node, "transA", 0):
        raise _unsupported(node, "a scaled or transposed product")
    weights = net.constants[node.input[1]]
    weights = weights if _attribute(node, "transB", 0) else weights.T
    bias = net.constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weights), np.float32)
    output, activation = net.activated(node)
    name = node.output[0]
    stored = net.constant(f"{name}_weights", weights), net.constant(f"{name}_bias", bias)
    net.file.operator("FullyConnected", [net.value(node.input[0]), *stored], output,
                      fusedActivationFunction=activation)  # fmt: skip


def _add(net: _Conversion, node: onnx.NodeProto) -> None:
    output, activation = net.activated(node)
    net.file.operator("Add", [net.value(name) for name in node.input], output, fusedActivationFunction=activation)


def _same_operator(name: str) -> Callable[[_Conversion, onnx.NodeProto], None]:
    """An op that TFLite has in the same form, without options."""

    def convert(net: _Conversion, node: onnx.NodeProto) -> None:
        net.file.operator(name, [net.value(operand) for operand in node.input], net.output(node.output[0]))

    return convert


def _activation(net: _Conversion, node: onnx.NodeProto) -> None:
    kind = net.activation(node)
    if not kind:
        raise _unsupported(node, "limits that are not 0 and 6")
    net.activations[node.output[0]] = kind
    net.file.operator(kind, [net.value(node.input[0])], net.output(node.output[0]))


def _max_pool(net: _Conversion, node: onnx.NodeProto) -> None:
    kernel, strides = _attribute(node, "kernel_shape", []), _attribute(node, "strides", [1, 1])
    if _attribute(node, "ceil_mode", 0) or any(d != 1 for d in _attribute(node, "dilations", [1, 1])):
        raise _unsupported(node, "pooling that is rounded up or dilated")
    x, padding = net.padded(node, kernel, strides)
    net.file.operator("Pool2D", [x], net.output(node.output[0]), padding=padding, strideH=strides[0],
                      strideW=strides[1], filterHeight=kernel[0], filterWidth=kernel[1])  # fmt: skip


def _mean(net: _Conversion, node: onnx.NodeProto) -> None:
    axes = net.constant(f"{node.output[0]}_axes", np.array([1, 2], np.int32))
    net.file.operator("Mean", [net.value(node.input[0]), axes], net.output(node.output[0]), keepDims=True)


def _reshape(net: _Conversion, node: onnx.NodeProto) -> None:
    """Samples and channels stay, or the pixels are one: then the order with channels last is that of channels first."""
    source, result = net.shapes[node.input[0]], net.shapes[node.output[0]]
    channels = len(result) < 2 or result[:2] != source[:2]
    if channels or (len(result) == 2 and any(size != 1 for size in source[2:])):
        raise _unsupported(node, "a change of the channels")
    shape = np.array((result[0], *result[2:], result[1]), np.int32)
    inputs = [net.value(node.input[0]), net.constant(f"{node.output[0]}_shape", shape)]
    net.file.operator("Reshape", inputs, net.output(node.output[0]), newShape=[int(s) for s in shape])


def _concat(net: _Conversion, node: onnx.NodeProto) -> None:
    rank = len(net.shapes[node.output[0]])
    axis = _last(_attribute(node, "axis", 0) % rank, rank)
    inputs = [net.value(name) for name in node.input]
    net.file.operator("Concatenation", inputs, net.output(node.output[0]), axis=axis)


def _slice(net: _Conversion, node: onnx.NodeProto) -> None:
    starts, ends, axes = (net.constants[name].tolist() for name in node.input[1:4])
    if len(node.input) > 4 and any(step != 1 for step in net.constants[node.input[4]]):
        raise _unsupported(node, "a slice with steps")
    shape = net.shapes[node.input[0]]
    begin, size = [0] * len(shape), list(shape)
    for start, end, axis in zip(starts, ends, axes, strict=True):
        first, last, _ = slice(start, end).indices(shape[axis])
        begin[axis], size[axis] = first, last - first
    order = [0, *range(2, len(shape)), 1]
    name = node.output[0]
    limits = [net.constant(f"{name}_{what}", np.array(values, np.int32)[order])
              for what, values in (("begin", begin), ("size", size))]  # fmt: skip
    net.file.operator("Slice", [net.value(node.input[0]), *limits], net.output(name))


def _resize(net: _Conversion, node: onnx.NodeProto) -> None:
    how = tuple(_attribute(node, name, b"") for name in ("mode", "coordinate_transformation_mode", "nearest_mode"))
    if how != (b"nearest", b"asymmetric", b"floor"):
        raise _unsupported(node, "a resizing other than nearest, asymmetric, floor")
    name = node.output[0]
    size = net.constant(f"{name}_size", np.array(net.shapes[name][2:], np.int32))
    net.file.operator("ResizeNearestNeighbor", [net.value(node.input[0]), size], net.output(name))


def _last(axis: int, rank: int) -> int:
    """Where an axis of [n, c, ...] is in [n, ..., c]."""
    return axis if rank < 3 or axis == 0 else (axis - 1 if axis > 1 else rank - 1)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _unsupported(node: onnx.NodeProto, what: str) -> QcompError:
    return QcompError(f"{what} has no TFLite form here", where=node.name or node.output[0], fix="leave this model out")


_OPS: Mapping[str, Callable[[_Conversion, onnx.NodeProto], None]] = {
    "Add": _add,
    "Clip": _activation,
    "Concat": _concat,
    "Conv": _conv,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "MaxPool": _max_pool,
    "Mul": _same_operator("Mul"),
    "Relu": _activation,
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _same_operator("Logistic"),
    "Slice": _slice,
}
