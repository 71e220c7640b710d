"""Producers, uses and names stay true while a graph is rewritten."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import Graph, TensorType, parse_graph, print_graph, verify

TEXT = """graph @m {
  input %x: f32[2]
  %a: f32[2] = relu(%x)
  %b: f32[2] = neg(%a)
  %c: f32[2] = add(%a, %a)
  %y: f32[2] = mul(%b, %c)
  output %y
}"""


def test_uses_list_every_operand_position() -> None:
    g = parse_graph(TEXT)
    assert [(n.name, i) for n, i in g.uses(g.value("a"))] == [("b", 0), ("c", 0), ("c", 1)]
    assert [n.name for n in g.users(g.value("a"))] == ["b", "c"]
    assert g.sole_user(g.value("b")) is g.value("y").producer
    assert g.sole_user(g.value("a")) is None and g.sole_user(g.value("y")) is None


def test_replacing_all_uses_reaches_outputs() -> None:
    g = parse_graph(TEXT)
    g.replace_all_uses(g.value("y"), g.value("x"))
    g.replace_all_uses(g.value("a"), g.value("x"))
    verify(g)
    assert g.outputs == [g.value("x")] and not g.uses(g.value("a"))


def test_replacing_a_node_passes_its_name_on() -> None:
    g = parse_graph(TEXT)
    node = g.value("b").producer
    new = g.add("abs", [g.value("a")])
    g.replace(node, new.output)
    verify(g)
    assert g.value("b").producer is new and "abs(%a)" in print_graph(g)


def test_a_used_node_cannot_be_erased() -> None:
    g = parse_graph(TEXT)
    with pytest.raises(QcompError, match="%a is still used"):
        g.erase(g.value("a").producer)


def test_pruning_removes_what_no_output_needs() -> None:
    g = parse_graph(TEXT)
    g.constant(np.zeros(3, np.float32), "unused")
    g.outputs = [g.value("b")]
    assert g.prune() and not g.prune()
    verify(g)
    assert [v.name for v in g.values] == ["x", "a", "b"]


def test_order_is_topological_whatever_the_order_of_insertion() -> None:
    g = parse_graph(TEXT)
    late = g.add("sqrt", [g.value("x")])
    g.set_input(g.value("a").producer, 0, late.output)
    verify(g)
    names = [n.op.name for n in g.nodes]
    assert names.index("sqrt") < names.index("relu")


def test_names_are_made_unique() -> None:
    g = Graph()
    x = g.input("x", TensorType.f32(1))
    names = [g.add("relu", [x], names=["y"]).output.name for _ in range(3)]
    assert names == ["y", "y.1", "y.2"]
    with pytest.raises(QcompError, match="two values are called %x"):
        g.input("x", TensorType.f32(1))


def test_constants_are_copied_and_read_only() -> None:
    g, array = Graph(), np.zeros(3, np.float32)
    value = g.constant(array, "c")
    array[0] = 1
    assert value.array[0] == 0
    with pytest.raises(ValueError):
        value.array[0] = 1


def test_operands_of_another_graph_are_refused() -> None:
    other = Graph().input("x", TensorType.f32(1))
    with pytest.raises(QcompError, match="belongs to another graph"):
        Graph().add("relu", [other])
