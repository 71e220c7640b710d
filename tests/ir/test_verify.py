"""The verifier names what is wrong with each kind of broken graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, Quantization, TensorType, Value, parse_graph, verify

TEXT = """graph @m {
  input %x: f32[2,3]
  const %w: f32[3,4] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
  %p: f32[2,4] = matmul(%x, %w)
  %y: f32[2,4] = relu(%p)
  output %y
}"""


def _wrong_shape(g: Graph) -> None:
    g.value("p").type = TensorType.f32(2, 5)


def _wrong_dtype(g: Graph) -> None:
    g.value("y").type = TensorType(DType.F64, (2, 4))


def _no_outputs(g: Graph) -> None:
    g.outputs = []


def _foreign_output(g: Graph) -> None:
    g.outputs = [Value("z", TensorType.f32(1))]


def _dynamic_shape(g: Graph) -> None:
    g.value("x").type = TensorType.f32(-1, 3)


def _quantized_float(g: Graph) -> None:
    g.value("x").type = TensorType(DType.F32, (2, 3), Quantization.per_tensor(0.5))


def _scales_do_not_fit(g: Graph) -> None:
    g.value("x").type = TensorType(DType.I8, (2, 3), Quantization.per_channel(np.ones(4), 1))


def _zero_point_outside(g: Graph) -> None:
    g.value("x").type = TensorType(DType.I8, (2, 3), Quantization.per_tensor(0.5, 200))


def _data_of_another_shape(g: Graph) -> None:
    g.value("w").data = np.zeros((4, 4), np.float32)


def _attribute_missing(g: Graph) -> None:
    g.add("softmax", [g.value("p")], {"axis": 1})
    g.nodes[-1].attrs.clear()


def _attribute_of_another_kind(g: Graph) -> None:
    g.add("softmax", [g.value("p")], {"axis": 1})
    g.nodes[-1].attrs["axis"] = "last"


def _attribute_unknown(g: Graph) -> None:
    g.nodes[1].attrs["speed"] = 3


def _unrecorded_use(g: Graph) -> None:
    g._uses[g.value("p")].clear()


def _operand_of_another_graph(g: Graph) -> None:
    g.nodes[1]._inputs = (Value("z", TensorType.f32(2, 4)),)


def _too_few_operands(g: Graph) -> None:
    g.nodes[0]._inputs = (g.value("x"),)


def _two_producers(g: Graph) -> None:
    g.value("y").producer = g.nodes[0]


def _no_producer(g: Graph) -> None:
    g._adopt(Value("z", TensorType.f32(1)))


def _cycle(g: Graph) -> None:
    g.set_input(g.nodes[0], 0, g.value("y"))


BROKEN: list[tuple[Callable[[Graph], None], str]] = [
    (_wrong_shape, "%p is f32[2,5], the op gives f32[2,4]"),
    (_wrong_dtype, "%y is f64[2,4], the op gives f32[2,4]"),
    (_no_outputs, "the graph has no outputs"),
    (_foreign_output, "output %z is not a value of the graph"),
    (_dynamic_shape, "is not static"),
    (_quantized_float, "f32 values carry no quantization"),
    (_scales_do_not_fit, "4 scales along axis 1 of shape (2, 3)"),
    (_zero_point_outside, "a zero point is outside i8"),
    (_data_of_another_shape, "data is float32[4, 4], type f32[3,4]"),
    (_attribute_missing, "softmax needs attribute 'axis'"),
    (_attribute_of_another_kind, "attribute 'axis' is 'last', not of kind int"),
    (_attribute_unknown, "relu has no attribute 'speed'"),
    (_unrecorded_use, "the use of %p is not recorded"),
    (_operand_of_another_graph, "operand %z is not a value of the graph"),
    (_too_few_operands, "matmul needs operand 'b'"),
    (_two_producers, "%y names another producer"),
    (_no_producer, "no node produces it"),
    (_cycle, "the graph has a cycle"),
]


def test_a_valid_graph_passes() -> None:
    verify(parse_graph(TEXT))


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[d.__name__.strip("_") for d, _ in BROKEN])
def test_damage_is_named(damage: Callable[[Graph], None], message: str) -> None:
    graph = parse_graph(TEXT)
    damage(graph)
    with pytest.raises(QcompError) as caught:
        verify(graph)
    assert message in str(caught.value)
