"""The depthwise-separable digit network trained on with fake quantization, and exported in that form.

Weights stay float32 and pass QuantizeLinear and DequantizeLinear (int8, symmetric, per output channel);
activations are uint8 per tensor.  The scales were learnt during training: a compiler must take them as they
are and not calibrate again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcomp.zoo import cache, mnist
from qcomp.zoo.case import Array, Case
from qcomp.zoo.optional import require

EPOCHS, LEARNING_RATE = 6, 1e-3
# How fast an activation's range follows the batches.
RANGE_MOMENTUM = 0.95
LOGITS = "logits"


@dataclass(frozen=True)
class Layer:
    """A convolution, or the last linear layer (``kernel`` 0), with the batch normalization folded in."""

    weights: Array
    bias: Array
    kernel: int
    stride: int
    groups: int


def case() -> Case:
    """Digits by a network that was trained quantization-aware; 11 thousand parameters."""
    data = mnist.digits()

    def write(path: Path) -> None:
        torch = require("torch", "mnist_dscnn_qat")
        layers = _layers(mnist.dscnn_case().onnx_path)
        cache.progress("training mnist_dscnn_qat with fake quantization, about a minute")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = _network(torch, layers)
            mnist.train(torch, network, data, EPOCHS, LEARNING_RATE)
        trained = [
            Layer(w.detach().numpy(), b.detach().numpy(), layer.kernel, layer.stride, layer.groups)
            for layer, w, b in zip(layers, network.weights, network.biases, strict=True)
        ]
        onnx.save(_export(trained, [float(scale) for scale in network.scales()]), path)

    model = cache.cached(f"models/mnist_dscnn_qat-{mnist.version(data)}.onnx", write)
    return mnist.make_case("mnist_dscnn_qat", model, data, {"top1": 0.975})


def weight_scales(weights: Array) -> Array:
    """float32 [outputs]: the symmetric int8 scale of each output channel of ``weights`` [outputs, ...]."""
    largest = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
    scales: Array = (np.maximum(largest, np.float32(1e-8)) / np.float32(127)).astype(np.float32)
    return scales


def _layers(path: Path) -> list[Layer]:
    """The layers of the float network, as its exporter folded them."""
    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = []
    for node in graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type in ("Conv", "Gemm"):
            kernel = attributes.get("kernel_shape", [0])[0]
            stride, groups = attributes.get("strides", [1])[0], attributes.get("group", 1)
            layers.append(Layer(arrays[node.input[1]], arrays[node.input[2]], kernel, stride, groups))
    return layers


def _network(torch: Any, layers: list[Layer]) -> Any:
    """The network with fake quantization at its input, after every ReLU and after the average."""
    fake = torch.fake_quantize_per_tensor_affine

    class FakeQuantized(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            as_parameter = torch.nn.Parameter
            self.weights = torch.nn.ParameterList(
                [as_parameter(torch.from_numpy(layer.weights.copy())) for layer in layers]
            )
            self.biases = torch.nn.ParameterList(
                [as_parameter(torch.from_numpy(layer.bias.copy())) for layer in layers]
            )
            # Largest value seen at each quantized activation; 0 until the first batch.
            self.register_buffer("largest", torch.zeros(len(layers) + 1))

        def scales(self) -> Any:
            return self.largest / 255

        def activation(self, x: Any, index: int) -> Any:
            if self.training:
                now, before = x.detach().max(), self.largest[index]
                self.largest[index] = now if before == 0 else before + (1 - RANGE_MOMENTUM) * (now - before)
            return fake(x, float(self.scales()[index]), 0, 0, 255)

        def weight(self, index: int) -> Any:
            w = self.weights[index]
            scales = torch.from_numpy(weight_scales(w.detach().numpy()))
            zeros = torch.zeros(len(scales), dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(w, scales, zeros, 0, -127, 127)

        def forward(self, x: Any) -> Any:
            x = self.activation(x, 0)
            last = len(layers) - 1
            for index, layer in enumerate(layers[:-1]):
                x = torch.nn.functional.conv2d(
                    x,
                    self.weight(index),
                    self.biases[index],
                    layer.stride,
                    layer.kernel // 2,
                    1,
                    layer.groups,
                )
                x = self.activation(torch.relu(x), index + 1)
            x = self.activation(x.mean(dim=(2, 3)), last + 1)
            return torch.nn.functional.linear(x, self.weight(last), self.biases[last])

    return FakeQuantized()


def _export(layers: list[Layer], scales: list[float]) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, array: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def fake_quantized(x: str, scale: Any, zero_point: Any, **axis: Any) -> str:
        parameters = [constant(f"{x}_scale", scale), constant(f"{x}_zero_point", zero_point)]
        nodes.append(helper.make_node("QuantizeLinear", [x, *parameters], [f"{x}_q"], **axis))
        nodes.append(helper.make_node("DequantizeLinear", [f"{x}_q", *parameters], [f"{x}_dq"], **axis))
        return f"{x}_dq"

    def operands(index: int, layer: Layer) -> tuple[str, str]:
        weights, bias = constant(f"w{index}", layer.weights), constant(f"b{index}", layer.bias)
        per_channel = weight_scales(layer.weights)
        return fake_quantized(weights, per_channel, np.zeros(len(per_channel), np.int8), axis=0), bias

    def activation(x: str, index: int) -> str:
        return fake_quantized(x, np.float32(scales[index]), np.uint8(0))

    x = activation(mnist.INPUT, 0)
    for index, layer in enumerate(layers[:-1]):
        conv = helper.make_node(
            "Conv",
            [x, *operands(index, layer)],
            [f"conv{index}"],
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.kernel // 2] * 4,
            group=layer.groups,
        )
        nodes += [conv, helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"])]
        x = activation(f"relu{index}", index + 1)
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["average"]))
    nodes.append(helper.make_node("Flatten", [activation("average", len(layers))], ["features"]))
    last = len(layers) - 1
    nodes.append(helper.make_node("Gemm", ["features", *operands(last, layers[last])], [LOGITS], transB=1))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "mnist_dscnn_qat",
        [value(mnist.INPUT, TensorProto.FLOAT, [1, 1, 28, 28])],
        [value(LOGITS, TensorProto.FLOAT, [1, 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
