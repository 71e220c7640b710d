"""Alias classes: which values share memory whatever the order of execution (views, pieces of a concat or split)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qcomp.codegen.plan.buffer import NO_HALO, Buffer, Halo, union_halo
from qcomp.codegen.plan.legalize import Legalized
from qcomp.codegen.plan.requirements import VIEW_OPS, KernelOf, activation_values, wanted_halo
from qcomp.ir import Graph, Node, Value

ALIGN = 64


@dataclass
class Storage:
    """One piece of memory and the values in it, each at its byte offset."""

    name: str
    members: dict[Value, int] = field(default_factory=dict)
    halo: Halo = NO_HALO
    fill: int = 0
    external: bool = False
    bytes: int = 0
    strips: set[Value] = field(default_factory=set)
    """Members that are rows of an image with a halo: they have its columns of padding, and none above and below."""
    image: Value | None = None
    """The image that these are rows of."""

    def can_join(self, value: Value, halo: Halo, fill: int) -> bool:
        """Whether `value` may become another name for this memory."""
        joint = union_halo(self.halo, halo)
        if joint == NO_HALO:
            return True
        if self.external or any(v.shape != value.shape for v in self.members):
            return False
        return NO_HALO in (self.halo, halo) or self.fill == fill


class Storages:
    """The alias class of every computed value of a legalized graph."""

    def __init__(self, legal: Legalized, kernel_of: KernelOf, packed: bool = False) -> None:
        """packed: values may lie at any byte of another's memory."""
        self._packed = packed
        self.graph: Graph = legal.graph
        self._of: dict[Value, Storage] = {}
        self._kernel_of = kernel_of
        self.views: set[Node] = set()
        for value in self.graph.inputs:
            self._create(value, external=True)
        for node in self.graph.nodes:
            if node not in legal.copies and self._is_view(node):
                self.views.add(node)
            else:
                for value in node.outputs:
                    self._create(value)
        for value in self.graph.outputs:
            self._of[value].external = True

    def of(self, value: Value) -> Storage:
        return self._of[value]

    @property
    def all(self) -> tuple[Storage, ...]:
        return tuple({id(s): s for s in self._of.values()}.values())

    def offset(self, value: Value) -> int:
        return self._of[value].members[value]

    def buffer(self, value: Value) -> Buffer:
        storage = self._of[value]
        halo = storage.halo
        if value in storage.strips:
            halo = (0, halo[1], 0, halo[3])
        return Buffer(value.dtype, value.shape, halo, storage.external)

    def _wish(self, value: Value) -> tuple[Halo, int]:
        halo, fill = NO_HALO, 0
        for _, wish, wanted in wanted_halo(self.graph, value, self._kernel_of):
            halo, fill = union_halo(halo, wish), wanted
        return halo, fill

    def _create(self, value: Value, *, external: bool = False) -> Storage:
        halo, fill = self._wish(value)
        assert not (external and halo != NO_HALO), value
        storage = Storage(value.name, {value: 0}, halo, fill, external)
        storage.bytes = Buffer(value.dtype, value.shape, halo).bytes
        self._of[value] = storage
        return storage

    def _is_view(self, node: Node) -> bool:
        """Places the results of a node in memory that exists already, if that can be."""
        if node.op.name in VIEW_OPS:
            return self._view(node)
        if node.op.name == "concat":
            return self._gather(node)
        return node.op.name in ("split", "slice") and self._scatter(node)

    def _view(self, node: Node) -> bool:
        operands = activation_values(node)
        if not operands:
            return False
        storage, value = self._of[operands[0]], node.output
        halo, fill = self._wish(value)
        if not storage.can_join(value, halo, fill):
            return False
        if halo != NO_HALO:
            storage.fill = fill
        storage.halo = union_halo(storage.halo, halo)
        storage.members[value] = storage.members[operands[0]]
        storage.bytes = max(storage.bytes, Buffer(value.dtype, value.shape, storage.halo).bytes)
        self._of[value] = storage
        return True

    def _outermost(self, shape: tuple[int, ...], axis: int) -> bool:
        return all(d == 1 for d in shape[:axis])

    def _gather(self, node: Node) -> bool:
        """Concat whose pieces lie one after the other: their producers write into the result."""
        axis = node.attrs["axis"]
        assert isinstance(axis, int)
        result, pieces = node.output, activation_values(node)
        if not self._outermost(result.shape, axis) or len(set(pieces)) != len(node.inputs):
            return False
        if self.graph.is_output(result):
            return False
        parts = [self._of[v] for v in pieces]
        distinct = len({id(s) for s in parts}) == len(parts)
        if not distinct or any(s.external or s.halo != NO_HALO or len(s.members) != 1 for s in parts):
            return False
        if any(self.graph.is_output(v) for v in pieces):
            return False
        if self._wish(result)[0] != NO_HALO:
            return self._stack(result, pieces, axis)
        if not self._packed and any(v.type.bytes % ALIGN for v in pieces):
            return False
        whole = self._create(result)
        offset = 0
        for piece in pieces:
            whole.members[piece] = offset
            self._of[piece] = whole
            offset += piece.type.bytes
        return True

    def _stack(self, result: Value, pieces: Sequence[Value], axis: int) -> bool:
        """Rows of an image with a halo: their producers write between its columns of padding."""
        if not self._packed or axis != 1 or result.type.rank != 4 or any(len(self.graph.users(v)) != 1 for v in pieces):
            return False
        whole = self._create(result)
        whole.image = result
        size = result.dtype.numpy.itemsize
        stride = Buffer(result.dtype, result.shape, whole.halo).row_stride * size
        row = whole.halo[0]
        for piece in pieces:
            whole.members[piece] = row * stride
            whole.strips.add(piece)
            self._of[piece] = whole
            row += piece.shape[1]
        return True

    def _scatter(self, node: Node) -> bool:
        """Split or slice into contiguous pieces: each result is a view of the operand."""
        operands = activation_values(node)
        if not operands:
            return False
        source = operands[0]
        storage = self._of[source]
        starts = _piece_starts(node, source)
        if starts is None or storage.external or storage.halo != NO_HALO:
            return False
        size = source.dtype.numpy.itemsize
        for value, start in zip(node.outputs, starts, strict=True):
            if self.graph.is_output(value) or (start * size) % ALIGN or self._wish(value)[0] != NO_HALO:
                return False
        for value, start in zip(node.outputs, starts, strict=True):
            storage.members[value] = storage.members[source] + start * size
            self._of[value] = storage
        return True


def _piece_starts(node: Node, source: Value) -> list[int] | None:
    """Element offset of each result in the operand, or None when a result is not contiguous there."""
    attrs: Mapping[str, object] = node.attrs
    inner = 1
    if node.op.name == "split":
        axis, sizes = attrs["axis"], attrs["sizes"]
        assert isinstance(axis, int) and isinstance(sizes, tuple)
        if any(d != 1 for d in source.shape[:axis]):
            return None
        for extent in source.shape[axis + 1 :]:
            inner *= extent
        return [sum(sizes[:i]) * inner for i in range(len(sizes))]
    starts, steps = attrs["starts"], attrs["steps"]
    assert isinstance(starts, tuple) and isinstance(steps, tuple)
    shape = node.output.shape
    if any(step != 1 and size > 1 for step, size in zip(steps, shape, strict=True)):
        return None
    offset, partial = 0, False
    for start, size, extent in zip(reversed(starts), reversed(shape), reversed(source.shape), strict=True):
        if partial and size != 1:
            return None
        partial = partial or size != extent
        offset += start * inner
        inner *= extent
    return [offset]
