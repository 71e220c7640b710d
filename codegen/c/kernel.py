"""The contract between the emitter and the kernels: where operands live, what a kernel is asked for and returns."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcomp.codegen.plan.buffer import NO_HALO, Buffer, Halo
from qcomp.errors import QcompError
from qcomp.ir import Node
from qcomp.targets.loader import Target

__all__ = [
    "NO_HALO", "Buffer", "CFunction", "Halo", "Kernel", "KernelCode", "KernelRequest", "KernelTable", "generated",
]  # fmt: skip


@dataclass(frozen=True)
class KernelRequest:
    """One node to generate code for.

    `inputs` holds a buffer for every operand that is neither absent nor constant, in operand order; constants are
    read from the node and returned packed in `KernelCode.constants`.
    """

    node: Node
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    target: Target
    symbol: str
    schedule: str = ""
    """One of the kernel's `schedules` for this node; empty for its own choice."""

    @property
    def stored_offset(self) -> int:
        """What is added to a logical i8 value to get the stored one: 128 for u8 storage, else 0."""
        return self.target.stored_offset


_STATIC = "static __attribute__((noinline)) "
_LINKABLE = re.compile(r"(?:/\*.*?\*/\s*)?" + re.escape(_STATIC) + r"(void (\w+)\([^{]*\)) \{", re.DOTALL)


@dataclass(frozen=True)
class CFunction:
    """A shared C definition (function, type or table), emitted once per name in each file that needs it.

    A text that is one `static __attribute__((noinline)) void` function is emitted once in all: other files see its
    prototype.  assembly: the definition in assembler text, if the text is only the prototype.
    """

    name: str
    text: str
    assembly: str = field(default="", repr=False)

    @property
    def signature(self) -> str | None:
        """`void NAME(...)` of a function that can be defined in one file and called from all; else None."""
        match = _LINKABLE.match(self.text)
        return match[1] if match and match[2] == self.name else None

    @property
    def definition(self) -> str:
        """The function without `static`, so that other files can call it."""
        return self.text.replace(_STATIC, "", 1)


@dataclass(frozen=True)
class KernelCode:
    """C of one node: `static void SYMBOL(void* const* p, int32_t task)`.

    p holds the inputs, the outputs (both at their first interior element), then the constants (64-byte aligned).
    Tasks 0..tasks-1 may run in any order, concurrently.  `text` may define more names if they start with SYMBOL.
    whole: task -1 does the work of all.
    """

    helpers: tuple[CFunction, ...]
    text: str
    tasks: int
    constants: tuple[np.ndarray, ...]
    kernel: str
    whole: bool = False


#: Times in nanoseconds of schedules, of which infinity says that one cannot be built.
Measure = Callable[[Sequence[str]], Sequence[float]]


class Kernel(ABC):
    """A row of the kernel table.

    `requires` lists ISA features of the target.  A kernel may read up to 64 bytes past the end of an arena buffer
    (never of an external one) and writes its own output elements only.
    """

    name: str
    op: str
    requires: frozenset[str] = frozenset()
    family: str = ""
    """Kernels of one family share C functions; those of two cannot stand in for each other in a program."""
    fixed: bool = False
    """Whether `generate` follows the node's attribute `fixed`: results rounded in fixed point."""
    scheduled: bool = False
    """Whether `generate` follows `KernelRequest.schedule`."""
    standalone: bool = False
    """Whether it shares no C functions with others, so that it can stand in for a kernel of any family."""

    def supports(self, node: Node, target: Target) -> bool:
        """Whether this kernel can execute the node on the target."""
        return True

    def explore(self, request: KernelRequest, most: int, measure: Measure) -> list[str] | None:
        """Up to `most` schedules, the fastest first, of a search that measures as it goes; None where there is no
        search, and `schedules` are to be tried one by one."""
        return None

    def schedules(self, request: KernelRequest) -> tuple[str, ...]:
        """Ways to compute the node that `qcomp tune` may choose from, each once, the most promising first.

        Readable texts that `KernelRequest.schedule` takes; all give the same integers. The empty one comes first.
        """
        return ("",)

    def form(self, node: Node) -> str:
        """What of the constants decides which code and schedules there are, for the name of a layer in tuning files:
        one word or more, without anything that differs between layers which are computed alike."""
        return ""

    def halo(self, node: Node) -> tuple[Halo, ...]:
        """Padding that each input in `KernelRequest.inputs` must carry."""
        return tuple(NO_HALO for _ in activations(node))

    def halo_fill(self, node: Node) -> int:
        """Logical value of that padding: by default the input's zero point (attribute x_zp)."""
        value = node.attrs.get("x_zp", 0)
        assert isinstance(value, int)
        return value

    def in_place(self, node: Node) -> tuple[int, ...]:
        """Positions in `KernelRequest.inputs` whose memory output 0 may take over.

        Only for kernels that read element i of such an input before they write element i of the output, and
        not after; the planner makes sure that both buffers have one layout.
        """
        return ()

    def lead(self, node: Node, x: Buffer, y: Buffer) -> int | None:
        """By how many bytes the first element of result 0 must lie before that of input 0 at least, so that tasks which
        run in order never write over what they or later ones read; None where that is not known.

        Only that input may be overlapped.
        """
        return None

    @abstractmethod
    def generate(self, request: KernelRequest) -> KernelCode:
        """The code; QcompError when a constant rules it out (for example a bias that overflows)."""


def generated(kernel: Kernel, request: KernelRequest) -> KernelCode:
    """The kernel's code for the request; QcompError for a schedule that it does not have."""
    if request.schedule and not kernel.scheduled:
        raise QcompError(
            f"kernel {kernel.name} has no schedule {request.schedule!r}",
            where=f"node {request.node.name!r}", fix="run `qcomp tune` again",
        )  # fmt: skip
    try:
        return kernel.generate(request)
    except QcompError as error:
        if not request.schedule:
            raise
        raise QcompError(str(error), where=f"node {request.node.name!r}") from None


def activations(node: Node) -> tuple[int, ...]:
    """Operand indices that are neither absent nor constant, in order."""
    return tuple(i for i, v in enumerate(node.inputs) if v is not None and not v.is_constant)


@dataclass(frozen=True)
class KernelTable:
    """Kernels in order of preference."""

    kernels: tuple[Kernel, ...]
    _by_op: dict[str, tuple[Kernel, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows: dict[str, list[Kernel]] = {}
        for kernel in self.kernels:
            rows.setdefault(kernel.op, []).append(kernel)
        object.__setattr__(self, "_by_op", {op: tuple(found) for op, found in rows.items()})

    def fitting(self, node: Node, target: Target) -> Iterator[Kernel]:
        """Kernels whose op, features and `supports` fit, in order of preference."""
        for kernel in self._by_op.get(node.op.name, ()):
            arithmetic = kernel.fixed or not node.attrs.get("fixed", False)
            if arithmetic and kernel.requires <= target.features and kernel.supports(node, target):
                yield kernel

    def find(self, node: Node, target: Target) -> Kernel | None:
        """The first kernel whose op, features and `supports` fit; None when there is none."""
        return next(self.fitting(node, target), None)

    def alternatives(self, node: Node, target: Target) -> tuple[Kernel, ...]:
        """The kernel that `find` gives and those that can stand in for it and fit, one of each name, in order of
        preference."""
        fitting = list(self.fitting(node, target))
        named: dict[str, Kernel] = {}
        for kernel in fitting:
            if kernel.standalone or kernel.family == fitting[0].family:
                named.setdefault(kernel.name, kernel)
        return tuple(named.values())

    def named(self, name: str, node: Node, target: Target) -> Kernel:
        """The kernel of that name among the `alternatives`; QcompError when there is none."""
        for kernel in self.alternatives(node, target):
            if kernel.name == name:
                return kernel
        raise QcompError(
            f"no kernel {name!r} of target {target.name} computes this {node.op.name}",
            where=f"node {node.name!r}", fix="compile with the back end that was tuned, or run `qcomp tune` again",
        )  # fmt: skip

    def select(self, node: Node, target: Target) -> Kernel:
        """As `find`; QcompError when the target has no kernel for the node."""
        kernel = self.find(node, target)
        if kernel is None:
            raise QcompError(
                f"target {target.name} has no kernel for op {node.op.name}",
                where=f"node {node.name!r}",
                fix="see `qcomp check` for the ops a target runs",
            )
        return kernel

    def ops(self) -> Iterable[str]:
        return sorted(self._by_op)
