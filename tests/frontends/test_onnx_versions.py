# ruff: noqa: E501  (a row of the table is a line)
"""Ops that changed between opsets mean the same when each is written the way of its opset."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_text import model

from qcomp.frontends.onnx import load_onnx
from qcomp.ir import run

F32 = np.float32
I64 = np.int64


def agree(proto: onnx.ModelProto, x: np.ndarray) -> None:
    """Importing and interpreting gives what onnxruntime computes."""
    proto.ir_version = min(proto.ir_version, 10)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})
    graph = load_onnx(proto)
    got = run(graph, {"x": x})
    for value, array in zip(graph.outputs, expected, strict=True):
        np.testing.assert_allclose(got[value.name], array, rtol=1e-4, atol=1e-5)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, I64)


X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(F32)
IN = "(float[2,3,4,5] x)"

# fmt: off
CASES: list[tuple[str, int, str, dict[str, np.ndarray]]] = [
    ("clip 6", 10, "=> (float[2,3,4,5] y) { y = Clip <min = -0.5, max = 0.5> (x) }", {}),
    ("clip 11", 11, "=> (float[2,3,4,5] y) { y = Clip(x, lo, hi) }", {"lo": F32(-0.5), "hi": F32(0.5)}),
    ("clip one bound", 13, "=> (float[2,3,4,5] y) { y = Clip(x, , hi) }", {"hi": F32(0.5)}),
    ("squeeze 11", 11, "=> (float[2,3,4,5] y) { a = Unsqueeze <axes = [0, 3]> (x)\n y = Squeeze <axes = [0, 3]> (a) }", {}),
    ("squeeze 13", 13, "=> (float[2,3,4,5] y) { a = Unsqueeze(x, i)\n y = Squeeze(a, i) }", {"i": ints(0, -2)}),
    ("slice 1", 9, "=> (float[2,2,4,3] y) { y = Slice <axes = [1, 3], starts = [0, -4], ends = [2, -1]> (x) }", {}),
    (
        "slice 10",
        10,
        "=> (float[2,3,4,3] y) { y = Slice(x, b, e, a, s) }",
        {"b": ints(-1), "e": ints(-99), "a": ints(-1), "s": ints(-2)},
    ),
    ("pad 2", 10, "=> (float[2,3,6,6] y) { y = Pad <pads = [0,0,1,0,0,0,1,1], value = 2.0> (x) }", {}),
    ("pad 11", 11, "=> (float[2,3,6,6] y) { y = Pad(x, p, v) }", {"p": ints(0, 0, 1, 0, 0, 0, 1, 1), "v": F32(2)}),
    ("pad 18 axes", 18, "=> (float[2,3,4,7] y) { y = Pad <mode = \"reflect\"> (x, p, , a) }", {"p": ints(1, 1), "a": ints(3)}),
    ("pad cuts", 13, "=> (float[2,3,3,5] y) { y = Pad(x, p) }", {"p": ints(0, 0, -1, 1, 0, 0, 0, -1)}),
    ("reduce 11", 11, "=> (float[2,1,4,1] y) { y = ReduceMean <axes = [1, -1]> (x) }", {}),
    ("reduce 18", 18, "=> (float[2,4] y) { y = ReduceMean <keepdims = 0> (x, a) }", {"a": ints(1, -1)}),
    ("reduce nothing", 18, "=> (float[2,3,4,5] y) { y = ReduceSumSquare <noop_with_empty_axes = 1> (x) }", {}),
    ("reduce all", 13, "=> (float[1,1,1,1] y) { y = ReduceSum(x) }", {}),
    ("split 11", 11, "=> (float[2,1,4,5] y, float[2,2,4,5] z) { y, z = Split <axis = 1, split = [1, 2]> (x) }", {}),
    ("split 13", 13, "=> (float[2,1,4,5] y, float[2,2,4,5] z) { y, z = Split <axis = 1> (x, s) }", {"s": ints(1, 2)}),
    ("split 18", 18, "=> (float[2,2,4,5] y, float[2,1,4,5] z) { y, z = Split <axis = 1, num_outputs = 2> (x) }", {}),
    ("softmax 11 is flat", 11, "=> (float[2,3,4,5] y) { y = Softmax(x) }", {}),
    ("softmax 11 axis 2", 11, "=> (float[2,3,4,5] y) { y = Softmax <axis = 2> (x) }", {}),
    ("softmax 13", 13, "=> (float[2,3,4,5] y) { y = Softmax <axis = 1> (x) }", {}),
    ("hardmax 11", 11, "=> (float[2,3,4,5] y) { y = Hardmax <axis = 2> (x) }", {}),
    ("dropout 10", 10, "=> (float[2,3,4,5] y) { y = Dropout <ratio = 0.3> (x) }", {}),
    ("dropout 12", 12, "=> (float[2,3,4,5] y) { y, m = Dropout(x, r) }", {"r": F32(0.3)}),
    ("upsample 9", 9, "=> (float[2,3,8,10] y) { y = Upsample <mode = \"nearest\"> (x, s) }", {"s": np.asarray([1, 1, 2, 2], F32)}),
    ("resize 10", 10, "=> (float[2,3,8,10] y) { y = Resize <mode = \"linear\"> (x, s) }", {"s": np.asarray([1, 1, 2, 2], F32)}),
    (
        "resize 11",
        11,
        "=> (float[2,3,6,10] y) { y = Resize <mode = \"linear\"> (x, r, s) }",
        {"r": np.zeros(0, F32), "s": np.asarray([1, 1, 1.5, 2], F32)},
    ),
    (
        "resize 13 sizes",
        13,
        "=> (float[2,3,7,3] y) { y = Resize <mode = \"cubic\", coordinate_transformation_mode = \"align_corners\"> (x, , , s) }",
        {"s": ints(2, 3, 7, 3)},
    ),
    (
        "resize 18 axes",
        18,
        "=> (float[2,3,8,4] y) { y = Resize <mode = \"linear\", antialias = 1, axes = [2, 3]> (x, , , s) }",
        {"s": ints(8, 4)},
    ),
    (
        "resize 19 policy",
        19,
        "=> (float[2,3,8,10] y) { y = Resize <axes = [2, 3], keep_aspect_ratio_policy = \"not_larger\"> (x, , , s) }",
        {"s": ints(8, 20)},
    ),
    (
        "batch normalization 9",
        9,
        "=> (float[2,3,4,5] y) { y = BatchNormalization <epsilon = 0.01> (x, s, b, m, v) }",
        {"s": np.asarray([1, 2, 3], F32), "b": np.ones(3, F32), "m": np.zeros(3, F32), "v": np.asarray([1, 4, 9], F32)},
    ),
    ("gemm 7", 10, "=> (float[6,2] y) { a = Flatten <axis = 2> (x)\n y = Gemm(a, w, c) }", {"w": np.ones((20, 2), F32), "c": np.ones(2, F32)}),
    ("reshape keeps", 13, "=> (float[2,12,5] y) { y = Reshape(x, s) }", {"s": ints(0, -1, 5)}),
    ("one dimension", 13, "=> (float[2,4,9] y) { s = Reshape(x, t)\n y = Conv <pads = [1, 0], strides = [2]> (s, w) }",
     {"t": ints(2, 3, 20), "w": np.ones((4, 3, 4), F32)}),
    ("pool of one dimension", 13, "=> (float[2,3,10] y) { s = Reshape(x, t)\n y = AveragePool <kernel_shape = [3], strides = [2], ceil_mode = 1> (s) }",
     {"t": ints(2, 3, 20)}),
    ("ceil with counted padding", 13,
     "=> (float[2,3,3,3] y) { y = AveragePool <kernel_shape = [2,3], strides = [2,2], pads = [1,0,0,1], ceil_mode = 1, count_include_pad = 1> (x) }", {}),
    ("max pool ceil", 13, "=> (float[2,3,2,3] y) { y = MaxPool <kernel_shape = [3,2], strides = [2,2], ceil_mode = 1> (x) }", {}),
    ("dilated average", 19, "=> (float[2,3,2,3] y) { y = AveragePool <kernel_shape = [2,2], dilations = [2,2]> (x) }", {}),
    ("same upper", 13, "=> (float[2,2,2,3] y) { y = Conv <auto_pad = \"SAME_UPPER\", strides = [2,2]> (x, w) }", {"w": np.ones((2, 3, 2, 2), F32)}),
    ("same lower", 13, "=> (float[2,2,2,3] y) { y = Conv <auto_pad = \"SAME_LOWER\", strides = [2,2]> (x, w) }", {"w": np.ones((2, 3, 2, 2), F32)}),
    ("valid", 13, "=> (float[2,2,3,4] y) { y = Conv <auto_pad = \"VALID\"> (x, w) }", {"w": np.ones((2, 3, 2, 2), F32)}),
    ("transposed with output shape", 13,
     "=> (float[2,2,8,10] y) { y = ConvTranspose <strides = [2,2], output_shape = [8,10]> (x, w) }", {"w": np.ones((3, 2, 3, 3), F32)}),
    ("transposed same", 13,
     "=> (float[2,2,8,10] y) { y = ConvTranspose <strides = [2,2], auto_pad = \"SAME_UPPER\"> (x, w) }", {"w": np.ones((3, 2, 3, 3), F32)}),
    ("einsum", 13, "=> (float[2,4,3,7] y) { y = Einsum <equation = \"bcij,jk->bick\"> (x, w) }", {"w": np.ones((5, 7), F32)}),
    ("scatter of known places", 13, "=> (float[2,3,4,5] y) { y = ScatterND(x, i, u) }",
     {"i": np.asarray([[0, 1], [1, 2]]), "u": np.zeros((2, 4, 5), F32)}),
]
# fmt: on


@pytest.mark.parametrize(("name", "opset", "text", "constants"), CASES, ids=[c[0] for c in CASES])
def test_an_op_means_what_its_opset_says(name: str, opset: int, text: str, constants: dict[str, np.ndarray]) -> None:
    agree(model(f"{IN} {text}", opset=opset, **constants), X)


@pytest.mark.parametrize(
    ("op", "attributes", "inputs", "constants"),
    [
        ("FusedConv", '<activation = "Relu">', "x, w", {"w": np.ones((2, 3, 3, 3), F32) / 9}),
        (
            "FusedConv",
            '<activation = "LeakyRelu", activation_params = [0.2]>',
            "x, w",
            {"w": np.ones((2, 3, 3, 3), F32)},
        ),
        ("FusedMatMul", "<transB = 1, alpha = 0.5>", "x, w", {"w": np.ones((2, 5), F32)}),
        ("Gelu", "", "x", {}),
        ("BiasGelu", "", "x, b", {"b": np.arange(5, dtype=F32)}),
        ("FastGelu", "", "x, b", {"b": np.arange(5, dtype=F32)}),
        ("QuickGelu", "", "x", {}),
    ],
)
def test_fused_ops_of_onnxruntime_agree_with_it(
    op: str, attributes: str, inputs: str, constants: dict[str, np.ndarray]
) -> None:
    proto = model(f"{IN} => (float[a,b,c,d] y) {{ y = com.microsoft.{op} {attributes} ({inputs}) }}", 13, **constants)
    agree(proto, X)
