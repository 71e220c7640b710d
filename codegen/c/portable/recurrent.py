"""Recurrent layers: the state times its weights, and the gates, a block of units at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import ROUND, Operands, render
from qcomp.codegen.c.portable.dynamic import QUANTIZE_ROW
from qcomp.codegen.c.portable.fixed_math import helpers_for
from qcomp.codegen.c.portable.products import constant_operands
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node
from qcomp.targets import Target

#: Units that a block computes together.
BLOCK = 16


def by_block(array: np.ndarray, gates: int) -> np.ndarray:
    """[gates * H, ...] -> [ceil(H / BLOCK), ..., gates, BLOCK], padded with zeros."""
    hidden = array.shape[0] // gates
    split_up = array.reshape(gates, hidden, *array.shape[1:])
    pads = [(0, 0), (0, -hidden % BLOCK)] + [(0, 0)] * (array.ndim - 1)
    blocks = np.pad(split_up, pads).reshape(gates, -1, BLOCK, *array.shape[1:])
    return np.ascontiguousarray(np.moveaxis(blocks, (1, 0, 2), (0, -2, -1)))


@dataclass(frozen=True)
class Product:
    """The products of a state with the weights of some gates: pointers to what is packed by block, and its bytes.

    sums and scales are those of int8 weights, else empty; the last of `functions` multiplies a block, where loops
    do not."""

    gates: int
    w: str
    block_size: int
    sums: str = ""
    scales: str = ""
    functions: tuple[CFunction, ...] = ()

    @property
    def function(self) -> str:
        return self.functions[-1].name if self.functions else ""


class Recurrent(Kernel):
    """Tasks are rows of the batch: the steps of a row follow each other."""

    gates: int
    states: tuple[int, ...]

    def supports(self, node: Node, target: Target) -> bool:
        return constant_operands(node, (1, 4))

    def products(self, operands: Operands, node: Node, hidden: int) -> tuple[Product, ...]:
        raise NotImplementedError

    def packed(self, weights: np.ndarray, gates: int) -> tuple[np.ndarray, tuple[CFunction, ...]]:
        """Weights [gates * H, H] by block, and functions, the last of which multiplies a block with a state."""
        return by_block(weights, gates), ()

    def product(self, operands: Operands, node: Node, rows: slice, gates: int) -> Product:
        """Packs the weights of some gates, rows of the operand r."""
        weights = node.input(1).array[rows]
        blocks, functions = self.packed(weights, gates)
        w = operands.constant(blocks)
        if weights.dtype != np.int8:
            return Product(gates, w, blocks[0].size)
        sums = weights.astype(np.int64).sum(axis=1).astype(np.int32)
        added, scales = (operands.constant(by_block(a, gates)) for a in (sums, node.input(4).array[rows]))
        return Product(gates, w, blocks[0].size, added, scales, functions)

    def generate(self, request: KernelRequest) -> KernelCode:
        operands, node = Operands(request), request.node
        steps, batch, hidden = node.outputs[0].shape
        integer = node.input(1).dtype is DType.I8
        products = self.products(operands, node, hidden)
        zeros = operands.constant(np.zeros(hidden, np.float32))
        initial = [operands.source(i).pointer if operands.present(i) else "" for i in self.states]
        grid = node.call.float("state_scale")
        parts = split(batch, steps * hidden * hidden * self.gates / 8)
        text = render(
            f"{self.op}.c.j2",
            symbol=request.symbol, x=operands.source(0).pointer, results=[
                operands.result(i).pointer for i in range(len(node.outputs))
            ], products=products, initial=initial, zeros=zeros, parts=parts, steps=steps, batch=batch, hidden=hidden,
            dwords=-(-hidden // 4), lanes=BLOCK, blocks=-(-hidden // BLOCK), gates=self.gates, integer=integer,
            state_scale=float_literal(grid) if grid else "", reverse=node.call.bool("reverse"),
            **self.values(operands, node),
        )  # fmt: skip
        helpers: tuple[CFunction, ...] = (ROUND, QUANTIZE_ROW) if integer else ()
        helpers += tuple(dict.fromkeys(f for p in products for f in p.functions))
        kernel = f"{self.name if self.family else f'portable_{self.name}'}{'_int8' if integer else ''}"
        return KernelCode((*helpers, *helpers_for(text)), text, parts.count, tuple(operands.constants), kernel)

    def values(self, operands: Operands, node: Node) -> dict[str, object]:
        return {}


class Lstm(Recurrent):
    name, op, gates, states = "lstm", "lstm", 4, (2, 3)

    def products(self, operands: Operands, node: Node, hidden: int) -> tuple[Product, ...]:
        return (self.product(operands, node, slice(None), 4),)


class Gru(Recurrent):
    name, op, gates, states = "gru", "gru", 3, (3,)

    def products(self, operands: Operands, node: Node, hidden: int) -> tuple[Product, ...]:
        if node.call.bool("linear_before_reset"):
            return (self.product(operands, node, slice(None), 3),)
        both = 2 * hidden
        return self.product(operands, node, slice(both), 2), self.product(operands, node, slice(both, None), 1)

    def values(self, operands: Operands, node: Node) -> dict[str, object]:
        return {
            "linear": node.call.bool("linear_before_reset"),
            "bias": operands.source(2).pointer if operands.present(2) else "",
        }


RECURRENT: tuple[Kernel, ...] = (Lstm(), Gru())
