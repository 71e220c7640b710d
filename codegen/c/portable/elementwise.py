"""Elementwise kernels: a row names the op and how one result element follows from the operands' elements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest, activations
from qcomp.codegen.c.portable.code import Operands, Source
from qcomp.codegen.c.portable.nest import broadcast_strides, nest
from qcomp.codegen.c.render import CTYPES
from qcomp.ir import DType, Node


@dataclass
class Walk:
    """What a row builds: operands to walk (name, source, strides), C lines that set @y, helpers, cost."""

    operands: Operands
    walked: list[tuple[str, Source, tuple[int, ...]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    prologue: list[str] = field(default_factory=list)
    helpers: list[CFunction] = field(default_factory=list)
    work: float = 1.0

    @property
    def rank(self) -> int:
        return len(self.operands.request.outputs[0].shape)

    def read(self, index: int, name: str, perm: tuple[int, ...] = ()) -> Source:
        """Walks operand `index` with numpy broadcasting, under a name for the lines; its dimensions in order `perm`."""
        source = self.operands.source(index)
        strides = broadcast_strides(source, self.rank)
        self.walked.append((name, source, tuple(strides[axis] for axis in perm) if perm else strides))
        return source


    def along(self, name: str, array: np.ndarray, axis: int) -> None:
        """Walks a one-dimensional constant along one axis of the result."""
        dtype = DType.of(array.dtype)
        source = Source(self.operands.constant(array), CTYPES[dtype], dtype, array.shape, (1,))
        self.walked.append((name, source, tuple(1 if dim == axis else 0 for dim in range(self.rank))))


class Elementwise(Kernel):
    """Base of kernels that compute every result element from operand elements at the same (broadcast) position."""

    def in_place(self, node: Node) -> tuple[int, ...]:
        shape, dtype = node.output.shape, node.output.dtype
        values = [node.input(i) for i in activations(node)]
        return tuple(p for p, v in enumerate(values) if v.shape == shape and v.dtype is dtype)

    @abstractmethod
    def build(self, node: Node, walk: Walk) -> None:
        """Fills in the walk."""

    def generate(self, request: KernelRequest) -> KernelCode:
        walk = Walk(Operands(request))
        self.build(request.node, walk)
        result = walk.operands.result()
        rows: Sequence[tuple[str, Source, bool]] = [
            *((name, source, False) for name, source, _ in walk.walked),
            ("y", result, True),
        ]
        text, tasks = nest(
            request.symbol,
            result.shape,
            rows,
            [*(strides for _, _, strides in walk.walked), result.strides],
            walk.lines,
            prologue=walk.prologue,
            work=walk.work,
            in_place=bool(self.in_place(request.node)),
        )
        return KernelCode(
            tuple(walk.helpers), text, tasks, tuple(walk.operands.constants), f"portable_{self.name}"
        )
