"""Whether a compiled model fits into memory, and which of its layers need most."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.image import image_tensors, most_arena
from qcomp.codegen.plan import MemoryPlan
from qcomp.codegen.toolchain import measure_code
from qcomp.errors import QcompError

_MOST_PEAKS = 3


@dataclass(frozen=True)
class Budget:
    """Most bytes of "ram" and of "rom", and where the figures come from; None: any number will do."""

    ram: int | None
    rom: int | None
    ram_source: str
    rom_source: str


def budget_of(package: SourcePackage, max_ram: int | None, max_rom: int | None) -> Budget:
    """What the target has, unless the caller has said how much may be taken."""
    memory, name = package.target.memory, f"target {package.target.name}"
    return Budget(
        memory.get("ram") if max_ram is None else max_ram,
        memory.get("rom") if max_rom is None else max_rom,
        name if max_ram is None else "the limit given",
        name if max_rom is None else "the limit given",
    )


def check_memory(package: SourcePackage, max_ram: int | None = None, max_rom: int | None = None) -> None:
    """QcompError where a model needs more memory than the target has, or than the limits say: by how much, and which
    layers make it so.

    RAM is the arena with the caller's inputs and outputs, flash the constants with the code as the ziglang package
    compiles it."""
    budget = budget_of(package, max_ram, max_rom)
    needs = package.ram_bytes
    tensors = needs - package.arena_bytes
    if budget.ram is not None and needs > budget.ram:
        floats = any(t["dtype"] == "float32" for t in (*package.metadata["inputs"], *package.metadata["outputs"]))
        raise QcompError(
            f"needs {needs} bytes of RAM (arena {package.arena_bytes}, inputs and outputs {tensors}), "
            f"{needs - budget.ram} more than {budget.ram_source} has; most is live in {', '.join(peaks(package.plan))}",
            where=f"model {package.metadata['model']!r}",
            fix="make these layers or the input smaller" + " (int8 inputs and outputs: --io int8)" * floats,
        )  # fmt: skip
    most = most_arena(package.target, image_tensors(package)) if package.target.bare_metal else package.arena_bytes
    if max_ram is None and package.arena_bytes > most:
        raise QcompError(
            f"needs an arena of {package.arena_bytes} bytes, {package.arena_bytes - most} more than one memory of the "
            f"target has room for; most is live in {', '.join(peaks(package.plan))}",
            where=f"model {package.metadata['model']!r}", fix="make these layers or the input smaller",
        )  # fmt: skip
    if budget.rom is None:
        return
    constants = int(package.metadata["weights_bytes"])
    code = 0 if constants > budget.rom else measure_code(package).rom
    if constants + code > budget.rom:
        bands = any(".rows" in step.node.name for step in package.plan.steps)
        what = f"most of the constants are {', '.join(_largest(package))}"
        if code > constants:
            what = f"most of it is code of {len(package.plan.steps)} steps" + ", bands of rows among them" * bands
        raise QcompError(
            f"needs {constants + code} bytes of flash (constants {constants}, code {code or 'besides'}), "
            f"{constants + code - budget.rom} more than {budget.rom_source} has; {what}",
            where=f"model {package.metadata['model']!r}",
            fix="give it more RAM, so that it needs no bands" if bands else "give the model fewer or smaller layers",
        )  # fmt: skip


def peaks(plan: MemoryPlan) -> list[str]:
    """The steps with most live bytes, with these."""
    order = sorted(plan.live, key=lambda i: (-plan.live[i], i))[:_MOST_PEAKS]
    return [f"{plan.steps[i].node.op.name} {plan.steps[i].node.name!r} ({plan.live[i]})" for i in order]


def _largest(package: SourcePackage) -> list[str]:
    """The steps with most constants, with their bytes."""
    sizes = [
        (sum(v.type.bytes for v in step.node.inputs if v is not None and v.is_constant), i)
        for i, step in enumerate(package.plan.steps)
    ]
    order = sorted(sizes, key=lambda pair: (-pair[0], pair[1]))[:_MOST_PEAKS]
    nodes = package.plan.steps
    return [f"{nodes[i].node.op.name} {nodes[i].node.name!r} ({size})" for size, i in order]
