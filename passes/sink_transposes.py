"""sink-transposes: transposes move down past ops that do not mind, until they meet their inverse or have to stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.registry import Attribute
from qcomp.passes.base import NodeRewrite
from qcomp.passes.integer_regions import UNARY
from qcomp.passes.permutations import (
    Perm,
    inverse,
    is_transposed,
    moves_nothing,
    per_tensor,
    permutation,
    transpose_results,
    untransposed,
)
from qcomp.passes.reshape_axes import move_past_reshape

# Ops that treat every element alike; the first operand decides the shape.
ELEMENTWISE = UNARY | {"logical_not", "identity", "cast", "fake_quant", "quantize", "dequantize", "table"}
BROADCASTING = frozenset({
    "add", "sub", "mul", "div", "pow", "maximum", "minimum", "mod", "prelu", "equal", "less", "less_equal",
    "greater", "greater_equal", "logical_and", "logical_or", "logical_xor", "where",
})  # fmt: skip
REDUCTIONS = frozenset({
    "reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_l1", "reduce_l2",
    "reduce_sum_square",
})  # fmt: skip


@dataclass(frozen=True)
class SinkTransposes(NodeRewrite):
    """Moves transposes from operands to results and cancels them.

    Before: %t = transpose(%x) {perm = [0, 3, 1, 2]}
            %r = relu(%t)
            %y = transpose(%r) {perm = [0, 2, 3, 1]}
    After:  %y = relu(%x)
    """

    name: ClassVar[str] = "sink-transposes"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-4  # reductions over moved axes add in another order

    def rewrite(self, graph: Graph, node: Node) -> bool:
        name = node.op.name
        if name == "transpose":
            return _simplify(graph, node)
        if name == "reshape":
            return move_past_reshape(graph, node)
        perm = _operand_perm(node)
        if perm is None:
            return False
        if name in ELEMENTWISE:
            return _rebuild(graph, node, perm, node.attrs)
        if name in BROADCASTING or name == "concat":
            return _broadcasting(graph, node, perm)
        if name in REDUCTIONS:
            return _reduction(graph, node, perm)
        permute_attributes = _ATTRIBUTES.get(name)
        if permute_attributes is None:
            return False
        return _rebuild(graph, node, perm, permute_attributes(node, perm))


def _operand_perm(node: Node) -> Perm | None:
    """The permutation of the first operand that is a transpose."""
    for value in node.inputs:
        if value is not None and value.producer is not None and value.producer.op.name == "transpose":
            return permutation(value.producer)
    return None


def _simplify(graph: Graph, node: Node) -> bool:
    """Composes transposes and drops those that do nothing."""
    x, perm = node.input(0), permutation(node)
    producer = x.producer
    if perm == tuple(range(len(perm))) and not (graph.is_output(node.output) and producer is None):
        if graph.is_output(node.output) and graph.is_output(x):
            return False
        graph.replace(node, x)
        return True
    if producer is not None and producer.op.name == "transpose":
        inner = permutation(producer)
        joined = tuple(inner[p] for p in perm)
        new = graph.add("transpose", [producer.input(0)], {"perm": joined}, names=[node.output.name])
        graph.replace(node, new.output)
        return True
    return False


def _rebuild(graph: Graph, node: Node, perm: Perm, attrs: dict[str, Attribute]) -> bool:
    """The op on the source of its (only transposed) operand, with a transpose behind each result."""
    quants = [v.quant for v in node.outputs]
    if any(q is not None and q.axis is not None for q in quants) or not per_tensor(node.input(0)):
        return False
    grid = node.attrs.get("quant")
    if grid is not None and getattr(grid, "axis", None) is not None:
        return False
    operands = [untransposed(graph, node.input(0), perm), *node.inputs[1:]]
    names = [f"{v.name}.pre" for v in node.outputs]
    new = graph.add(node.op.name, operands, attrs, names=names, node_name=node.name, quants=quants)
    transpose_results(graph, node, new, perm)
    return True


def _broadcasting(graph: Graph, node: Node, perm: Perm) -> bool:
    rank = len(perm)
    if node.output.type.rank != rank or not all(v is None or per_tensor(v) for v in node.inputs):
        return False
    if not _worth_moving(node, perm):
        return False
    operands: list[Value] = []
    for value in node.inputs:
        assert value is not None
        if value.type.elements == 1 and node.op.name != "concat" and not is_transposed(value, perm):
            operands.append(value)
            continue
        if value.type.rank < rank:
            lifted = (1,) * (rank - value.type.rank) + value.shape
            if value.is_constant:
                value = graph.constant(value.array.reshape(lifted), value.name, value.quant)
            else:
                value = graph.add("reshape", [value], {"shape": lifted}).output
        operands.append(untransposed(graph, value, perm))
    attrs = dict(node.attrs)
    if node.op.name == "concat":
        axis = attrs["axis"]
        assert isinstance(axis, int)
        attrs["axis"] = perm[axis % rank]
    new = graph.add(
        node.op.name,
        operands,
        attrs,
        names=[f"{node.output.name}.pre"],
        node_name=node.name,
        quants=[node.output.quant],
    )
    transpose_results(graph, node, new, perm)
    return True


def _worth_moving(node: Node, perm: Perm) -> bool:
    """Moving must not create more transposes of large operands than it removes.

    Where both are alike, one of a permutation and its inverse moves (that to planar order), or they would take turns.
    """
    computed = [v for v in node.inputs if v is not None and not v.is_constant and v.type.elements > 1]
    moved = sum(_moved_elements(v, perm) for v in computed if is_transposed(v, perm))
    others = sum(_moved_elements(v, perm) for v in computed if not is_transposed(v, perm))
    return moved > others or (moved == others and perm > inverse(perm))


def _moved_elements(value: Value, perm: Perm) -> int:
    """Elements that change place when `value` is taken before a transpose with `perm`."""
    stays = value.type.rank == len(perm) and moves_nothing(value.shape, inverse(perm))
    return 0 if stays else value.type.elements


def _reduction(graph: Graph, node: Node, perm: Perm) -> bool:
    axes, keep = node.attrs["axes"], node.attrs["keepdims"]
    assert isinstance(axes, tuple)
    rank = len(perm)
    reduced = {int(a) % rank for a in axes} or set(range(rank))
    moved = tuple(sorted(perm[a] for a in reduced))
    new = graph.add(
        node.op.name,
        [untransposed(graph, node.input(0), perm)],
        {**node.attrs, "axes": moved},
        names=[f"{node.output.name}.pre"],
        node_name=node.name,
    )
    if keep:
        transpose_results(graph, node, new, perm)
        return True
    # The axes left are those of perm without the reduced ones, renumbered.
    left_source = [a for a in range(rank) if a not in moved]
    left = tuple(left_source.index(perm[a]) for a in range(rank) if a not in reduced)
    back = graph.add("transpose", [new.output], {"perm": left}, names=[node.output.name])
    graph.replace(node, back.output)
    return True


def _axis(node: Node, perm: Perm) -> dict[str, Attribute]:
    axis = node.attrs["axis"]
    assert isinstance(axis, int)
    return {**node.attrs, "axis": perm[axis % len(perm)]}


def _per_dimension(*names: str) -> Callable[[Node, Perm], dict[str, Attribute]]:
    def permuted(node: Node, perm: Perm) -> dict[str, Attribute]:
        attrs = dict(node.attrs)
        back = inverse(perm)
        for name in names:
            entries = attrs[name]
            assert isinstance(entries, tuple)
            if entries:
                attrs[name] = tuple(entries[a] for a in back)  # type: ignore[assignment]
        return attrs

    return permuted


def _pads(node: Node, perm: Perm) -> dict[str, Attribute]:
    pads = node.attrs["pads"]
    assert isinstance(pads, tuple)
    back, rank = inverse(perm), len(perm)
    moved = tuple(int(pads[a]) for a in back) + tuple(int(pads[rank + a]) for a in back)
    return {**node.attrs, "pads": moved}


# How the attributes of an op change when its operand is taken before the transpose.
_ATTRIBUTES: dict[str, Callable[[Node, Perm], dict[str, Attribute]]] = {
    "softmax": _axis,
    "log_softmax": _axis,
    "split": _axis,
    "slice": _per_dimension("starts", "ends", "steps"),
    "resize": _per_dimension("sizes", "scales"),
    "tile": _per_dimension("repeats"),
    "pad": _pads,
}
