"""Keys name values by what computes them, and cut graphs compute the rest."""

from __future__ import annotations

import layered_networks
import numpy as np
import pytest

from qcomp.ir import Graph
from qcomp.ir.interpreter import run
from qcomp.quantize.suffixes import Keys, suffix


def test_copies_have_the_same_keys() -> None:
    keys, graph = Keys(), layered_networks.residual()
    assert list(keys.of(graph).values()) == list(keys.of(graph.clone()).values())
    assert len(set(keys.of(graph).values())) == len(graph.nodes) + 1


def test_equal_constants_of_other_graphs_count_as_equal() -> None:
    keys = Keys()
    assert list(keys.of(layered_networks.residual()).values()) == list(keys.of(layered_networks.residual()).values())


@pytest.mark.parametrize("changed", ["first.w", "second.w", "head.w"])
def test_a_change_is_seen_behind_it_and_not_before(changed: str) -> None:
    graph, other = layered_networks.residual(), layered_networks.residual()
    users = [node.name for node in graph.nodes if any(v is not None and v.name == changed for v in node.inputs)]
    old = other.value(changed)
    new = other.constant(old.array * np.float32(2), "changed")
    other.replace_all_uses(old, new)
    keys = Keys()
    before = {v.name: key for v, key in keys.of(graph).items()}
    after = {v.name: key for v, key in keys.of(other).items()}
    same = {name for name in before if before[name] == after[name]}
    order = [v.name for node in graph.nodes for v in node.outputs]
    first = next(node.output.name for node in graph.nodes if node.name == users[0])
    assert first not in same
    assert set(order[: order.index(first)]) <= same
    assert "y" not in same


def _known_values(graph: Graph, names: list[str], x: np.ndarray) -> dict[str, np.ndarray]:
    whole = graph.clone()
    whole.outputs = [whole.value(name) for name in names]
    return run(whole, {"x": x})


@pytest.mark.parametrize("known", [[], ["swish.y"], ["swish.y", "clamp.y"], ["sum.y", "clamp.y"], ["flat.y"], ["y"]])
def test_a_suffix_computes_what_the_whole_graph_does(known: list[str]) -> None:
    graph = layered_networks.residual()
    keys = Keys().of(graph)
    cut = suffix(graph, keys, {keys[graph.value(name)] for name in known})
    x = layered_networks.samples((3, 6, 6), 1)
    values = {keys[graph.value(name)]: array for name, array in _known_values(graph, ["x", *known], x).items()}
    feed = {name: values[key] for name, key in cut.inputs.items()}
    found = run(cut.graph, feed) if cut.graph.outputs else {}
    (output,) = cut.outputs
    result = values[output] if isinstance(output, bytes) else found[output]
    assert np.array_equal(result, run(graph, {"x": x})["y"])
    assert set(cut.keys) <= set(values)
    assert len(graph.nodes) == 9, "the graph itself stays as it is"


def test_nothing_before_the_cut_is_left() -> None:
    graph = layered_networks.residual()
    keys = Keys().of(graph)
    cut = suffix(graph, keys, {keys[graph.value("flat.y")]})
    assert [node.name for node in cut.graph.nodes] == ["head"]
    assert len(cut.graph.inputs) == 1
