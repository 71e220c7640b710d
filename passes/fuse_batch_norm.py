"""Removes inference batch normalization."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node
from qcomp.passes.affine import PRODUCTS, fold_after, foldable_product, read_affine
from qcomp.passes.base import NodeRewrite
from qcomp.passes.matching import float32, sole_producer


@dataclass(frozen=True)
class FuseBatchNorm(NodeRewrite):
    """Folds a batch_norm of constants into the product before it; one that stands alone becomes a mul and an add.

    before:
        %c: f32[1,8,4,4] = conv2d(%x, %w, %b)
        %y: f32[1,8,4,4] = batch_norm(%c, %scale, %bias, %mean, %var)
    after:
        %y: f32[1,8,4,4] = conv2d(%x, %w.1, %b.1)
    """

    name = "fuse-batch-norm"
    exact = False
    tolerance = 1e-4
    ops = frozenset({"batch_norm"})

    def rewrite(self, graph: Graph, node: Node) -> bool:
        affine = read_affine(node)
        if affine is None:
            return False
        product = sole_producer(graph, affine.x, *PRODUCTS)
        if product is not None and foldable_product(product):
            fused = fold_after(graph, product, affine)
            if fused is not None:
                graph.replace(node, fused.output)
                return True
        scale = graph.constant(float32(affine.scale), f"{node.name}.scale")
        shift = graph.constant(float32(affine.shift), f"{node.name}.shift")
        scaled = graph.add("mul", [affine.x, scale], names=[f"{node.name}.scaled"])
        graph.replace(node, graph.add("add", [scaled.output, shift], node_name=node.name).output)
        return True
