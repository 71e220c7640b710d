"""From a graph and a target to steps with their code: kernels chosen, memory planned, constants packed."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.c.constants import Blob
from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest, KernelTable, generated
from qcomp.codegen.c.package import Tuned
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.plan import MemoryPlan, Step, make_plan
from qcomp.codegen.plan.buffer import Buffer
from qcomp.codegen.tune.file import Tuning
from qcomp.codegen.tune.layers import is_tunable, layer_name
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
    tuned: Tuned | None = None


def lower(
    graph: Graph, target: Target, blob: Blob, table: KernelTable | None = None, tuning: Tuning | None = None
) -> Lowered:
    """Kernels, memory plan and code of a graph's steps; their constants are added to `blob`."""
    table = table or kernel_table()
    chosen: dict[str, Kernel] = {}
    plan = _planned(graph, target, table, chosen)
    schedules: dict[str, str] = {}
    tuned = None
    if tuning is not None:
        tuning.check(target.name)
        before = dict(chosen)
        tuned = _follow(tuning, plan, target, table, chosen, schedules)
        if chosen != before:
            default, plan = plan, _planned(graph, target, table, chosen)
            _drop_moved(schedules, default, plan)
    for step in plan.steps:
        for operand in (*step.inputs, *step.outputs):
            if operand.buffer.elements >= _MOST_ELEMENTS:
                raise QcompError(
                    f"the tensor has {operand.buffer.elements} elements, more than 32-bit indices reach",
                    where=f"%{operand.name}", fix="make the model's inputs smaller",
                )  # fmt: skip
    functions: dict[Function, int] = {}
    built = [
        _build(step, chosen[_key(step.node)], schedules.get(_key(step.node), ""), target, blob, functions)
        for step in plan.steps
    ]
    return Lowered(graph, target, plan, built, list(functions), tuned)


def plan_of(graph: Graph, target: Target, table: KernelTable | None = None) -> MemoryPlan:
    """The memory plan that `lower` makes without a tuning."""
    return _planned(graph, target, table or kernel_table(), {})


def _planned(graph: Graph, target: Target, table: KernelTable, chosen: dict[str, Kernel]) -> MemoryPlan:
    """The plan with the kernels that are chosen, by `_key`; where one is not yet, the table's choice joins them."""

    def kernel_of(node: Node) -> Kernel:
        key = _key(node)
        if key not in chosen:
            chosen[key] = table.select(node, target)
        return chosen[key]

    return make_plan(graph, kernel_of, converts_i8=target.stored_offset != 0, sequential=target.bare_metal)


def _key(node: Node) -> str:
    """Unique in the graph and in the planner's copy of it; node names are not."""
    return node.outputs[0].name


def _follow(
    tuning: Tuning,
    plan: MemoryPlan,
    target: Target,
    table: KernelTable,
    chosen: dict[str, Kernel],
    schedules: dict[str, str],
) -> Tuned:
    """Puts what the tuning says of the plan's layers in `chosen` and `schedules`, by `_key`."""
    layers = [step for step in plan.steps if is_tunable(step.node, target, table)]
    found = changed = 0
    for step in layers:
        key = _key(step.node)
        choice = tuning.layers.get(layer_name(step, chosen[key]))
        if choice is None:
            continue
        kernel = table.named(choice.kernel, step.node, target)
        found += 1
        changed += kernel is not chosen[key] or choice.schedule != ""
        chosen[key], schedules[key] = kernel, choice.schedule
    return Tuned(len(layers), found, changed)


def _drop_moved(schedules: dict[str, str], default: MemoryPlan, plan: MemoryPlan) -> None:
    """Takes out schedules of steps whose buffers other kernels have changed: they were measured with those as were."""

    def buffers(step: Step) -> tuple[Buffer, ...]:
        return tuple(operand.buffer for operand in (*step.inputs, *step.outputs))

    before = {_key(step.node): buffers(step) for step in default.steps}
    for step in plan.steps:
        if before.get(_key(step.node)) != buffers(step):
            schedules.pop(_key(step.node), None)


def _build(
    step: Step,
    kernel: Kernel,
    schedule: str,
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
        schedule,
    )
    code = generated(kernel, request)
    # Layers of one shape share one function: what differs between them is behind the pointers.
    function = functions.setdefault((code.text, code.helpers), len(functions))
    return Built(step, code, function, tuple(blob.add(c) for c in code.constants))
