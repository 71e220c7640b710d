"""Every kind of bad model is one clear line that names the place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_text import model

from qcomp.errors import QcompError
from qcomp.frontends.onnx import load_onnx

F32 = np.float32


def refused(proto: onnx.ModelProto | Path) -> str:
    with pytest.raises(QcompError) as caught:
        load_onnx(proto)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.onnx").endswith("none.onnx: cannot read the model: No such file or directory")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    assert "m.onnx: the file is empty" in refused(tmp_path / "m.onnx")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" * 9, b"graph @m {\n}\n", bytes(range(256))])
def test_a_file_that_is_something_else(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    assert "this is no ONNX model" in refused(tmp_path / "m.onnx")


def test_a_truncated_file(tmp_path: Path) -> None:
    data = model("(float[2] x) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, F32)).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[:-7])
    assert "m" in refused(tmp_path / "m.onnx")


def test_a_newer_ir_version() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.ir_version = 1000
    assert "IR version 1000 is newer than" in refused(proto)


def test_a_newer_opset() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.opset_import[0].version = 1000
    assert "opset 1000 is newer than" in refused(proto)


def test_no_opset() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Relu(x) }")
    del proto.opset_import[:]
    assert "the model names no opset version" in refused(proto)


def test_all_unsupported_ops_in_one_line() -> None:
    proto = model(
        """(float[1,4] x) => (float[1,4] y) {
             [a] q = GridSample(x, x)
             [b] r = Relu(q)
             [c] s = Det(r)
             [d] y = NoSuchOp(x)
           }"""
    )
    assert refused(proto) == (
        "GridSample 'a': is not supported; use Resize, when the grid is regular; "
        "also unsupported: Det 'c', NoSuchOp 'd'"
    )


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("y = HardSwsh(x)", "HardSwsh 'y': is not supported; the closest supported op is HardSwish"),
        ("y = other.Relu(x)", "other.Relu 'y': is not supported; ops of domain 'other' are not part of ONNX"),
        ("y = RNN(x, x, x)", "RNN 'y': is not supported; use LSTM or GRU"),
        ("y = NonMaxSuppression(x, x)", "NonMaxSuppression 'y': is not supported; leave it out of the model"),
    ],
)
def test_an_unsupported_op_comes_with_what_to_do(node: str, message: str) -> None:
    proto = model(f"(float[1,4] x) => (float[1,4] y) {{ {node} }}")
    assert refused(proto).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[2,3] x, float[4,5] b) => (float[2,5] y) { y = MatMul(x, b) }",
         "MatMul 'y': shapes [2, 3] and [4, 5] do not multiply; check the shapes given for the inputs"),
        ("(float[1,3,4,4] x, float[8,2,3,3] b) => (float[1,8,2,2] y) { y = Conv(x, b) }",
         "Conv 'y': 3 channels, weights [8, 2, 3, 3] and 1 groups do not fit; check the shapes given for the inputs"),
        ("(float[2,3] x, float[4,4] b) => (float[2,3] y) { y = Sum(x, b) }",
         "Sum 'y': shapes [2, 3], [4, 4] do not broadcast (as add); check the shapes given for the inputs"),
        ('(float[1,3,4,4] x, float[8,3,3,3] b) => (float[1,8,2,2] y) { y = Conv <auto_pad = "SAME"> (x, b) }',
         "Conv 'y': auto_pad 'SAME' does not exist; export the model again"),
        ("(float[2,3] x, int64[1] i) => (float[2] y) { y = Gather <axis = 5> (x, i) }",
         "Gather 'y': axis 5 of a tensor with 2 dimensions; export the model again"),
        ("(float[2,3] x) => (float[2,3] y) { y = Foo(x) }",
         "Foo 'y': is not supported; rewrite it with ops that are supported"),
    ],
)  # fmt: skip
def test_a_message_says_each_thing_once(text: str, message: str) -> None:
    assert refused(model(text)) == message


def test_volumes() -> None:
    proto = model("(float[1,2,4,4,4] x) => (float[1,2,2,2,2] y) { y = Conv(x, w) }", w=np.ones((2, 2, 3, 3, 3), F32))
    assert refused(proto) == "Conv 'y': 3 spatial dimensions; 1 and 2 are supported"


def test_a_shape_that_is_computed() -> None:
    proto = model("(float[4] x, int64[1] s) => (float[4] y) { y = Reshape(x, s) }")
    assert refused(proto).startswith("Reshape 'y': the shape must be a constant, and 's' is computed at run time; bind")


def test_a_loop() -> None:
    proto = model(
        """(float[2] x) => (float[2] y) {
             n = Constant <value_int = 3> ()
             y = Loop (n, , x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
               d = Identity(c)
               t = Add(s, s)
             }>
           }"""
    )
    assert refused(proto) == "Loop 'y': is not supported; unroll the loop when exporting"


def test_a_tensor_that_nothing_computes() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Add(x, ghost) }")
    assert refused(proto) == "Add 'y': nothing computes its input 'ghost'; export the model again"


def test_an_output_that_nothing_computes() -> None:
    proto = model("(float[2] x) => (float[2] y) { z = Relu(x) }")
    assert refused(proto) == "nothing computes the tensor 'y'; export the model again"


def test_a_cycle() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Add(x, b)\n b = Relu(y) }")
    assert "depends on itself" in refused(proto)


def test_a_tensor_that_two_nodes_compute() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Relu(x)\n y = Neg(x) }")
    assert refused(proto) == "Neg 'y': two nodes compute the tensor 'y'; export the model again"


def test_a_name_that_is_both_input_and_result() -> None:
    proto = model("(float[2] x) => (float[2] x) { x = Relu(x) }")
    assert "'x'" in refused(proto)


def test_two_initializers_of_one_name() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, F32))
    proto.graph.initializer.append(proto.graph.initializer[0])
    assert refused(proto) == "two initializers are called 'w'; export the model again"


def test_two_inputs_of_one_name() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.graph.input.append(proto.graph.input[0])
    assert refused(proto) == "two inputs are called 'x'; export the model again"


@pytest.mark.parametrize(("element", "name"), [(TensorProto.STRING, "STRING"), (TensorProto.BFLOAT16, "BFLOAT16")])
def test_an_input_of_an_unsupported_type(element: int, name: str) -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.graph.input[0].type.tensor_type.elem_type = element
    assert refused(proto) == f"'x' is {name}, which is not supported; use FLOAT or an integer type"


def test_an_initializer_whose_data_is_short() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, F32))
    proto.graph.initializer[0].dims[0] = 3
    assert "tensor 'w': its data does not fit its shape [3]" in refused(proto)


def test_shapes_that_do_not_fit_an_op() -> None:
    proto = model("(float[2,3] x) => (float[2,2] y) { y = MatMul(x, w) }", w=np.ones((4, 2), F32))
    assert refused(proto).startswith("MatMul 'y': ")


def test_a_missing_attribute() -> None:
    proto = model("(float[1,1,4,4] x) => (float[1,1,4,4] y) { y = MaxPool(x) }")
    assert refused(proto) == "MaxPool 'y': attribute 'kernel_shape' is missing; export the model again"


def test_an_output_of_another_type_than_declared() -> None:
    proto = model("(float[2] x) => (int64[2] y) { y = Relu(x) }")
    assert refused(proto) == "output 'y' is declared i64 and computed as f32; export the model again"


def test_an_attribute_that_makes_no_sense() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = ScatterElements <reduction = \"sum\"> (x, i, x) }",
                  i=np.asarray([0, 1]))  # fmt: skip
    assert refused(proto).startswith("ScatterElements 'y': its inputs and attributes do not fit together")


def test_a_model_without_a_graph() -> None:
    assert "it has no graph" in refused(onnx.ModelProto())


def test_an_old_opset_that_cannot_be_converted() -> None:
    node = helper.make_node("Crop", ["x"], ["y"], border=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 1)])
    assert "opset 1 is too old and cannot be converted to 7" in refused(proto)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, seed: int) -> None:
    whole = model(
        """(float[1,3,6,6] x) => (float[1,4] y) {
             q = QuantizeLinear(x, s, z)
             d = DequantizeLinear(q, s, z)
             c = Conv <pads = [1,1,1,1], strides = [2,2]> (d, w)
             p = AveragePool <kernel_shape = [2,2], ceil_mode = 1> (c)
             r = Reshape(p, t)
             k = Slice(r, b, e)
             y = Softmax(k)
           }""",
        s=F32(0.1),
        z=np.uint8(128),
        w=np.ones((2, 3, 3, 3), F32),
        t=np.asarray([1, -1]),
        b=np.asarray([0, 0]),
        e=np.asarray([1, 4]),
    ).SerializeToString()
    random = np.random.default_rng(seed)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(int(random.integers(1, 6))):
            data[random.integers(len(data))] = random.integers(256)
        (tmp_path / "m.onnx").write_bytes(bytes(data))
        try:
            load_onnx(tmp_path / "m.onnx")
            outcomes["read"] += 1
        except QcompError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0
