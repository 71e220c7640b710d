"""Small float ONNX networks grown at random: convolutional blocks as exporters write them, dense heads, attention.

Many networks that share nothing are put in one model, so that one calibration and one compiler run cover them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES = 8


class Networks:
    """One ONNX model of `count` networks; `samples` are float32 calibration arrays, samples on the first axis."""

    def __init__(self, seed: int, count: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []
        self.samples: dict[str, np.ndarray] = {}
        for number in range(count):
            _Network(self, f"n{number}", np.random.default_rng((seed, number))).grow()

    def model(self) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "networks", self.inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
        return model


class _Network:
    """Grows one network; `shape` is that of the tensor `x` it has come to."""

    def __init__(self, into: Networks, name: str, rng: np.random.Generator) -> None:
        self.into, self.name, self.rng = into, name, rng
        self.count = 0
        self.x, self.shape = "", (0,)

    def pick(self, options: Sequence):  # type: ignore[no-untyped-def,type-arg]
        return options[int(self.rng.integers(len(options)))]

    def fresh(self, hint: str) -> str:
        self.count += 1
        return f"{self.name}.{hint}{self.count}"

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = self.fresh(op.lower())
        self.into.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = self.fresh("c")
        self.into.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape: int) -> str:
        depth = max(1, int(np.prod(shape[1:])))
        spread = np.exp(self.rng.normal(0, 0.5, (shape[0],) + (1,) * (len(shape) - 1)))
        return self.constant((self.rng.normal(0, 1.2 / np.sqrt(depth), shape) * spread).astype(np.float32))

    def input(self, *shape: int) -> str:
        name = self.fresh("input")
        self.into.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        offset, scale = self.pick([(0, 1), (0.5, 0.3), (-2, 0.5), (0, 30)])
        data = self.rng.normal(offset, scale, (SAMPLES, *shape[1:]))
        self.into.samples[name] = data.astype(np.float32)
        return name

    def grow(self) -> None:
        if self.rng.random() < 0.8:
            self.shape = (1, self.pick([1, 2, 3, 4, 16, 17]), self.pick([4, 7, 8, 12]), self.pick([4, 5, 8, 12]))
        else:
            self.shape = (1, self.pick([5, 8, 9]), self.pick([8, 12, 16]))
        self.x = self.input(*self.shape)
        for _ in range(int(self.rng.integers(2, 7))):
            rank = len(self.shape)
            self.pick(IMAGE if rank == 4 else TOKENS if rank == 3 else FLAT)(self)
            if self.rng.random() < 0.08 and self.count > 1:
                self.into.outputs.append(self.node("Identity", self.x))  # a tensor inside the network is asked for
        if self.x.startswith(f"{self.name}.input"):
            self.activation()
        self.into.outputs.append(self.x)

    # ---- images ----

    def conv(self, out: int | None = None, kernel: int | None = None, groups: int = 1) -> None:
        channels, (rows, cols) = self.shape[1], self.shape[2:]
        out, kernel = out or self.pick([1, 3, 8, 16, 20, 33]), kernel or self.pick([1, 1, 3, 3, 5])
        stride = self.pick([1, 1, 1, 2]) if min(rows, cols) > 3 else 1
        pad = kernel // 2
        weights = self.weights(out, channels // groups, kernel, kernel)
        bias = [self.constant(self.rng.normal(0, 0.5, out).astype(np.float32))] if self.rng.random() < 0.7 else []
        self.x = self.node("Conv", self.x, weights, *bias, pads=[pad] * 4, strides=[stride] * 2, group=groups)
        self.shape = (1, out, (rows + 2 * pad - kernel) // stride + 1, (cols + 2 * pad - kernel) // stride + 1)

    def conv_block(self) -> None:
        self.conv()
        if self.rng.random() < 0.5:
            self.batch_norm()
        if self.rng.random() < 0.8:
            self.activation()

    def depthwise(self) -> None:
        self.conv(self.shape[1], self.pick([3, 5]), self.shape[1])
        self.activation()

    def batch_norm(self) -> None:
        c = self.shape[1]
        vectors = [self.rng.uniform(0.5, 1.5, c), self.rng.normal(0, 0.3, c), self.rng.normal(0, 0.3, c)]
        operands = [self.constant(v.astype(np.float32)) for v in (*vectors, self.rng.uniform(0.3, 2, c))]
        self.x = self.node("BatchNormalization", self.x, *operands)

    def activation(self) -> None:
        kind = self.pick(["Relu", "Relu", "Clip", "HardSwish", "Sigmoid", "LeakyRelu", "Silu", "Tanh", "PRelu"])
        if kind == "Clip":
            self.x = self.node("Clip", self.x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        elif kind == "Silu":
            self.x = self.node("Mul", self.x, self.node("Sigmoid", self.x))
        elif kind == "PRelu":
            self.x = self.node("PRelu", self.x, self.constant(np.float32([0.2])))
        else:
            self.x = self.node(kind, self.x)

    def residual(self) -> None:
        before, shape = self.x, self.shape
        self.x = self.node("Conv", before, self.weights(shape[1], shape[1], 3, 3), pads=[1] * 4)
        if self.rng.random() < 0.5:
            self.activation()
        pair = [before, self.x] if self.rng.random() < 0.5 else [self.x, before]
        self.x = self.node("Add", *pair)

    def branches(self) -> None:
        """Several windows over one tensor, each with its own padding; joined, perhaps with the tensor itself."""
        before, c = self.x, self.shape[1]
        parts = []
        for kernel in self.rng.choice([1, 3, 5], self.pick([2, 3])).tolist():
            weights = self.weights(self.pick([c, 4, 5]), c, kernel, kernel)
            parts.append(self.node("Conv", before, weights, pads=[kernel // 2] * 4))
        if self.rng.random() < 0.5:
            parts.append(self.node("MaxPool", before, kernel_shape=[3, 3], pads=[1] * 4))
        if self.rng.random() < 0.5:
            parts.append(before)
        if self.rng.random() < 0.3:
            parts = [self.node("Concat", *parts[:2], axis=1), *parts[1:]]
        self.x = self.node("Concat", *parts, axis=1)
        self.measure()

    def measure(self) -> None:
        """The shape, from ONNX's own inference over this network's nodes."""
        mine = [n for n in self.into.nodes if n.name.startswith(f"{self.name}.")]
        inputs = [i for i in self.into.inputs if i.name.startswith(f"{self.name}.")]
        constants = [c for c in self.into.constants if c.name.startswith(f"{self.name}.")]
        wanted = helper.make_tensor_value_info(self.x, TensorProto.FLOAT, None)
        graph = helper.make_graph(mine, "part", inputs, [wanted], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        self.shape = tuple(d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim)

    def twice(self) -> None:
        """The same tensor at both places of an op."""
        kind = self.pick(["Add", "Mul", "Concat"])
        if kind == "Mul":
            self.x = self.node("Tanh", self.x)
        self.x = self.node(kind, self.x, self.x, **({"axis": 1} if kind == "Concat" else {}))
        self.measure()

    def pool(self) -> None:
        if min(self.shape[2:]) < 3:
            return
        kind, kernel = self.pick(["MaxPool", "AveragePool"]), self.pick([2, 3])
        extra = {"count_include_pad": self.pick([0, 1])} if kind == "AveragePool" else {}
        self.x = self.node(kind, self.x, kernel_shape=[kernel] * 2, strides=[self.pick([1, 2])] * 2,
                           pads=[kernel // 2] * 4, **extra)  # fmt: skip
        self.measure()

    def excite(self) -> None:
        """Squeeze and excite."""
        c, before = self.shape[1], self.x
        pooled = self.node("GlobalAveragePool", before)
        hidden = self.node("Relu", self.node("Conv", pooled, self.weights(4, c, 1, 1)))
        gate = self.node(self.pick(["Sigmoid", "HardSigmoid"]), self.node("Conv", hidden, self.weights(c, 4, 1, 1)))
        self.x = self.node("Mul", *([before, gate] if self.rng.random() < 0.5 else [gate, before]))

    def up(self) -> None:
        if np.prod(self.shape) > 4000:
            return
        if self.rng.random() < 0.5:
            scales = self.constant(np.float32([1, 1, 2, 2]))
            self.x = self.node("Resize", self.x, "", scales, mode="nearest", nearest_mode="floor",
                               coordinate_transformation_mode="asymmetric")  # fmt: skip
        else:
            self.x = self.node("ConvTranspose", self.x, self.weights(self.shape[1], 6, 2, 2), strides=[2, 2])
        self.measure()

    def channel_arithmetic(self) -> None:
        vector = self.constant(self.rng.uniform(0.5, 2, (1, self.shape[1], 1, 1)).astype(np.float32))
        self.x = self.node(self.pick(["Add", "Mul", "Sub", "Div"]), self.x, vector)

    def second_input(self) -> None:
        self.x = self.node(self.pick(["Add", "Mul", "Sub"]), self.x, self.input(*self.shape))

    def cut(self) -> None:
        half = self.shape[1] // 2
        if half:
            bounds = [self.constant(np.int64([v])) for v in (0, half, 1)]
            first = self.node("Slice", self.x, bounds[0], bounds[1], bounds[2])
            rest = self.node("Slice", self.x, bounds[1], self.constant(np.int64([2 * half])), bounds[2])
            self.x = self.node(self.pick(["Add", "Mul"]), self.node("Sigmoid", first), rest)
            self.measure()

    def flatten(self) -> None:
        if self.rng.random() < 0.5:
            self.x = self.node("GlobalAveragePool", self.x)
        self.x = self.node("Flatten", self.x, axis=1)
        self.measure()

    def tokens(self) -> None:
        """An image as rows of features."""
        shape = self.constant(np.int64([1, self.shape[1], self.shape[2] * self.shape[3]]))
        self.x = self.node("Transpose", self.node("Reshape", self.x, shape), perm=[0, 2, 1])
        self.measure()

    # ---- rows of features ----

    def dense(self) -> None:
        out = self.pick([4, 10, 16, 33])
        if len(self.shape) == 2 and self.rng.random() < 0.6:
            bias = self.constant(self.rng.normal(0, 0.5, out).astype(np.float32))
            self.x = self.node("Gemm", self.x, self.weights(out, self.shape[-1]), bias, transB=1)
        else:
            transposed = self.rng.normal(0, 1.2 / np.sqrt(self.shape[-1]), (self.shape[-1], out))
            self.x = self.node("MatMul", self.x, self.constant(transposed.astype(np.float32)))
            if self.rng.random() < 0.7:
                self.x = self.node("Add", self.x, self.constant(self.rng.normal(0, 0.5, out).astype(np.float32)))
        self.shape = (*self.shape[:-1], out)
        if self.rng.random() < 0.6:
            self.activation()

    def softmax(self) -> None:
        self.x = self.node("Softmax", self.x, axis=-1)

    def normalize(self) -> None:
        n = self.shape[-1]
        scale, bias = self.rng.uniform(0.5, 1.5, n).astype(np.float32), self.rng.normal(0, 0.2, n).astype(np.float32)
        self.x = self.node("LayerNormalization", self.x, self.constant(scale), self.constant(bias), axis=-1)

    def attention(self) -> None:
        rows, features = self.shape[1:]
        query, key, value = (
            self.node("MatMul", self.x, self.constant((self.rng.normal(0, 1, (features, features))
                                                       / np.sqrt(features)).astype(np.float32)))
            for _ in range(3)
        )  # fmt: skip
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 2, 1]))
        scores = self.node("Mul", scores, self.constant(np.float32(1 / np.sqrt(features))))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        self.x = self.node("Add", self.x, mixed) if self.rng.random() < 0.5 else mixed

    def mean(self) -> None:
        self.x = self.node("ReduceMean", self.x, axes=[1], keepdims=0)
        self.measure()


Step = Callable[[_Network], None]
IMAGE: list[Step] = [
    *[_Network.conv_block] * 4, _Network.depthwise, _Network.residual, _Network.residual, _Network.branches,
    _Network.branches, _Network.pool, _Network.excite, _Network.up, _Network.channel_arithmetic,
    _Network.second_input, _Network.cut, _Network.twice, _Network.flatten, _Network.tokens, _Network.batch_norm,
]  # fmt: skip
TOKENS: list[Step] = [_Network.dense, _Network.dense, _Network.attention, _Network.normalize, _Network.softmax,
                      _Network.mean, _Network.second_input]  # fmt: skip
FLAT: list[Step] = [_Network.dense, _Network.dense, _Network.dense, _Network.activation, _Network.softmax,
                    _Network.twice, _Network.second_input]  # fmt: skip
