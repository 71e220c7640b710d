"""Models that onnxruntime quantized, compiled: its integers, on its own kernels' terms."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import qcomp
import qcomp.zoo
from qcomp.ir import run

FORMS = [(form, grain) for form in ("qdq", "qoperator") for grain in (True, False)]
FORM_NAMES = [f"{form}-{'channel' if grain else 'tensor'}" for form, grain in FORMS]
SEEDS = range(5)


class Net:
    """A float convolutional network that onnxruntime's quantizer takes whole; `seed` chooses its blocks."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.channels = 3
        self.size = int(self.rng.integers(8, 15))
        self.shape = (1, 3, self.size, self.size)
        x = self.conv("x", int(self.rng.choice([8, 16, 17])), 3, stride=2)
        for _ in range(4):
            x = [self.pointwise, self.depthwise, self.residual, self.pool, self.joined][self.rng.integers(5)](x)
        x = self.node("Flatten", self.node("GlobalAveragePool", x))
        x = self.node("Gemm", x, self.weights(10, self.channels), self.weights(10), transB=1)
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", self.shape), (x, (1, 10)))]
        graph = helper.make_graph(self.nodes, f"net{seed}", values[:1], values[1:], self.constants)
        self.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.samples = self.rng.normal(0.2, 1, (24, *self.shape[1:])).astype(np.float32)

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weights(self, *shape: int) -> str:
        depth = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        array = self.rng.normal(0, 1.3 / np.sqrt(depth), shape).astype(np.float32)
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def conv(self, x: str, out: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> str:
        operands = [self.weights(out, self.channels // groups, kernel, kernel), self.weights(out)]
        pads = [kernel // 2] * 4
        x = self.node("Conv", x, *operands, pads=pads, strides=[stride] * 2, group=groups, kernel_shape=[kernel] * 2)
        self.channels = out
        return self.node("Relu", x) if relu else x

    def pointwise(self, x: str) -> str:
        return self.conv(x, int(self.rng.choice([8, 16, 24, 33])), 1)

    def depthwise(self, x: str) -> str:
        return self.conv(x, self.channels, 3, groups=self.channels)

    def residual(self, x: str) -> str:
        return self.node("Add", x, self.conv(x, self.channels, 3, relu=False))

    def pool(self, x: str) -> str:
        return self.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])

    def joined(self, x: str) -> str:
        before = self.channels
        parts = []
        for out in (8, 5):
            self.channels = before
            parts.append(self.conv(x, out, 1))
        self.channels = 13
        return self.node("Concat", *parts, axis=1)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: np.ndarray) -> None:
        self.rows: Iterator[np.ndarray] = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self.rows, None)
        return None if row is None else {"x": row[None]}


def quantized(
    net: Net, form: str, per_channel: bool, folder: Path, activations: QuantType = QuantType.QUInt8
) -> Path:
    logging.disable(logging.WARNING)
    try:
        source, result = folder / "float.onnx", folder / "quantized.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(net.model), source)
        quantize_static(
            str(source), str(result), Reader(net.samples[:16]),
            quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
            per_channel=per_channel, activation_type=activations, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return result
    finally:
        logging.disable(logging.NOTSET)


def session(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def with_integer_ends(model: onnx.ModelProto) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """The model without the QuantizeLinear at its input and the DequantizeLinear at its output.

    Also the scale and zero point that its input had, of the type that inputs and outputs now have.
    """
    graph = model.graph
    values = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    first = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == graph.input[0].name)
    last = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.output[0] == graph.output[0].name)
    zero = values[first.input[2]]
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    kept = [n for n in graph.node if n not in (first, last)]
    del cut.graph.node[:]
    cut.graph.node.extend(kept)
    for ends, name, old in ((cut.graph.input, first.output[0], graph.input[0]),
                            (cut.graph.output, last.input[0], graph.output[0])):  # fmt: skip
        shape = [d.dim_value for d in old.type.tensor_type.shape.dim]
        del ends[:]
        ends.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(zero.dtype), shape))
    return cut, values[first.input[1]], zero


def compare(model: Path | onnx.ModelProto, feeds: list[dict[str, np.ndarray]], step: float, folder: Path) -> float:
    """Share of equal output elements; asserts that none is more than `step` away and the interpreter agrees."""
    artifact = qcomp.compile(model, calibration=None)
    theirs = session(model)
    equal, total = 0, 0
    with qcomp.load(artifact.save(folder / "model.so"), threads=2) as ours:
        for i, feed in enumerate(feeds):
            found = ours.run(feed)
            if i < 3:
                expected = run(artifact.graph, feed)
                assert all(expected[n].tobytes() == a.tobytes() for n, a in found.items())
            for name, theirs_array in zip(found, theirs.run(list(found), feed), strict=True):
                assert found[name].dtype == theirs_array.dtype
                distance = np.abs(found[name].astype(np.float64) - theirs_array.astype(np.float64))
                assert distance.max() <= step * 1.0001, f"{name} of input {i}"
                equal += int(np.count_nonzero(distance <= step * 1e-4))
                total += distance.size
    return equal / total


def output_step(path: Path) -> float:
    """Scale of the DequantizeLinear at the model's output; 0 when it ends otherwise."""
    graph = onnx.load(str(path)).graph
    values = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    last = next(n for n in graph.node if graph.output[0].name in n.output)
    return float(values[last.input[1]]) if last.op_type == "DequantizeLinear" else 0.0


def check_integer_ends(net: Net, path: Path, folder: Path) -> None:
    cut, scale, zero = with_integer_ends(onnx.load(str(path)))
    limits = np.iinfo(zero.dtype)
    integers = np.clip(np.rint(net.samples / scale) + zero, limits.min, limits.max).astype(zero.dtype)
    share = compare(cut, [{cut.graph.input[0].name: row[None]} for row in integers], 1.0, folder)
    assert share >= 0.99, f"{cut.graph.name}: {share}"


@pytest.mark.parametrize(("form", "per_channel"), FORMS, ids=FORM_NAMES)
def test_small_networks_with_unsigned_inputs_and_outputs(form: str, per_channel: bool, tmp_path: Path) -> None:
    for seed in SEEDS:
        net, folder = Net(seed), tmp_path / str(seed)
        folder.mkdir()
        check_integer_ends(net, quantized(net, form, per_channel, folder), folder)


@pytest.mark.parametrize("seed", [10, 11])
def test_small_networks_with_signed_inputs_and_outputs(seed: int, tmp_path: Path) -> None:
    net = Net(seed)
    check_integer_ends(net, quantized(net, "qdq", True, tmp_path, QuantType.QInt8), tmp_path)


def test_weights_that_are_quantized_alone(tmp_path: Path) -> None:
    """The convolution stays float, on the weights that the integers stand for."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), "s": np.float32(0.01), "z": np.int8(0)}
    nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["real"]),
             helper.make_node("Conv", ["x", "real"], ["y"])]  # fmt: skip
    shapes = {"x": (1, 3, 8, 8), "y": (1, 4, 6, 6)}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    graph = helper.make_graph(nodes, "weights", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    artifact = qcomp.compile(model)
    assert [island.op for island in artifact.coverage.islands] == ["conv2d"]
    feed = {"x": rng.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)}
    with qcomp.load(artifact.save(tmp_path / "model.so")) as compiled:
        found = compiled.run(feed)["y"]
    assert found.tobytes() == run(artifact.graph, feed)["y"].tobytes()
    assert np.abs(found - session(model).run(None, feed)[0]).max() < 1e-4


@pytest.mark.parametrize(("form", "per_channel"), FORMS, ids=FORM_NAMES)
def test_small_networks_with_float_inputs_and_outputs(form: str, per_channel: bool, tmp_path: Path) -> None:
    net = Net(100)
    path = quantized(net, form, per_channel, tmp_path)
    assert compare(path, [{"x": row[None]} for row in net.samples], output_step(path), tmp_path) >= 0.99


CASES = [
    ("digits_mlp", 100, False),
    ("mnist_resnet8", 100, True),
    ("mnist_dscnn", 100, True),
    ("efficientnet_lite0", 24, True),
]


@pytest.mark.parametrize(("form", "per_channel"), FORMS, ids=FORM_NAMES)
@pytest.mark.parametrize(
    ("name", "count"), [pytest.param(n, c, marks=pytest.mark.slow if slow else []) for n, c, slow in CASES]
)
def test_models_of_the_zoo(name: str, count: int, form: str, per_channel: bool, tmp_path: Path) -> None:
    case = qcomp.zoo.load(name)
    path = qcomp.zoo.quantized_by_onnxruntime(case, form, per_channel)
    share = compare(path, list(case.feeds(count)), output_step(path), tmp_path)
    print(f"{name} {form} per {'channel' if per_channel else 'tensor'}: {share:.4%} equal")
    assert share >= 0.99
