"""Whole graphs as ONNX: they check, run in onnxruntime, and keep names, odd outputs and integer results."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from test_every_op import onnxruntime_results

from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, Quantization, TensorType, parse_graph, run, verify
from qcomp.ir.onnx_export import to_onnx

RNG = np.random.default_rng(5)


def network(layout: str) -> Graph:
    """Convolutions, a residual sum, pools and a gemm."""
    graph = Graph("network")
    last = layout == "NHWC"
    y = graph.input("image", TensorType.f32(*((1, 12, 12, 3) if last else (1, 3, 12, 12))))
    spatial = {"layout": layout}

    def conv(x, inner: int, outer: int, **attrs):
        w = graph.constant((RNG.normal(size=(outer, inner, 3, 3)) / 4).astype(np.float32), "w")
        b = graph.constant(RNG.normal(size=outer).astype(np.float32), "b")
        return graph.add("conv2d", [x, w, b], {"pads": (1, 1, 1, 1), **spatial, **attrs}, names=["conv:0/x"]).output

    y = graph.add("hard_swish", [conv(y, 3, 8, strides=(2, 2))]).output
    branch = graph.add("silu", [conv(y, 1, 8, groups=8)]).output
    y = graph.add("add", [y, branch], names=["sum"]).output
    y = graph.add("max_pool", [y], {"kernel": (2, 2), "strides": (2, 2), **spatial}).output
    y = graph.add("avg_pool", [y], {"kernel": (3, 3), **spatial}).output
    y = graph.add("reshape", [y], {"shape": (1, 8)}).output
    w = graph.constant(RNG.normal(size=(5, 8)).astype(np.float32), "w")
    y = graph.add("gemm", [y, w], {"trans_b": True}, names=["logits"]).output
    graph.outputs = [graph.add("softmax", [y], {"axis": 1}, names=["probabilities"]).output]
    verify(graph)
    return graph


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_float_network_agrees_to_float_rounding(layout: str) -> None:
    graph = network(layout)
    x = {"image": RNG.normal(size=graph.inputs[0].shape).astype(np.float32)}
    theirs = onnxruntime_results(graph, x)["probabilities"]
    np.testing.assert_allclose(run(graph, x)["probabilities"], theirs, rtol=1e-4, atol=1e-6)


def test_every_value_of_a_network_can_be_an_output() -> None:
    graph = network("NHWC")
    computed = [v for n in graph.nodes for v in n.outputs]
    graph.outputs = computed
    x = {"image": RNG.normal(size=graph.inputs[0].shape).astype(np.float32)}
    ours, theirs = run(graph, x), onnxruntime_results(graph, x)
    assert list(theirs) == [v.name for v in computed]
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-4, atol=1e-5)


INTEGER = """graph @quantized {
  input %x: f32[1,6,6,2]
  const %w: i8[3,3,3,2] = WEIGHTS
  const %b: i32[3] = [100, -200, 300]
  const %m: f32[3] = [0.0078125, 0.01, 0.006]
  const %t: i8[256] = TABLE
  const %v: i8[4,3] = [11, -52, 73, 94, -35, 16, 57, 28, -99, 10, 41, 82]
  const %c: i32[4] = [5, 6, 7, 8]
  const %n: f32[4] = [0.01, 0.01, 0.012, 0.009]
  %q: i8[1,6,6,2] q(0.0625, -3) = quantize(%x) {quant = q(0.0625, -3), dtype = !i8}
  %y: i8[1,6,6,3] q(0.125, 4) = qconv2d(%q, %w, %b, %m, %t) {pads = [1, 1, 1, 1], x_zp = -3, zp = 4, lo = 4}
  %z: i8[1,6,6,3] q(0.125, 4) = qadd(%y, %y) {a_zp = 4, b_zp = 4, a_mult = 0.5, b_mult = 0.5, zp = 4}
  %p: i8[1,3,3,3] q(0.125, 4) = max_pool(%z) {kernel = [2, 2], strides = [2, 2], layout = "NHWC"}
  %a: i8[1,1,1,3] q(0.125, 4) = qavg_pool(%p) {kernel = [3, 3], x_zp = 4, ratio = 1.0, zp = 4}
  %r: i8[1,3] q(0.125, 4) = reshape(%a) {shape = [1, 3]}
  %g: i8[1,4] q(0.25, 0) = qgemm(%r, %v, %c, %n) {x_zp = 4}
  %o: f32[1,4] = dequantize(%g)
  output %o
  output %y
  output %g
}"""


def test_an_integer_network_stays_within_a_step_a_layer() -> None:
    weights = ", ".join(str(int(w)) for w in np.random.default_rng(1).integers(-127, 128, 54))
    table = ", ".join(str(i // 2) for i in range(-128, 128))
    graph = parse_graph(INTEGER.replace("WEIGHTS", f"[{weights}]").replace("TABLE", f"[{table}]"))
    x = {"x": RNG.normal(size=(1, 6, 6, 2)).astype(np.float32)}
    ours, theirs = run(graph, x), onnxruntime_results(graph, x)
    assert len(np.unique(ours["y"])) > 10
    assert np.abs(ours["y"].astype(int) - theirs["y"]).max() <= 1
    assert np.abs(ours["g"].astype(int) - theirs["g"]).max() <= 2


def test_eight_bit_models_need_no_newer_opset_than_sixteen_bit_ones_do() -> None:
    def opset(dtype: DType) -> int:
        graph = Graph()
        x = graph.input("x", TensorType.f32(3))
        attrs = {"quant": Quantization.per_tensor(0.5), "dtype": dtype}
        graph.outputs = [graph.add("fake_quant", [x], attrs).output]
        model = to_onnx(graph)
        onnx.checker.check_model(model, full_check=True)
        return model.opset_import[0].version

    assert (opset(DType.I8), opset(DType.U8), opset(DType.I16)) == (20, 20, 21)


def test_inputs_and_constants_may_be_outputs() -> None:
    graph = Graph()
    x = graph.input("x", TensorType.f32(2))
    graph.outputs = [x, graph.constant(np.ones(2, np.float32), "c"), graph.add("neg", [x], names=["y"]).output]
    results = onnxruntime_results(graph, {"x": np.array([1, 2], np.float32)})
    assert {k: v.tolist() for k, v in results.items()} == {"x": [1, 2], "c": [1, 1], "y": [-1, -2]}


def test_names_of_values_win_over_names_the_exporter_makes() -> None:
    graph = Graph()
    x = graph.input("y__sigmoid", TensorType.f32(2))
    graph.outputs = [graph.add("silu", [x], names=["y"]).output]
    results = onnxruntime_results(graph, {"y__sigmoid": np.zeros(2, np.float32)})
    assert results["y"].tolist() == [0, 0]


def test_thirty_two_bit_quantization_is_written_out() -> None:
    graph = Graph()
    x = graph.input("x", TensorType.f32(3))
    attrs = {"quant": Quantization.per_tensor(2.0**-20), "dtype": DType.I32}
    q = graph.add("quantize", [x], attrs, names=["q"]).output
    graph.outputs = [q, graph.add("dequantize", [q], names=["y"]).output]
    arrays = {"x": np.array([1.0, -0.3, 7.7], np.float32)}
    ours, theirs = run(graph, arrays), onnxruntime_results(graph, arrays)
    assert ours["q"].tolist() == theirs["q"].tolist() and ours["y"].tolist() == theirs["y"].tolist()


def test_products_with_computed_weights_have_no_form() -> None:
    graph = Graph()
    x, w = (graph.input(n, TensorType(DType.I8, (2, 2))) for n in "xw")
    bias, mult = graph.constant(np.zeros(2, np.int32)), graph.constant(np.ones(2, np.float32))
    graph.outputs = [graph.add("qgemm", [x, w, bias, mult]).output]
    with pytest.raises(QcompError, match="operand %w is not a constant"):
        to_onnx(graph)


def test_the_same_graph_gives_the_same_bytes() -> None:
    graph = network("NHWC")
    assert to_onnx(graph).SerializeToString() == to_onnx(graph.clone()).SerializeToString()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("whole", [False, True])
def test_pools_may_be_padded_by_more_than_their_kernel(layout: str, whole: bool) -> None:
    graph = Graph()
    window = {"kernel": (2, 2), "strides": (3, 3), "pads": (1, 0, 3, 2), "layout": layout}
    x = graph.input("x", TensorType.f32(1, 6, 6, 3))
    graph.outputs = [
        graph.add("max_pool", [x], {**window, "pads": (1, 0, 2, 1)}).output,
        graph.add("avg_pool", [x], {**window, "count_include_pad": whole}).output,
    ]
    if layout == "NHWC":
        quant = Quantization.per_tensor(0.05, 3)
        q = graph.add("quantize", [x], {"quant": quant}).output
        del window["layout"]
        attrs = {**window, "count_include_pad": whole, "x_zp": 3, "zp": 3, "ratio": 1.0}
        graph.outputs.append(graph.add("qavg_pool", [q], attrs, names=["qavg"], quants=[quant]).output)
        graph.outputs.append(graph.add("max_pool", [q], {**window, "layout": layout, "pads": (1, 0, 2, 1)}).output)
    verify(graph)
    arrays = {"x": np.random.default_rng(3).normal(size=(1, 6, 6, 3)).astype(np.float32)}
    ours, theirs = run(graph, arrays), onnxruntime_results(graph, arrays)
    for name, array in ours.items():
        step = 1 if "qavg" in name else 0  # an average next to a tie
        np.testing.assert_allclose(array, theirs[name], rtol=1e-5, atol=step + 1e-6)
