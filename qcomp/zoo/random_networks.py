"""Networks with random weights: the real shapes, for speed and for numbers, not for answers.

Weights are drawn as for training (He et al. 2015, arXiv:1502.01852).  Batch normalization gets the statistics
that its inputs really have on some pictures, and random gains and offsets, so that every channel of every
activation has a range of its own, as in a trained network, and nothing explodes or dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcomp.zoo import cache
from qcomp.zoo.case import Array, Case, Metric
from qcomp.zoo.onnxruntime_float import run

INPUT = "input"
OPSET = 17
EPSILON = 1e-5
TEST_PICTURES, CALIBRATION_PICTURES, STATISTICS_PICTURES = 64, 32, 16

class Network:
    """Writes an ONNX graph node by node.

    With ``statistics`` None the normalizations compute the mean and variance of their own input and the model
    puts them out; with the statistics of such a run they become BatchNormalization nodes.
    """

    def __init__(self, seed: int, batch: int, shape: tuple[int, int, int], statistics: list[Array] | None) -> None:
        self._random = np.random.default_rng(seed)
        self._input = [batch, *shape]
        self._statistics = None if statistics is None else iter(statistics)
        self._measured: list[tuple[str, list[int]]] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, array: npt.ArrayLike, dtype: str | None = None) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self,
        x: str,
        channels: tuple[int, int],
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        groups: int = 1,
        gain: float = 1.0,
        pads: tuple[int, int, int, int] | None = None,
    ) -> str:
        """Convolution without bias and its batch normalization; ``channels`` are (in, out), pads half the kernel."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        fan_in = channels[0] // groups * height * width
        shape = (channels[1], channels[0] // groups, height, width)
        weights = (self._random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        x = self.node(
            "Conv",
            x,
            self.constant(weights),
            kernel_shape=[height, width],
            strides=[stride, stride],
            pads=list(pads or (height // 2, width // 2) * 2),
            group=groups,
        )
        return self._normalize(x, channels[1], gain)

    def relu6(self, x: str) -> str:
        return self.node("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def classify(self, x: str, features: int, classes: int) -> str:
        """Global average, centred on its own mean over the pictures, then a linear layer."""
        x = self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)
        weights = (self._random.standard_normal((classes, features)) / np.sqrt(features)).astype(np.float32)
        bias = np.zeros(classes, np.float32)
        if self._statistics is None:
            self._measured.append((self.node("ReduceMean", x, axes=[0], keepdims=0), [features]))
        else:
            # Random features differ little from their mean; without this every picture has the same class.
            bias = -(weights @ next(self._statistics)).astype(np.float32)
        return self.node("Gemm", x, self.constant(weights), self.constant(bias), transB=1)

    def model(self, logits: str, name: str) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        outputs = [value(logits, TensorProto.FLOAT, None)]
        outputs += [value(measured, TensorProto.FLOAT, shape) for measured, shape in self._measured]
        inputs = [value(INPUT, TensorProto.FLOAT, self._input)]
        graph = helper.make_graph(self._nodes, name, inputs, outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        model.graph.output[0].CopyFrom(inferred.graph.output[0])
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


@dataclass(frozen=True)
class Architecture:
    """What a network looks like: ``build`` adds it to an empty Network and returns the name of its output."""

    name: str
    build: Callable[[Network], str]
    shape: tuple[int, int, int] = (3, 224, 224)

    def case(self) -> Case:
        """Cosine and agreement with the float32 model on smooth pictures."""
        model = cache.cached(f"models/{self.name}-v1.onnx", lambda path: _write(path, self))
        inputs = pictures(TEST_PICTURES, 1, self.shape)
        return Case(
            name=self.name,
            onnx_path=model,
            shapes={INPUT: (1, *self.shape)},
            calibration_inputs={INPUT: pictures(CALIBRATION_PICTURES, 2, self.shape)},
            test_inputs={INPUT: inputs},
            labels=None,
            metric=_metric(model, inputs),
            answers=_largest,
            reference={"agreement": 1.0, "cosine": 1.0},
            notes=["random weights: compare with the float32 model, not with labels; pictures are 1/f noise"],
        )


def pictures(count: int, seed: int, shape: tuple[int, int, int]) -> Array:
    """float32 [count, *shape] with the spectrum of photographs: amplitude falls as a power of frequency.

    As photos do, they differ in sharpness (the power), contrast and colour; three channels are correlated, and
    values are those of photos normalized to mean 0 and deviation 1.
    """
    random = np.random.default_rng(seed)
    channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency = np.maximum(frequency, 1 / max(height, width))
    colours = np.array([[1, 0.3, 0.1], [1, 0, -0.2], [1, -0.3, 0.1]]) if channels == 3 else np.eye(channels)
    out = np.empty((count, *shape), np.float32)
    for picture in out:
        noise = np.fft.rfft2(random.standard_normal(shape))
        planes = np.fft.irfft2(noise / frequency ** random.uniform(0.6, 2.0), s=(height, width))
        planes = np.tensordot(colours, planes, axes=1)
        contrast, tint = random.uniform(0.3, 1.2), random.normal(0, 0.5, (channels, 1, 1))
        picture[:] = (planes - planes.mean()) / planes.std() * contrast + tint
    return np.clip(out, -2.5, 2.5)


def _largest(outputs: Array) -> list[str]:
    return [f"output {index}" for index in np.argmax(np.reshape(outputs, (len(outputs), -1)), axis=1)]


def _write(path: Path, architecture: Architecture) -> None:
    cache.progress(f"making {architecture.name} with random weights")
    samples = pictures(STATISTICS_PICTURES, 3, architecture.shape)
    probe = Network(50, len(samples), architecture.shape, statistics=None)
    statistics = _run_all(probe.model(architecture.build(probe), architecture.name), samples)[1:]
    network = Network(50, 1, architecture.shape, statistics=[array.reshape(-1) for array in statistics])
    onnx.save(network.model(architecture.build(network), architecture.name), path)


def _run_all(model: onnx.ModelProto, inputs: Array) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {INPUT: inputs}))


def _metric(model: Path, inputs: Array) -> Metric:
    def metric(outputs: Array) -> dict[str, float]:
        got = np.reshape(outputs, (len(inputs), -1)).astype(np.float64)
        true = np.reshape(run(model, {INPUT: inputs}), got.shape).astype(np.float64)
        cosine = np.sum(got * true, axis=1) / (np.linalg.norm(got, axis=1) * np.linalg.norm(true, axis=1))
        return {
            "agreement": float(np.mean(np.argmax(got, axis=1) == np.argmax(true, axis=1))),
            "cosine": float(np.mean(cosine)),
        }

    return metric
