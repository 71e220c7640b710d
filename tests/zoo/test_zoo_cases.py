"""Cases are what they say: shapes, disjoint data, and float32 figures that can be had again."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

import qcomp.zoo
from qcomp.errors import QcompError
from qcomp.zoo.case import Case, Samples
from qcomp.zoo.onnxruntime_float import reference_outputs

# Small downloads and no torch; the others are marked slow.
LIGHT = ["digits_mlp", "ppocr_rec", "mobilenet_v2"]
ALL = [pytest.param(name, marks=[] if name in LIGHT else [pytest.mark.slow]) for name in qcomp.zoo.names()]
# How far a figure may be from the one in Case.reference.  Rendered and fetched data are the same on every
# machine, up to the versions of Pillow and onnxruntime; what is trained here ends differently elsewhere.
TOLERANCE = {"mnist_resnet8": 0.01, "mnist_dscnn": 0.01, "mnist_dscnn_qat": 0.01, "digits_mlp": 0.015}


def test_the_names_of_the_cases() -> None:
    assert qcomp.zoo.names() == [
        "efficientnet_lite0",
        "efficientnet_lite0_views",
        "ppocr_rec",
        "mobilenet_v2",
        "resnet50",
        "yolov8n_320",
        "resnet8_32",
        "dscnn_49x10",
        "mnist_resnet8",
        "mnist_dscnn",
        "mnist_dscnn_qat",
        "digits_mlp",
        "page_orientation",
        "ppocr_det",
        "minilm_sentiment",
        "minilm_128",
        "wakeword_embedding",
        "magika",
    ]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(QcompError, match="no case named 'vgg'; one of: efficientnet_lite0, .*ppocr_det"):
        qcomp.zoo.load("vgg")


@pytest.mark.parametrize("name", ALL)
def test_a_case_fits_its_model(name: str) -> None:
    case = qcomp.zoo.load(name)
    model = onnx.load(str(case.onnx_path))
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    assert case.name == name
    assert inputs == list(case.shapes) == list(case.test_inputs) == list(case.calibration_inputs)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    for name in inputs:
        test, calibration = case.test_inputs[name], case.calibration_inputs[name]
        assert case.shapes[name] == (1, *test.shape[1:]) == (1, *calibration.shape[1:])
        assert test.dtype == calibration.dtype == onnx.helper.tensor_dtype_to_np_dtype(types[name])
        assert len(test) == case.samples == len(list(case.feeds()))
    assert case.notes and case.reference


@pytest.mark.parametrize("name", ALL)
def test_no_test_sample_is_among_the_calibration_samples(name: str) -> None:
    case = qcomp.zoo.load(name)
    calibration = samples_of(case.calibration_inputs)
    assert len(set(calibration)) == len(calibration)
    assert not set(calibration) & set(samples_of(case.test_inputs))


def samples_of(inputs: Samples) -> list[bytes]:
    return [b"".join(part.tobytes() for part in row) for row in zip(*inputs.values(), strict=True)]


@pytest.mark.parametrize("name", ALL)
def test_the_float_model_reaches_its_figures(name: str) -> None:
    case = qcomp.zoo.load(name)
    if any("cannot fetch" in note for note in case.notes):
        pytest.skip(f"other data than the figures are of: {case.notes}")
    outputs = reference_outputs(case)
    figures = case.metric(outputs)
    ours = {key: value for key, value in case.reference.items() if not key.startswith("onnxruntime")}
    assert ours and ours.keys() <= figures.keys()
    for key, value in ours.items():
        assert figures[key] == pytest.approx(value, abs=TOLERANCE.get(name, 0.006)), key
    assert figures.get("agreement", 1.0) == 1.0
    assert len(case.answers(outputs[:3])) == 3


@pytest.mark.parametrize("name", ["digits_mlp", "ppocr_rec", "mobilenet_v2"])
def test_wrong_outputs_get_bad_figures(name: str) -> None:
    case = qcomp.zoo.load(name)
    outputs = reference_outputs(dataclasses.replace(case, test_inputs={case.input_name: case.inputs[::-1]}))
    assert all(value < 0.5 for value in case.metric(outputs).values())


def test_texts_are_read_off_the_recognizer() -> None:
    case = qcomp.zoo.load("ppocr_rec")
    some = dataclasses.replace(case, test_inputs={case.input_name: case.inputs[:2]})
    assert case.answers(reference_outputs(some)) == case.labels[:2]


def test_loading_twice_gives_the_same_case() -> None:
    first, second = qcomp.zoo.load("digits_mlp"), qcomp.zoo.load("digits_mlp")
    assert first.onnx_path == second.onnx_path
    assert first.inputs.tobytes() == second.inputs.tobytes()


def test_mobilenet_has_the_shapes_of_the_paper() -> None:
    model = onnx.load(str(qcomp.zoo.load("mobilenet_v2").onnx_path))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    assert len(convolutions) == 52
    # 3.50 million parameters with the gains and offsets of the normalizations.
    gains = sum(2 * sizes[node.input[1]] for node in model.graph.node if node.op_type == "BatchNormalization")
    weights = sum(sizes[node.input[1]] for node in convolutions) + 1280 * 1000 + 1000
    assert weights + gains == 3_504_872


@pytest.mark.slow
def test_resnet_has_the_shapes_of_the_paper() -> None:
    model = onnx.load(str(qcomp.zoo.load("resnet50").onnx_path))
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    gains = sum(2 * sizes[node.input[1]] for node in model.graph.node if node.op_type == "BatchNormalization")
    convolutions = sum(sizes[node.input[1]] for node in model.graph.node if node.op_type == "Conv")
    assert convolutions + gains + 2048 * 1000 + 1000 == 25_557_032


@pytest.fixture(scope="module")
def digits() -> Case:
    return qcomp.zoo.load("digits_mlp")


@pytest.mark.parametrize(
    ("format", "operators"),
    [
        ("qdq", {"QuantizeLinear", "DequantizeLinear", "Gemm"}),
        ("qoperator", {"QuantizeLinear", "QGemm"}),
        ("dynamic", {"DynamicQuantizeLinear", "MatMulInteger"}),
    ],
)
@pytest.mark.parametrize("per_channel", [True, False])
def test_onnxruntime_quantizes_a_case(
    digits: Case, format: str, operators: set[str], per_channel: bool
) -> None:
    path = qcomp.zoo.quantized_by_onnxruntime(digits, format, per_channel)
    model = onnx.load(str(path))
    assert operators <= {node.op_type for node in model.graph.node}
    scale_sizes = [
        int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.name.endswith("_scale")
    ]
    assert (48 in scale_sizes) == per_channel
    outputs = reference_outputs(dataclasses.replace(digits, onnx_path=path))
    assert digits.metric(outputs)["top1"] == pytest.approx(digits.reference["top1"], abs=0.02)
    stamp = path.stat().st_mtime_ns
    assert qcomp.zoo.quantized_by_onnxruntime(digits, format, per_channel).stat().st_mtime_ns == stamp


def test_a_quantized_model_is_not_quantized_again(digits: Case) -> None:
    quantized = dataclasses.replace(digits, onnx_path=qcomp.zoo.quantized_by_onnxruntime(digits))
    with pytest.raises(QcompError, match="digits_mlp is quantized already"):
        qcomp.zoo.quantized_by_onnxruntime(quantized)


def test_an_unknown_format_is_refused(digits: Case) -> None:
    with pytest.raises(QcompError, match="no format 'tflite'; one of: qdq, qoperator, dynamic"):
        qcomp.zoo.quantized_by_onnxruntime(digits, "tflite")


@pytest.mark.slow
def test_the_quantization_aware_model_carries_its_scales() -> None:
    model = onnx.load(str(qcomp.zoo.load("mnist_dscnn_qat").onnx_path))
    producers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            dequantize = producers[node.input[1]]
            quantize = producers[dequantize.input[0]]
            assert (dequantize.op_type, quantize.op_type) == ("DequantizeLinear", "QuantizeLinear")
            assert constants[quantize.input[0]].data_type == onnx.TensorProto.FLOAT
            assert producers[producers[node.input[0]].input[0]].op_type in (
                "QuantizeLinear",
                "DequantizeLinear",
            )
