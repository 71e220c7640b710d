"""transpose → reshape becomes reshape → transpose where the reshape splits or merges whole runs of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qcomp.ir.graph import Graph, Node
from qcomp.passes.permutations import inverse, per_tensor, permutation


def move_past_reshape(graph: Graph, node: Node) -> bool:
    """transpose -> reshape becomes reshape -> transpose where the reshape splits or merges whole runs of axes."""
    x = node.input(0)
    producer = x.producer
    if producer is None:
        return False
    if producer.op.name == "reshape" and per_tensor(x):
        new = graph.add("reshape", [producer.input(0)], dict(node.attrs), names=[node.output.name])
        graph.replace(node, new.output)
        return True
    if producer.op.name != "transpose" or not per_tensor(x):
        return False
    perm, source = permutation(producer), producer.input(0)
    groups = match_axes(x.shape, node.output.shape)
    if groups is None:
        return False
    # Group g takes the axes `olds` of x to the axes `news` of the result; in the source the same axes must be
    # neighbours in the same order, so that the same split or merge works there.
    blocks: list[tuple[list[int], list[int]]] = []
    for olds, news in groups:
        origin = [perm[a] for a in olds]
        moving = [a for a in origin if source.shape[a] != 1]
        if moving and moving != list(range(moving[0], moving[0] + len(moving))):
            return False
        blocks.append((moving or origin, news))
    order = sorted(range(len(blocks)), key=lambda g: blocks[g][0][0] if blocks[g][0] else -1)
    new_axes = [a for g in order for a in blocks[g][1]]
    shape = tuple(node.output.shape[a] for a in new_axes)
    if tuple(new_axes) == tuple(range(len(new_axes))):
        new = graph.add("reshape", [source], {"shape": shape}, names=[node.output.name])
        graph.replace(node, new.output)
        return True
    flat = graph.add("reshape", [source], {"shape": shape})
    new = graph.add("transpose", [flat.output], {"perm": inverse(new_axes)}, names=[node.output.name])
    graph.replace(node, new.output)
    return True


def match_axes(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Splits a reshape into the smallest groups of old axes that become groups of new axes; None for empty tensors."""
    if math.prod(old) == 0:
        return None
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        olds, news, left, right = [i], [j], old[i], new[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left *= old[i]
                olds.append(i)
                i += 1
            else:
                right *= new[j]
                news.append(j)
                j += 1
        groups.append((olds, news))
    if not groups:
        return None
    # What is left over are axes of size 1: they belong to the last group.
    groups[-1][0].extend(range(i, len(old)))
    groups[-1][1].extend(range(j, len(new)))
    return groups
