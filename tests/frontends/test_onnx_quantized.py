"""Every quantized form of ONNX: Q/DQ pairs, integer constants, fake-quantized weights, integer operators."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_text import model, ops
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qcomp.errors import QcompError
from qcomp.frontends.onnx import load_onnx
from qcomp.ir import DType, run

F32, U8, I8 = np.float32, np.uint8, np.int8


def test_an_activation_pair_is_one_fake_quant_on_a_signed_grid() -> None:
    graph = load_onnx(
        model(
            """(float[2,3] x) => (float[2,3] y) {
                 q = QuantizeLinear(x, s, z)
                 y = DequantizeLinear(q, s, z)
               }""",
            s=F32(0.5),
            z=U8(130),
        )
    )
    (node,) = graph.nodes
    assert node.op.name == "fake_quant"
    assert node.attrs["dtype"] is DType.I8
    assert node.call.quant("quant").zero_point == (2,)
    assert node.output.name == "y"
    x = np.asarray([[-100, -0.3, 0], [0.25, 0.26, 100]], F32)
    assert (run(graph, {"x": x})["y"] == np.asarray([[-65, -0.5, 0], [0, 0.5, 62.5]], F32)).all()


def test_a_pair_on_16_bits_stays_on_16_bits() -> None:
    graph = load_onnx(
        model(
            """(float[4] x) => (float[4] y) {
                 q = QuantizeLinear(x, s, z)
                 y = DequantizeLinear(q, s, z)
               }""",
            s=F32(0.25),
            z=np.uint16(32768),
        )
    )
    (node,) = graph.nodes
    assert node.attrs["dtype"] is DType.I16
    assert node.call.quant("quant").zero_point == (0,)


def test_an_unsigned_weight_becomes_a_signed_constant_with_its_grid() -> None:
    weight = np.arange(6, dtype=U8).reshape(2, 3) + 126
    graph = load_onnx(
        model(
            """(float[1,3] x) => (float[1,2] y) {
                 w = DequantizeLinear(wq, s, z)
                 y = Gemm <transB = 1> (x, w)
               }""",
            wq=weight,
            s=F32(0.5),
            z=U8(128),
        )
    )
    assert ops(graph) == ["dequantize", "gemm"]
    constant = graph.value("wq")
    assert constant.dtype is DType.I8 and constant.quant is not None
    assert constant.quant.zero_point == (0,)
    assert (constant.array == weight.astype(np.int32) - 128).all()
    assert graph.value("w").producer is not None


def test_scales_one_a_channel_keep_their_axis() -> None:
    graph = load_onnx(
        model(
            """(float[1,3] x) => (float[1,2] y) {
                 w = DequantizeLinear <axis = 1> (wq, s, z)
                 y = MatMul(x, w)
               }""",
            wq=np.ones((3, 2), I8),
            s=np.asarray([0.5, 0.25], F32),
            z=np.zeros(2, I8),
        )
    )
    quant = graph.value("wq").quant
    assert quant is not None and quant.axis == 1 and quant.scale == (0.5, 0.25)
    assert (run(graph, {"x": np.ones((1, 3), F32)})["y"] == [[1.5, 0.75]]).all()


def test_the_integers_of_a_kernel_of_one_dimension_keep_their_grid() -> None:
    graph = load_onnx(
        model(
            """(float[1,2,5] x) => (float[1,3,4] y) {
                 w = DequantizeLinear <axis = 0> (wq, s, z)
                 y = Conv(x, w)
               }""",
            wq=np.arange(12, dtype=I8).reshape(3, 2, 2),
            s=np.asarray([1, 2, 4], F32),
            z=np.zeros(3, I8),
        )
    )
    assert ops(graph) == ["reshape", "dequantize", "conv2d", "reshape"]
    (weight,) = graph.constants
    assert weight.dtype is DType.I8 and weight.shape == (3, 2, 1, 2) and weight.quant is not None


def test_an_int32_bias_keeps_its_integers() -> None:
    graph = load_onnx(
        model(
            """(float[1,2] x) => (float[1,2] y) {
                 b = DequantizeLinear(bq, s)
                 y = Add(x, b)
               }""",
            bq=np.asarray([70000, -3], np.int32),
            s=F32(0.125),
        )
    )
    assert graph.value("bq").dtype is DType.I32
    assert (run(graph, {"x": np.zeros((1, 2), F32)})["y"] == [[8750, -0.375]]).all()


def test_a_float_weight_that_is_quantized_and_back_is_a_fake_quant_of_a_constant() -> None:
    graph = load_onnx(
        model(
            """(float[1,2] x) => (float[1,2] y) {
                 q = QuantizeLinear(w, s, z)
                 d = DequantizeLinear(q, s, z)
                 y = MatMul(x, d)
               }""",
            w=np.asarray([[0.4, 1], [2, 3]], F32),
            s=F32(1),
            z=I8(0),
        )
    )
    assert ops(graph) == ["fake_quant", "matmul"]
    assert graph.nodes[0].input(0).name == "w"


def test_a_shared_quantize_gives_one_fake_quant() -> None:
    graph = load_onnx(
        model(
            """(float[2] x) => (float[2] y) {
                 q = QuantizeLinear(x, s, z)
                 a = DequantizeLinear(q, s, z)
                 b = DequantizeLinear(q, s, z)
                 y = Add(a, b)
               }""",
            s=F32(0.5),
            z=I8(0),
        )
    )
    assert ops(graph) == ["fake_quant", "add"]


def test_integers_at_the_interface_keep_their_dtype_and_carry_their_grid() -> None:
    graph = load_onnx(
        model(
            """(uint8[2,2] x) => (uint8[2,2] y) {
                 r = DequantizeLinear(x, s, z)
                 a = Relu(r)
                 y = QuantizeLinear(a, s, z)
               }""",
            s=F32(0.5),
            z=U8(100),
        )
    )
    assert ops(graph) == ["dequantize", "relu", "quantize"]
    assert graph.inputs[0].dtype is DType.U8 and graph.inputs[0].quant is not None
    assert graph.inputs[0].quant.zero_point == (100,)
    assert graph.outputs[0].dtype is DType.U8
    x = np.asarray([[0, 99], [100, 255]], U8)
    assert (run(graph, {"x": x})["y"] == np.asarray([[100, 100], [100, 255]], U8)).all()


def test_an_input_that_is_used_as_integers_too_is_dequantized_from_a_copy() -> None:
    graph = load_onnx(
        model(
            """(uint8[2] x) => (float[2] y, float[2] n) {
                 y = DequantizeLinear(x, s, z)
                 n = Cast <to = 1> (x)
               }""",
            s=F32(0.5),
            z=U8(1),
        )
    )
    assert graph.inputs[0].quant is None
    results = run(graph, {"x": np.asarray([0, 3], U8)})
    assert (results["y"] == [-0.5, 1]).all() and (results["n"] == [0, 3]).all()


def test_movement_of_integers_is_written_on_reals() -> None:
    graph = load_onnx(
        model(
            """(float[1,1,4,4] x) => (float[4] y) {
                 q = QuantizeLinear(x, s, z)
                 p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (q)
                 r = Reshape(p, four)
                 y = DequantizeLinear(r, s, z)
               }""",
            s=F32(0.5),
            z=U8(128),
            four=np.asarray([4], np.int64),
        )
    )
    assert ops(graph) == ["fake_quant", "max_pool", "fake_quant", "reshape", "fake_quant"]


def test_blocks_of_scales_are_plain_arithmetic() -> None:
    weight = np.arange(8, dtype=I8).reshape(2, 4)
    scales = np.asarray([[1, 2], [3, 4]], F32)
    graph = load_onnx(
        model(
            """(float[1,2] x) => (float[1,4] y) {
                 w = DequantizeLinear <axis = 1, block_size = 2> (wq, s)
                 y = MatMul(x, w)
               }""",
            wq=weight,
            s=scales,
        )
    )
    assert ops(graph) == ["matmul"]
    expected = np.asarray([[1, 1]], F32) @ (weight * scales.repeat(2, axis=1))
    assert (run(graph, {"x": np.ones((1, 2), F32)})["y"] == expected).all()


def test_dynamic_quantization_is_computed_at_run_time() -> None:
    graph = load_onnx(
        model(
            """(float[2,3] x) => (int32[2,2] y, float scale) {
                 q, scale, zero = DynamicQuantizeLinear(x)
                 y = MatMulInteger(q, w, zero)
               }""",
            w=np.asarray([[1, 2], [3, 4], [5, 6]], I8),
        )
    )
    assert ops(graph) == ["dynamic_quantize", "matmul_integer"]


@pytest.mark.parametrize(
    ("element", "name"),
    [(TensorProto.INT4, "INT4"), (TensorProto.UINT4, "UINT4"), (TensorProto.FLOAT8E4M3FN, "FLOAT8")],
)
def test_quantizing_activations_to_narrow_types_is_refused(element: int, name: str) -> None:
    proto = model(
        "(float[2] x) => (float[2] y) { q = QuantizeLinear(x, s, z)\n y = DequantizeLinear(q, s, z) }", s=F32(1)
    )
    proto.graph.initializer.append(helper.make_tensor("z", element, [], [0]))
    with pytest.raises(QcompError, match=name):
        load_onnx(proto)


def test_constants_of_four_bits_are_held_in_eight() -> None:
    proto = model("(float[2] x) => (float[2] y) { w = DequantizeLinear(q, s)\n y = Mul(x, w) }", s=F32(0.5))
    proto.graph.initializer.append(helper.make_tensor("q", TensorProto.INT4, [2], [-8, 7]))
    graph = load_onnx(proto)
    assert graph.value("q").array.tolist() == [-8, 7]
    assert (run(graph, {"x": np.ones(2, F32)})["y"] == [-4, 3.5]).all()


def test_a_scale_of_zero_is_refused() -> None:
    proto = model(
        "(float[2] x) => (float[2] y) { a = QLinearAdd(x8, s, z, x8, s, z, s, z)\n y = Cast <to = 1> (a) }",
        x8=np.zeros(2, U8),
        s=F32(0),
        z=U8(0),
    )
    proto.graph.node[0].domain = "com.microsoft"
    with pytest.raises(QcompError, match=r"QLinearAdd.*scale 0.0 is not a positive finite number"):
        load_onnx(proto)


def microsoft(op: str, count: int, attributes: str = "", y: str = "uint8[1,2,4,4]") -> str:
    """A model text with one com.microsoft op of `count` inputs x, i1, i2..."""
    names = ", ".join(["x", *(f"i{i}" for i in range(1, count))])
    return f"(uint8[1,2,4,4] x) => ({y} y) {{ y = com.microsoft.{op} {attributes} ({names}) }}"


GRID = {"i1": F32(0.1), "i2": U8(120)}
OUT = {"i3": F32(0.05), "i4": U8(90)}
PAIR = {
    "i3": np.arange(32, dtype=U8).reshape(1, 2, 4, 4) * 7,
    "i4": F32(0.2),
    "i5": U8(3),
    "i6": F32(0.3),
    "i7": U8(60),
}


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        (microsoft("QLinearAdd", 8), GRID | PAIR),
        (microsoft("QLinearMul", 8), GRID | PAIR),
        (microsoft("QLinearSigmoid", 5), GRID | {"i3": F32(1 / 256), "i4": U8(0)}),
        (microsoft("QLinearLeakyRelu", 5, "<alpha = 0.1>"), GRID | OUT),
        (microsoft("QLinearGlobalAveragePool", 5, "", "uint8[1,2,1,1]"), GRID | OUT),
        (
            microsoft("QLinearAveragePool", 5, "<kernel_shape = [2,2]>", "uint8[1,2,3,3]"),
            GRID | OUT | {"i3": F32(0.07)},
        ),
        (microsoft("QLinearSoftmax", 5, "<axis = -1, opset = 13>"), GRID | {"i3": F32(1 / 256), "i4": U8(0)}),
    ],
    ids=lambda v: v.split("microsoft.")[1].split()[0] if isinstance(v, str) else "",
)
def test_integer_operators_agree_with_onnxruntime(text: str, constants: dict[str, np.ndarray]) -> None:
    proto = model(text, **constants)
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 4)).astype(U8)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    got = run(load_onnx(proto), {"x": x})["y"]
    assert got.dtype == U8
    # onnxruntime's integer kernels round in fixed point: they may miss by one.
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert (got == expected).mean() > 0.9


def test_attention_on_integers_is_refused_with_the_way_out() -> None:
    proto = model("(uint8[1,2,4,4] x) => (uint8[1,2,4,4] y) { y = com.microsoft.QAttention(x) }")
    with pytest.raises(
        QcompError, match=r"com.microsoft.QAttention 'y': is not supported; quantize with the QDQ format"
    ):
        load_onnx(proto)


class Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.rows = iter([{"x": rng.standard_normal((1, 3, 12, 12)).astype(F32)} for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.rows, None)


@pytest.fixture(scope="module")
def small_network() -> onnx.ModelProto:
    """Convolutions (plain, depthwise), a residual sum, pools, a concatenation and a classifier, with random weights."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(F32)

    return model(
        """(float[1,3,12,12] x) => (float[1,5] y) {
             a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)
             r = Relu(a)
             d = Conv <kernel_shape = [3,3], pads = [1,1,1,1], group = 8> (r, w2, b2)
             s = Add(r, d)
             p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (s)
             q = AveragePool <kernel_shape = [2,2], strides = [2,2]> (r)
             c = Concat <axis = 1> (p, q)
             t = Sigmoid(c)
             g = GlobalAveragePool(t)
             f = Flatten(g)
             y = Gemm <transB = 1> (f, w3, b3)
           }""",
        opset=13,
        w1=weight(8, 3, 3, 3),
        b1=weight(8, 1)[:, 0],
        w2=weight(8, 1, 3, 3),
        b2=weight(8, 1)[:, 0],
        w3=weight(5, 16),
        b3=weight(5, 1)[:, 0],
    )


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per-tensor", "per-channel"])
@pytest.mark.parametrize(
    ("activations", "weights"),
    [(QuantType.QUInt8, QuantType.QInt8), (QuantType.QUInt8, QuantType.QUInt8), (QuantType.QInt8, QuantType.QInt8)],
    ids=["u8s8", "u8u8", "s8s8"],
)
def test_a_network_quantized_by_onnxruntime_agrees_with_it(
    small_network: onnx.ModelProto,
    form: QuantFormat,
    per_channel: bool,
    activations: QuantType,
    weights: QuantType,
    tmp_path: object,
) -> None:
    path = f"{tmp_path}/q.onnx"
    quantize_static(
        small_network,
        path,
        Samples(),
        quant_format=form,
        per_channel=per_channel,
        activation_type=activations,
        weight_type=weights,
    )
    graph = load_onnx(path)
    assert not {"qconv2d", "matmul_integer"} & set(ops(graph))
    assert {"fake_quant", "dequantize", "conv2d", "gemm"} <= set(ops(graph))
    integer_weights = [c for c in graph.constants if c.quant is not None and c.shape and len(c.shape) > 1]
    assert len(integer_weights) == 3 and all(c.dtype is DType.I8 for c in integer_weights)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    producer = graph.outputs[0].producer
    assert producer is not None and producer.op.name == "fake_quant"
    (step,) = producer.call.quant("quant").scale
    rng = np.random.default_rng(2)
    for _ in range(3):
        x = rng.standard_normal((1, 3, 12, 12)).astype(F32)
        (expected,) = session.run(None, {"x": x})
        assert np.abs(run(graph, {"x": x})["y"] - expected).max() <= 1.01 * step
