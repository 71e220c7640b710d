"""Merges runs of arithmetic with constants, and moves them into the products before and after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.affine import PRODUCTS, Affine, fold_after, fold_before, foldable_product, joins_units, read_affine
from qcomp.passes.base import NodeRewrite, may_become
from qcomp.passes.matching import float32, sole_producer, uniform

_ARITHMETIC = ("add", "sub", "mul", "div", "neg")


@dataclass(frozen=True)
class FoldAffineChains(NodeRewrite):
    """Folds arithmetic with constants into neighbouring products; what stays becomes one mul and one add.

    A scale before a padded product is folded, a shift is not (zero padding would have to be shifted too).  What gives
    the channels of a graph input one unit stays before the product: one int8 grid cannot hold centimetres beside
    kilometres, so it has to come after that.

    before:
        %c: f32[1,8,4,4] = conv2d(%x, %w, %b)
        %m: f32[1,8,4,4] = mul(%c, %two)
        %y: f32[1,8,4,4] = add(%m, %one)
    after:
        %y: f32[1,8,4,4] = conv2d(%x, %w.1, %b.1)
    """

    name = "fold-affine-chains"
    exact = False
    tolerance = 1e-4
    ops = frozenset({*_ARITHMETIC, *PRODUCTS})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        if node.op.name in PRODUCTS:
            return _fold_operand(graph, node)
        affine = read_affine(node)
        if affine is None:
            return False
        product = sole_producer(graph, affine.x, *PRODUCTS)
        if product is not None and foldable_product(product):
            fused = fold_after(graph, product, affine)
            if fused is not None:
                graph.replace(node, fused.output)
                return True
        return _merge(graph, node, affine)


def _fold_operand(graph: Graph, product: Node) -> bool:
    """x·scale (+ shift) into the product that uses it; other users keep theirs."""
    source = product.input(0).producer
    if source is None or source.op.name not in _ARITHMETIC or not foldable_product(product):
        return False
    affine = read_affine(source)
    if affine is None or graph.sole_user(product.input(0)) is None or joins_units(graph, source):
        return False
    fused = fold_before(graph, product, affine)
    if fused is None:
        return False
    graph.replace(product, fused.output)
    return True


def _merge(graph: Graph, node: Node, outer: Affine) -> bool:
    """Joins the node with the arithmetic before it; the normal form of a run is a mul, then an add."""
    source = sole_producer(graph, outer.x, *_ARITHMETIC)
    inner = read_affine(source) if source is not None else None
    compact = all(v.type.elements == 1 or uniform(v) is None for v in node.inputs if v is not None and v.is_constant)
    normal = node.op.name == "mul" or node.op.name == "add"
    if inner is None or (source is not None and source.op.name == "mul" and node.op.name == "add"):
        return False if normal and compact else _rewritten(graph, node, outer)
    scale, shift = inner.scale * outer.scale, inner.shift * outer.scale + outer.shift
    if np.broadcast_shapes(scale.shape, shift.shape, inner.x.shape) != inner.x.shape:
        return False
    return _rewritten(graph, node, Affine(inner.x, scale, shift))


def _rewritten(graph: Graph, node: Node, affine: Affine) -> bool:
    """Replaces the node by affine.x · scale + shift, leaving out what does nothing."""
    scale, shift = _compact(affine.scale), _compact(affine.shift)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return False
    value: Value = affine.x
    steps = [s for s in (("mul", scale, 1.0), ("add", shift, 0.0)) if (s[1] != s[2]).any()]
    if not steps and not may_become(graph, node.output, value):
        return False
    for op, array, _ in steps:
        constant = graph.constant(array, f"{node.name}.{'scale' if op == 'mul' else 'shift'}")
        label = node.name if op == steps[-1][0] else f"{node.name}.scaled"
        value = graph.add(op, [value, constant], names=[label], node_name=label).output
    graph.replace(node, value)
    return True


def _compact(array: np.ndarray) -> np.ndarray:
    """As float32; one number where all elements are equal."""
    rounded = float32(array)
    if rounded.size and (rounded == rounded.reshape(-1)[0]).all():
        return rounded.reshape(-1)[:1].reshape(())
    return rounded
