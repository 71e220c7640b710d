"""Rounds multipliers of products to half precision times a power of two: two bytes a channel less."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.ir.graph import Graph, Node
from qcomp.ir.halves import from_halves, to_halves
from qcomp.ir.types import DType
from qcomp.passes.base import Pass
from qcomp.passes.matching import plain_name

_OPERAND = {"qconv2d": 3, "qconv_transpose2d": 3, "qgemm": 3}
#: Half of a half's last bit.
_ROUNDING = 2.0**-11


@dataclass(frozen=True)
class ShortenMultipliers(Pass):
    """Rounds the multipliers of convolutions and matrix products to 11 bits where qcomp chose the scales itself.

    A result moves by 2**-11 of itself at most, a sixteenth of a step of int8, before it is rounded, and kernels that
    store such multipliers as halves take two bytes a channel less.  A node with channels that are too far apart
    for one power of two keeps what it has, and so do int16 results, which are finer than that, and models that come
    quantized: their integers are given.

    before:
        const %mult: f32[2] = [0.10001, 0.02]
        %y: i8[1,2] = qgemm(%x, %w, %bias, %mult)
    after:
        const %mult.1: f32[2] = [0.10003662109375, 0.0200042724609375]
        %y: i8[1,2] = qgemm(%x, %w, %bias, %mult.1)
    """

    name: ClassVar[str] = "shorten-multipliers"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = math.inf

    def run(self, graph: Graph) -> Graph:
        for node in graph.nodes:
            if node.op.name in _OPERAND and node.output.dtype is not DType.I16:
                _shorten(graph, node, _OPERAND[node.op.name])
        graph.prune()
        return graph


def _shorten(graph: Graph, node: Node, index: int) -> None:
    mult = node.input(index)
    if not mult.is_constant:
        return
    exact = mult.array
    rounded = from_halves(*to_halves(exact))
    if np.all(np.abs(rounded - exact) <= _ROUNDING * np.abs(exact)) and not np.array_equal(rounded, exact):
        graph.set_input(node, index, graph.constant(rounded, plain_name(mult)))
