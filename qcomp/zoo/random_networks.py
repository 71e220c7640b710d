"""MobileNetV2 and ResNet-50 with random weights: the real shapes, for speed and for numbers, not for answers.

Weights are drawn as for training (He et al. 2015, arXiv:1502.01852).  Batch normalization gets the statistics
that its inputs really have on some pictures, and random gains and offsets, so that every channel of every
activation has a range of its own, as in a trained network, and nothing explodes or dies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcomp.zoo import cache
from qcomp.zoo.case import Array, Case, Metric, best_class
from qcomp.zoo.onnxruntime_float import run

INPUT = "input"
SIDE, CLASSES = 224, 1000
OPSET = 17
EPSILON = 1e-5
# A small gain at the end of every residual branch keeps the sum of many branches from growing.
BRANCH_GAIN = 0.3
TEST_PICTURES, CALIBRATION_PICTURES, STATISTICS_PICTURES = 64, 32, 16

# MobileNetV2, table 2 (arXiv:1801.04381): expansion, channels, repeats, first stride.
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# ResNet-50, table 1 (arXiv:1512.03385), stride on the 3x3: width, repeats, first stride.
BOTTLENECKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class Network:
    """Writes an ONNX graph node by node.

    With ``statistics`` None the normalizations compute the mean and variance of their own input and the model
    puts them out; with the statistics of such a run they become BatchNormalization nodes.
    """

    def __init__(self, seed: int, batch: int, statistics: list[Array] | None) -> None:
        self._random = np.random.default_rng(seed)
        self._batch = batch
        self._statistics = None if statistics is None else iter(statistics)
        self._measured: list[tuple[str, list[int]]] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, array: npt.ArrayLike) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self,
        x: str,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        gain: float = 1.0,
    ) -> str:
        """Convolution without bias and its batch normalization; ``channels`` are (in, out)."""
        fan_in = channels[0] // groups * kernel * kernel
        shape = (channels[1], channels[0] // groups, kernel, kernel)
        weights = (self._random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        pad = kernel // 2
        x = self.node(
            "Conv",
            x,
            self.constant(weights),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
        )
        return self._normalize(x, channels[1], gain)

    def relu6(self, x: str) -> str:
        return self.node("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def classify(self, x: str, features: int) -> str:
        """Global average, centred on its own mean over the pictures, then a linear layer."""
        x = self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)
        weights = (self._random.standard_normal((CLASSES, features)) / np.sqrt(features)).astype(np.float32)
        bias = np.zeros(CLASSES, np.float32)
        if self._statistics is None:
            self._measured.append((self.node("ReduceMean", x, axes=[0], keepdims=0), [features]))
        else:
            # Random features differ little from their mean; without this every picture has the same class.
            bias = -(weights @ next(self._statistics)).astype(np.float32)
        return self.node("Gemm", x, self.constant(weights), self.constant(bias), transB=1)

    def model(self, logits: str, name: str) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        outputs = [value(logits, TensorProto.FLOAT, [self._batch, CLASSES])]
        outputs += [value(measured, TensorProto.FLOAT, shape) for measured, shape in self._measured]
        inputs = [value(INPUT, TensorProto.FLOAT, [self._batch, 3, SIDE, SIDE])]
        graph = helper.make_graph(self._nodes, name, inputs, outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        return model

    def _normalize(self, x: str, channels: int, gain: float) -> str:
        gains = (gain * self._random.uniform(0.5, 1.5, channels)).astype(np.float32)
        offsets = self._random.normal(0, 0.3, channels).astype(np.float32)
        if self._statistics is not None:
            mean, variance = next(self._statistics), next(self._statistics)
            parameters = [self.constant(array) for array in (gains, offsets, mean, variance)]
            return self.node("BatchNormalization", x, *parameters, epsilon=EPSILON)
        mean_name = self.node("ReduceMean", x, axes=[0, 2, 3], keepdims=1)
        centred = self.node("Sub", x, mean_name)
        variance_name = self.node(
            "ReduceMean", self.node("Mul", centred, centred), axes=[0, 2, 3], keepdims=1
        )
        shape = [1, channels, 1, 1]
        self._measured += [(mean_name, shape), (variance_name, shape)]
        floor = self.constant(np.full((1, 1, 1, 1), EPSILON, np.float32))
        scaled = self.node("Div", centred, self.node("Sqrt", self.node("Add", variance_name, floor)))
        scaled = self.node("Mul", scaled, self.constant(gains.reshape(1, -1, 1, 1)))
        return self.node("Add", scaled, self.constant(offsets.reshape(1, -1, 1, 1)))


def mobilenet_v2(net: Network) -> str:
    """MobileNetV2, width 1.0; returns the name of the logits, [n, 1000]."""
    x = net.relu6(net.conv(INPUT, (3, 32), 3, stride=2))
    channels = 32
    for expansion, width, repeats, first_stride in INVERTED_RESIDUALS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            inner = channels * expansion
            y = net.relu6(net.conv(x, (channels, inner))) if expansion > 1 else x
            y = net.relu6(net.conv(y, (inner, inner), 3, stride=stride, groups=inner))
            residual = stride == 1 and channels == width
            y = net.conv(y, (inner, width), gain=BRANCH_GAIN if residual else 1.0)
            x = net.node("Add", x, y) if residual else y
            channels = width
    return net.classify(net.relu6(net.conv(x, (channels, 1280))), 1280)


def resnet50(net: Network) -> str:
    """ResNet-50 (version 1.5); returns the name of the logits, [n, 1000]."""
    x = net.node("Relu", net.conv(INPUT, (3, 64), 7, stride=2))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, repeats, first_stride in BOTTLENECKS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            y = net.node("Relu", net.conv(x, (channels, width)))
            y = net.node("Relu", net.conv(y, (width, width), 3, stride=stride))
            y = net.conv(y, (width, 4 * width), gain=BRANCH_GAIN)
            shortcut = net.conv(x, (channels, 4 * width), stride=stride) if repeat == 0 else x
            x = net.node("Relu", net.node("Add", y, shortcut))
            channels = 4 * width
    return net.classify(x, channels)


def mobilenet_v2_case() -> Case:
    """MobileNetV2 with random weights: cosine and agreement with the float32 model on smooth pictures."""
    return _case("mobilenet_v2", mobilenet_v2)


def resnet50_case() -> Case:
    """ResNet-50 with random weights: cosine and agreement with the float32 model on smooth pictures."""
    return _case("resnet50", resnet50)


def pictures(count: int, seed: int) -> Array:
    """float32 [count, 3, 224, 224] with the spectrum of photographs: amplitude falls as a power of frequency.

    As photos do, they differ in sharpness (the power), contrast and colour; channels are correlated, and
    values are those of photos normalized to mean 0 and deviation 1.
    """
    random = np.random.default_rng(seed)
    frequency = np.maximum(np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :]), 1 / SIDE)
    colours = np.array([[1, 0.3, 0.1], [1, 0, -0.2], [1, -0.3, 0.1]])
    out = np.empty((count, 3, SIDE, SIDE), np.float32)
    for picture in out:
        noise = np.fft.rfft2(random.standard_normal((3, SIDE, SIDE)))
        planes = np.fft.irfft2(noise / frequency ** random.uniform(0.6, 2.0), s=(SIDE, SIDE))
        planes = np.tensordot(colours, planes, axes=1)
        contrast, tint = random.uniform(0.3, 1.2), random.normal(0, 0.5, (3, 1, 1))
        picture[:] = (planes - planes.mean()) / planes.std() * contrast + tint
    return np.clip(out, -2.5, 2.5)


def _case(name: str, build: Callable[[Network], str]) -> Case:
    model = cache.cached(f"models/{name}-v1.onnx", lambda path: _write(path, name, build))
    inputs = pictures(TEST_PICTURES, seed=1)
    return Case(
        name=name,
        onnx_path=model,
        input_name=INPUT,
        shapes={INPUT: (1, 3, SIDE, SIDE)},
        calibration=pictures(CALIBRATION_PICTURES, seed=2),
        inputs=inputs,
        labels=None,
        metric=_metric(model, inputs),
        answers=best_class(lambda: [f"class {index}" for index in range(CLASSES)]),
        reference={"agreement": 1.0, "cosine": 1.0},
        notes=["random weights: compare with the float32 model, not with labels; pictures are 1/f noise"],
    )


def _write(path: Path, name: str, build: Callable[[Network], str]) -> None:
    cache.progress(f"making {name} with random weights")
    samples = pictures(STATISTICS_PICTURES, seed=3)
    probe = Network(seed=50, batch=len(samples), statistics=None)
    statistics = _run_all(probe.model(build(probe), name), samples)[1:]
    network = Network(seed=50, batch=1, statistics=[array.reshape(-1) for array in statistics])
    onnx.save(network.model(build(network), name), path)


def _run_all(model: onnx.ModelProto, inputs: Array) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {INPUT: inputs}))


def _metric(model: Path, inputs: Array) -> Metric:
    def metric(outputs: Array) -> dict[str, float]:
        got = np.reshape(outputs, (len(inputs), CLASSES)).astype(np.float64)
        true = run(model, INPUT, inputs).astype(np.float64)
        cosine = np.sum(got * true, axis=1) / (np.linalg.norm(got, axis=1) * np.linalg.norm(true, axis=1))
        return {
            "agreement": float(np.mean(np.argmax(got, axis=1) == np.argmax(true, axis=1))),
            "cosine": float(np.mean(cosine)),
        }

    return metric
