"""Small ONNX models, made with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
Dims = Sequence[int | str]


def weights(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    generator = np.random.default_rng([seed, *name.encode()])
    return numpy_helper.from_array((generator.standard_normal(shape) * 0.3).astype(np.float32), name)


def constant(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def tensor(name: str, shape: Dims | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=outputs[0] if outputs else op, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "made", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def mlp(batch: int | str = 1) -> onnx.ModelProto:
    """x [1, 16] -> Gemm, Relu, Gemm -> y [1, 5]."""
    return model(
        [
            node("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
            node("Relu", ["h"], ["r"]),
            node("Gemm", ["r", "w1", "b1"], ["y"], transB=1),
        ],
        [tensor("x", [batch, 16])],
        [tensor("y", [batch, 5])],
        [weights("w0", 24, 16), weights("b0", 24), weights("w1", 5, 24), weights("b1", 5)],
    )


def convnet() -> onnx.ModelProto:
    """x [1, 3, 8, 8] -> two convolutions with ReLU and pooling -> y [1, 5]."""
    return model(
        [
            node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1]),
            node("Relu", ["c0"], ["r0"]),
            node("MaxPool", ["r0"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "w1"], ["c1"], pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"]),
            node("GlobalAveragePool", ["r1"], ["g"]),
            node("Flatten", ["g"], ["f"]),
            node("Gemm", ["f", "w2", "b2"], ["y"], transB=1),
        ],
        [tensor("x", [1, 3, 8, 8])],
        [tensor("y", [1, 5])],
        [
            weights("w0", 8, 3, 3, 3),
            weights("b0", 8),
            weights("w1", 16, 8, 3, 3),
            weights("w2", 5, 16),
            weights("b2", 5),
        ],
    )


def with_softmax() -> onnx.ModelProto:
    """The mlp with a Softmax at its end, which stays float32."""
    proto = mlp()
    proto.graph.node.append(node("Softmax", ["y"], ["z"]))
    del proto.graph.output[:]
    proto.graph.output.append(tensor("z", [1, 5]))
    return proto


def two_inputs() -> onnx.ModelProto:
    """y [1, 5] = Gemm(a [1, 8]) + Gemm(b [1, 4])."""
    return model(
        [
            node("Gemm", ["a", "wa"], ["ya"], transB=1),
            node("Gemm", ["b", "wb"], ["yb"], transB=1),
            node("Add", ["ya", "yb"], ["y"]),
        ],
        [tensor("a", [1, 8]), tensor("b", [1, 4])],
        [tensor("y", [1, 5])],
        [weights("wa", 5, 8), weights("wb", 5, 4)],
    )


def qdq(scale: float = 0.05, weight_scale: float = 0.01, zero_type: Any = np.int8) -> onnx.ModelProto:
    """A quantized Gemm: x [1, 16] -> Q, DQ -> Gemm with dequantized int8 weights -> y [1, 5]."""
    generator = np.random.default_rng(5)
    return model(
        [
            node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
            node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
            node("DequantizeLinear", ["wq", "sw", "zw"], ["w"]),
            node("Gemm", ["xd", "w"], ["y"], transB=1),
        ],
        [tensor("x", [1, 16])],
        [tensor("y", [1, 5])],
        [
            constant("sx", scale), constant("zx", 3, zero_type), constant("sw", weight_scale),
            constant("zw", 0, np.int8), constant("wq", generator.integers(-127, 128, (5, 16)), np.int8),
        ],
    )  # fmt: skip
