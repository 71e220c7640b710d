"""What an imported graph looks like: shapes, names, folded constants, control flow, functions, float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx_text import model, ops

from qcomp.errors import QcompError
from qcomp.frontends.onnx import load_onnx
from qcomp.ir import DType, run

F32 = np.float32


def test_a_graph_has_the_names_of_the_model() -> None:
    graph = load_onnx(
        model(
            """(float[1,2] x) => (float[1,2] y) {
                 [first] a = MatMul(x, w)
                 y = Relu(a)
               }""",
            w=np.eye(2, dtype=F32),
        ),
        name="net",
    )
    assert graph.name == "net"
    assert [v.name for v in graph.inputs] == ["x"]
    assert [v.name for v in graph.outputs] == ["y"]
    assert [(n.op.name, n.output.name) for n in graph.nodes] == [("matmul", "a"), ("relu", "y")]
    assert graph.nodes[0].name == "first"
    assert [c.name for c in graph.constants] == ["w"]


def test_a_lone_dynamic_batch_becomes_1_and_that_is_noted() -> None:
    graph = load_onnx(model("(float[batch,3] x) => (float[batch,3] y) { y = Relu(x) }"))
    assert graph.inputs[0].shape == (1, 3)
    assert graph.attrs["batch_set_to_1"] == ("x",)


def test_given_shapes_bind_dynamic_dimensions_and_leave_no_note() -> None:
    graph = load_onnx(model("(float[n,3,h,w] x) => (float[n,3,h,w] y) { y = Relu(x) }"), {"x": (2, 3, 4, 5)})
    assert graph.inputs[0].shape == (2, 3, 4, 5)
    assert "batch_set_to_1" not in graph.attrs


def test_a_symbol_bound_in_one_input_is_bound_in_all() -> None:
    proto = model("(float[n,t] x, float[t] m) => (float[n,t] y) { y = Add(x, m) }")
    graph = load_onnx(proto, {"x": (1, 7)})
    assert graph.value("m").shape == (7,)


def test_open_dimensions_are_named_with_the_way_to_bind_them() -> None:
    proto = model("(float[n,3,h,w] x) => (float[n,3,h,w] y) { y = Relu(x) }")
    with pytest.raises(QcompError) as caught:
        load_onnx(proto)
    assert str(caught.value) == ("input 'x' has dynamic dimensions [n, 3, h, w]; bind them with --shape x=N,3,N,N")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-1, "input 'x' has dynamic dimensions [1, -1]; bind them with --shape x=1,N"),
        (-5, "input 'x' has a negative size: [1, -5]; export the model again"),
    ],
)
def test_a_negative_size_is_shown(size: int, message: str) -> None:
    proto = model("(float[1,3] x) => (float[1,3] y) { y = Relu(x) }")
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size
    with pytest.raises(QcompError) as caught:
        load_onnx(proto)
    assert str(caught.value) == message


def test_sizes_of_minus_one_may_differ() -> None:
    proto = model("(float[1,3] x) => (float[1,3] y) { y = Relu(x) }")
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = -1
    assert load_onnx(proto, {"x": (2, 3)}).inputs[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 2)}, "the model has no input 'z'; its inputs: 'x', 'm'"),
        ({"x": (1, 2, 3)}, r"shape \[1, 2, 3\] does not fit input 'x', which is \[n, 4\]; give 2 sizes"),
        ({"x": (1, 5)}, r"shape \[1, 5\] does not fit input 'x', which is \[n, 4\]; keep its numbers"),
        ({"x": (2, 4), "m": (3, 4)}, r"shape \[3, 4\] does not fit input 'm', which is \[n, 4\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(QcompError, match=message):
        load_onnx(model("(float[n,4] x, float[n,4] m) => (float[n,4] y) { y = Add(x, m) }"), shapes)


def test_arithmetic_on_shapes_is_folded() -> None:
    graph = load_onnx(
        model(
            """(float[2,3,4] x) => (float[6,4] y) {
                 s = Shape(x)
                 i = Constant <value_ints = [0]> ()
                 j = Constant <value_ints = [1]> ()
                 a = Gather(s, i)
                 b = Gather(s, j)
                 p = Mul(a, b)
                 m = Constant <value_ints = [-1]> ()
                 t = Concat <axis = 0> (p, m)
                 y = Reshape(x, t)
               }"""
        )
    )
    assert ops(graph) == ["reshape"]
    assert graph.constants == ()
    assert graph.outputs[0].shape == (6, 4)


def test_masks_of_constants_are_folded() -> None:
    graph = load_onnx(
        model(
            """(float[1,3] x) => (float[1,3] y) {
                 n = Constant <value_ints = [3]> ()
                 ones = ConstantOfShape <value = float {1}> (n)
                 r0 = Constant <value_int = 0> ()
                 r3 = Constant <value_int = 3> ()
                 r1 = Constant <value_int = 1> ()
                 r = Range(r0, r3, r1)
                 e = Equal(r, r1)
                 c = Cast <to = 1> (r)
                 w = Where(e, ones, c)
                 y = Mul(x, w)
               }"""
        )
    )
    assert ops(graph) == ["mul"]
    assert graph.constants[0].array.tolist() == [0, 1, 2]


def test_ops_without_a_counterpart_are_folded_on_constants() -> None:
    graph = load_onnx(
        model(
            """(float[3] x) => (float[3] y) {
                 k = Constant <value_ints = [3]> ()
                 top, where = TopK(c, k)
                 y = Add(x, top)
               }""",
            c=np.asarray([1, 3, 2, 0], F32),
        )
    )
    assert ops(graph) == ["add"]
    assert (run(graph, {"x": np.zeros(3, F32)})["y"] == [3, 2, 1]).all()


def test_an_if_with_a_known_condition_is_its_branch() -> None:
    graph = load_onnx(
        model(
            """(float[2] x) => (float[2] y) {
                 n = Size(x)
                 two = Constant <value_int = 2> ()
                 c = Equal(n, two)
                 y = If (c) <
                   then_branch = t () => (float[2] a) { a = Relu(x) },
                   else_branch = e () => (float[2] b) { b = Neg(x) }
                 >
               }"""
        )
    )
    assert ops(graph) == ["relu"]
    assert graph.nodes[0].output.name == "y"


def test_an_if_with_a_computed_condition_selects_between_both_branches() -> None:
    graph = load_onnx(
        model(
            """(float[2] x, bool c) => (float[2] y) {
                 y = If (c) <
                   then_branch = t () => (float[2] a) { a = Relu(x) },
                   else_branch = e () => (float[2] b) { b = Neg(x) }
                 >
               }"""
        )
    )
    x = np.asarray([-1, 2], F32)
    assert (run(graph, {"x": x, "c": np.asarray(True)})["y"] == [0, 2]).all()
    assert (run(graph, {"x": x, "c": np.asarray(False)})["y"] == [1, -2]).all()


def test_functions_of_the_model_are_inlined() -> None:
    proto = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21, "mine": 1]>
           g (float[2] x) => (float[2] y) { y = mine.twice(x) }
           <opset_import: ["": 21], domain: "mine"> twice (a) => (b) { b = Add(a, a) }"""
    )
    graph = load_onnx(proto)
    assert ops(graph) == ["add"]


def test_ops_that_onnx_defines_by_others_are_expanded() -> None:
    graph = load_onnx(model("(float[2,3] x) => (float[2,3] y) { y = CenterCropPad(x, s) }", s=np.asarray([2, 3])))
    x = np.arange(6, dtype=F32).reshape(2, 3)
    assert (run(graph, {"x": x})["y"] == x).all()


def test_nodes_may_stand_in_any_order() -> None:
    proto = model("(float[2] x) => (float[2] y) { a = Relu(x)\n y = Neg(a) }")
    first, second = proto.graph.node[0], proto.graph.node[1]
    shuffled = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (second, first)]
    del proto.graph.node[:]
    proto.graph.node.extend(shuffled)
    assert ops(load_onnx(proto)) == ["relu", "neg"]


def test_initializers_listed_as_inputs_are_constants() -> None:
    proto = model("(float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, F32))
    assert [v.name for v in load_onnx(proto).inputs] == ["x"]


def test_float16_is_computed_in_float32_behind_a_float16_interface() -> None:
    proto = model(
        "(float16[1,2] x) => (float16[1,2] y) { a = MatMul(x, w)\n y = Relu(a) }",
        w=np.asarray([[0.5, 1], [1, 0.25]], np.float16),
    )
    graph = load_onnx(proto)
    assert ops(graph) == ["cast", "matmul", "relu", "cast"]
    assert graph.inputs[0].dtype is DType.F16 and graph.outputs[0].dtype is DType.F16
    assert graph.value("a").dtype is DType.F32 and graph.value("w").dtype is DType.F32
    result = run(graph, {"x": np.asarray([[2, 4]], np.float16)})["y"]
    assert result.dtype == np.float16 and (result == [[5, 3]]).all()


def test_bfloat16_weights_become_float32() -> None:
    proto = model("(float[2] x) => (float[2] y) { c = Cast <to = 1> (w)\n y = Mul(x, c) }")
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.5, -2.0]))
    assert (run(load_onnx(proto), {"x": np.ones(2, F32)})["y"] == [1.5, -2]).all()


def test_outputs_may_be_inputs_constants_and_aliases() -> None:
    graph = load_onnx(
        model(
            """(float[2] x) => (float[2] a, float[2] b, float[2] c, float[2] d) {
                 a = Identity(x)
                 b = Relu(x)
                 c = Identity(b)
                 d = Identity(k)
               }""",
            k=np.asarray([1, 2], F32),
        )
    )
    assert [v.name for v in graph.outputs] == ["a", "b", "c", "d"]
    results = run(graph, {"x": np.asarray([-1, 1], F32)})
    assert [results[n].tolist() for n in "abcd"] == [[-1, 1], [0, 1], [0, 1], [1, 2]]


def test_an_integer_constant_with_a_grid_gets_the_name_of_its_initializer() -> None:
    graph = load_onnx(
        model(
            "(float[2] x) => (float[2] y) { d = DequantizeLinear(q, s, z)\n y = Add(x, d) }",
            q=np.asarray([3, 4], np.uint8),
            s=F32(1),
            z=np.uint8(128),
        )
    )
    assert [c.name for c in graph.constants] == ["q"]


def test_external_data_is_read_from_beside_the_model(tmp_path: Path) -> None:
    weight = np.arange(2048, dtype=F32)
    proto = model("(float[2048] x) => (float[2048] y) { y = Add(x, w) }", w=weight)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    graph = load_onnx(tmp_path / "m.onnx")
    assert graph.name == "m"
    assert (graph.value("w").array == weight).all()
    (tmp_path / "w.bin").unlink()
    with pytest.raises(QcompError, match=r"tensor 'w': its external data 'w.bin' cannot be read.*put the file beside"):
        load_onnx(tmp_path / "m.onnx")


def test_external_data_needs_a_file(tmp_path: Path) -> None:
    proto = model("(float[2048] x) => (float[2048] y) { y = Add(x, w) }", w=np.zeros(2048, F32))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(QcompError, match="load the model from its file, not from memory"):
        load_onnx(onnx.load(tmp_path / "m.onnx", load_external_data=False))


def test_the_same_model_gives_the_same_text() -> None:
    from qcomp.ir import parse_graph, print_graph

    proto = model("(float[1,3,5,5] x) => (float[1,2,5,5] y) { c = Conv <pads=[1,1,1,1]> (x, w)\n y = Relu(c) }",
                  w=np.ones((2, 3, 3, 3), F32))  # fmt: skip
    text = print_graph(load_onnx(proto))
    assert text == print_graph(load_onnx(proto))
    assert print_graph(parse_graph(text)) == text


def test_sparse_initializers_become_dense() -> None:
    proto = model("(float[4] x) => (float[4] y) { y = Add(x, w) }")
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(np.asarray([5, 6], F32), "w"), numpy_helper.from_array(np.asarray([1, 3])), [4]
        )
    )
    assert load_onnx(proto).value("w").array.tolist() == [0, 5, 0, 6]
