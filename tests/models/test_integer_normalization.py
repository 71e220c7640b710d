"""Integer softmax and layer norm on real activations: within one step of the float result."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import qcomp.zoo
from qcomp.compiler import import_model
from qcomp.ir import Graph, Quantization, TensorType, run
from qcomp.ir.affine import affine_parameters
from qcomp.ir.onnx_export import to_onnx
from qcomp.ir.ops.quantized import dequantize_array, quantize_array
from qcomp.ir.types import DType
from qcomp.passes.canonicalize import canonicalization
from qcomp.passes.expand_attention import ExpandAttention
from qcomp.passes.integer_forms import Target, build_layer_norm, build_softmax
from qcomp.passes.manager import run_passes

pytestmark = pytest.mark.slow
BUILDERS = {"softmax": build_softmax, "layer_norm": build_layer_norm}


def grid(values: np.ndarray, dtype: DType) -> Quantization:
    lo, hi = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return Quantization.per_tensor(*affine_parameters(lo, hi, "i8" if dtype is DType.I8 else "i16"))


def integer_and_float(node, x: np.ndarray, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """The integer op's result in steps, and the exact float result in the same steps, before rounding."""
    x_grid = grid(x, dtype)
    stored = quantize_array(x, x_grid, dtype)
    single, real = Graph("one"), dequantize_array(stored, x_grid)
    operands = [single.input("x", TensorType.f32(*x.shape)), *(single.constant(v.array) for v in node.inputs[1:])]
    single.outputs = [single.add(node.op.name, operands, node.attrs, names=["y"]).output]
    exact = run(single, {"x": real})["y"]
    y_grid = grid(exact, DType.I8)
    integer = Graph("integer")
    q = integer.input("q", TensorType(dtype, x.shape, x_grid))
    operands = [integer.add("dequantize", [q]).output, *(integer.constant(v.array) for v in node.inputs[1:])]
    op = integer.add(node.op.name, operands, node.attrs, node_name="n")
    built = BUILDERS[node.op.name](integer, op, Target(y_grid, -128, 127, "y"))
    assert built is not None
    integer.outputs = [built]
    got = run(integer, {"q": stored})["y"]
    return got.astype(np.float64), exact.astype(np.float64) / y_grid.scale[0] + y_grid.zero_point[0]


@pytest.mark.parametrize("name", ["ppocr_rec"])
def test_real_activations(name: str) -> None:
    case = qcomp.zoo.load(name)
    graph = run_passes(import_model(case.onnx_path, case.shapes), [*canonicalization(), ExpandAttention()])
    nodes = [n for n in graph.nodes if n.op.name in BUILDERS]
    model = to_onnx(graph)
    model.graph.output.extend(onnx.ValueInfoProto(name=n.input(0).name) for n in nodes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sample = {session.get_inputs()[0].name: np.asarray(case.calibration[:1])}
    names = [n.input(0).name for n in nodes]
    arrays = dict(zip(names, session.run(names, sample), strict=True))
    kinds = set()
    for node in nodes:
        if node.op.name == "softmax" and graph.is_output(node.output):
            continue  # 6,625 classes: it stays float
        for dtype in (DType.I8, DType.I16) if node.op.name == "layer_norm" else (DType.I8,):
            got, exact = integer_and_float(node, arrays[node.input(0).name], dtype)
            inside = np.abs(got - np.clip(exact, -128, 127)) <= 1.0
            assert inside.mean() >= 0.99, (node, dtype, inside.mean())
            kinds.add((node.op.name, dtype))
    assert len(kinds) == 3

