"""From a graph and a target to steps with their code: kernels chosen, memory planned, constants packed."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.c.constants import Blob
from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest, KernelTable
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.plan import MemoryPlan, Step, make_plan
from qcomp.errors import QcompError
from qcomp.ir import Graph, Node
from qcomp.targets import Target

#: Stands in generated text for the name that a step's function gets when all are known.
PLACEHOLDER = "QcompKernelSymbol"
_MOST_ELEMENTS = 1 << 30

Function = tuple[str, tuple[CFunction, ...]]  # a step's text, and the helpers that it needs


@dataclass(frozen=True)
class Built:
    """A step with its code: which function of which unit, and where its constants are."""

    step: Step
    code: KernelCode
    function: int
    constants: tuple[int, ...]


@dataclass(frozen=True)
class Lowered:
    """A graph as steps of one target: everything but the text of the files. Its constants are in a blob."""

    graph: Graph
    target: Target
    plan: MemoryPlan
    steps: list[Built]
    functions: list[Function]


def lower(graph: Graph, target: Target, blob: Blob, table: KernelTable | None = None) -> Lowered:
    """Kernels, memory plan and code of a graph's steps; their constants are added to `blob`."""
    table = table or kernel_table()
    chosen: dict[str, Kernel] = {}

    def kernel_of(node: Node) -> Kernel:
        key = node.outputs[0].name  # unique in the graph and in the planner's copy of it; node names are not
        if key not in chosen:
            chosen[key] = table.select(node, target)
        return chosen[key]

    plan = make_plan(graph, kernel_of, converts_i8=target.stored_offset != 0)
    for step in plan.steps:
        for operand in (*step.inputs, *step.outputs):
            if operand.buffer.elements >= _MOST_ELEMENTS:
                raise QcompError(
                    f"the tensor has {operand.buffer.elements} elements, more than 32-bit indices reach",
                    where=f"%{operand.name}", fix="make the model's inputs smaller",
                )  # fmt: skip
    functions: dict[Function, int] = {}
    built = [_build(step, kernel_of(step.node), target, blob, functions) for step in plan.steps]
    return Lowered(graph, target, plan, built, list(functions))


def _build(
    step: Step,
    kernel: Kernel,
    target: Target,
    blob: Blob,
    functions: dict[Function, int],
) -> Built:
    request = KernelRequest(
        step.node,
        tuple(o.buffer for o in step.inputs),
        tuple(o.buffer for o in step.outputs),
        target,
        PLACEHOLDER,
    )
    code = kernel.generate(request)
    # Layers of one shape share one function: what differs between them is behind the pointers.
    function = functions.setdefault((code.text, code.helpers), len(functions))
    return Built(step, code, function, tuple(blob.add(c) for c in code.constants))
