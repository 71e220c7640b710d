"""Integer graph and target to C sources."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qcomp.codegen.c.constants import Blob
from qcomp.codegen.c.distribution import with_distribution
from qcomp.codegen.c.kernel import CFunction, KernelTable
from qcomp.codegen.c.lower import PLACEHOLDER, Built, Function, Lowered, lower
from qcomp.codegen.c.metadata import describe
from qcomp.codegen.c.package import Options, SourcePackage
from qcomp.codegen.c.render import comment, environment
from qcomp.codegen.c.weights import metadata_file, weight_files
from qcomp.codegen.plan import Fill, Operand
from qcomp.codegen.tune.file import Tuning
from qcomp.errors import QcompError
from qcomp.ir import DType, Graph
from qcomp.runtime.metadata import metadata_text
from qcomp.runtime.sources import HEADER
from qcomp.targets import Target

_TEMPLATES = Path(__file__).parent / "templates"
_UNIT_CHARACTERS = 80_000
_MOST_UNITS = 8
_ASSEMBLY_CHARACTERS = 400_000
_ARENA_ALIGN = 64


@dataclass(frozen=True)
class Symbols:
    """What the files of a package are called, and where they find what packages of one artifact share.

    `model`, if any, is a name for the description: another file decides when it is the one to be told."""

    prefix: str
    weights: str
    metadata: str
    model: str = ""


#: Where a step's function is: a table of functions, and its place there.
Place = tuple[str, int]


@dataclass(frozen=True)
class Code:
    """Files of code, and where each step's function is; some of them perhaps in files of another target."""

    files: dict[str, bytes]
    places: dict[Function, Place]


def generate(
    graph: Graph,
    target: Target,
    options: Options | None = None,
    table: KernelTable | None = None,
    tuning: Tuning | None = None,
) -> SourcePackage:
    """C sources of a verified graph for this target alone.

    Raises QcompError when an op has no kernel on the target, a constant rules its kernel out, or `tuning` is for
    another target or code.  The same graph, target, options and tuning give the same bytes.
    """
    options = (options or Options()).resolved(graph.name, target)
    blob = Blob()
    lowered = lower(graph, target, blob, table, tuning)
    content = blob.content()
    metadata = describe(lowered, options, content)
    prefix = options.prefix
    # A microcontroller's flash is for what runs: there, the description is beside the code.
    text = b"" if target.bare_metal else metadata_text(metadata)
    symbols = Symbols(prefix, f"{prefix}_weights", f"{prefix}_metadata" if text else "")
    files = code_files(lowered, symbols, len(content), len(text)).files
    weights, weights_unit = weight_files(prefix, content, options.weights)
    files |= (metadata_file(prefix, text) if text else {}) | weights | {"qcomp.h": HEADER.read_bytes()}
    units = (*(n for n in files if is_unit(n) and n != weights_unit), weights_unit)
    package = SourcePackage(prefix, target, files, units, metadata, lowered.plan, tuned=lowered.tuned)
    if options.form == "c":
        return with_distribution(package, graph)
    return package


def is_unit(name: str) -> bool:
    """Whether a file of a package is one that compilers are called with."""
    return name.endswith((".c", ".S"))


@dataclass(frozen=True)
class _Unit:
    """One file of kernels: indices of its step functions, and the linkable helpers that are defined in it."""

    functions: tuple[int, ...]
    defined: tuple[str, ...]


def _partition(functions: list[Function]) -> list[_Unit]:
    """Step functions and linkable helpers, each in one of a few files of similar size that compile in parallel."""
    sizes: dict[int | str, int] = {i: len(text) for i, (text, _) in enumerate(functions)}
    sizes |= {h.name: len(h.text) for _, helpers in functions for h in helpers if h.signature}
    count = min(_MOST_UNITS, math.ceil(sum(sizes.values()) / _UNIT_CHARACTERS), len(sizes))
    loads = [0] * count
    members: list[list[int | str]] = [[] for _ in range(count)]
    for item in sorted(sizes, key=lambda i: (-sizes[i], str(i))):
        lightest = loads.index(min(loads))
        loads[lightest] += sizes[item]
        members[lightest].append(item)
    return [
        _Unit(
            tuple(sorted(i for i in unit if isinstance(i, int))), tuple(sorted(i for i in unit if isinstance(i, str)))
        )
        for unit in members
    ]


def code_files(
    lowered: Lowered,
    symbols: Symbols,
    weights_bytes: int,
    metadata_bytes: int,
    elsewhere: Mapping[Function, Place] = MappingProxyType({}),
) -> Code:
    """The files of code: the driver, the header that they share, and the kernels; `elsewhere` has functions that need
    no code of their own."""
    prefix, plan, built = symbols.prefix, lowered.plan, lowered.steps
    kernels = kernel_files(lowered.functions, symbols, lowered.graph.name, lowered.target.name, elsewhere)
    model = environment(_TEMPLATES).get_template("model.c.j2").render(
        prefix=prefix,
        title=comment(lowered.graph.name),
        target=lowered.target.name,
        symbols=symbols,
        plan=plan.report(),
        fills=any(step.fills for step in plan.steps),
        sequential=lowered.target.bare_metal,
        align=_ARENA_ALIGN,
        inputs=len(lowered.graph.inputs),
        outputs=len(lowered.graph.outputs),
        arena_bytes=plan.arena_bytes,
        metadata_bytes=metadata_bytes,
        units=kernels.units,
        offset_type="uint32_t" if max(plan.arena_bytes, weights_bytes) < 1 << 32 else "uint64_t",
        steps=[_step_text(i, b, kernels.home[b.function], lowered.target) for i, b in enumerate(built)],
        most_operands=max((len(b.step.inputs) + len(b.step.outputs) + len(b.constants) for b in built), default=0),
    )
    places = {lowered.functions[f]: (kernels.units[unit], slot) for f, (unit, slot) in kernels.home.items()}
    return Code({f"{prefix}.c": model.encode(), **kernels.files}, places)


@dataclass(frozen=True)
class KernelFiles:
    """A header and files of kernels; `units` are the names of their tables of functions, after which come those of
    functions that are elsewhere, and `home` says where each function is: (unit, place in its table)."""

    files: dict[str, bytes]
    units: tuple[str, ...]
    home: dict[int, tuple[int, int]]


def kernel_files(
    functions: list[Function],
    symbols: Symbols,
    title: str,
    target: str,
    elsewhere: Mapping[Function, Place] = MappingProxyType({}),
) -> KernelFiles:
    """Files that define the functions but those that are elsewhere; each has a table `PREFIX_unitN` of its kernels."""
    prefix = symbols.prefix
    own = [f for f in functions if f not in elsewhere]
    units = _partition(own)
    names = {f: f"{prefix}_k{f}" for f in range(len(own))}
    places = {f: elsewhere[f] for f in functions if f in elsewhere}
    places |= {own[f]: (f"{prefix}_unit{u}", s) for u, unit in enumerate(units) for s, f in enumerate(unit.functions)}
    tables = [f"{prefix}_unit{u}" for u in range(len(units))]
    tables += sorted({elsewhere[f][0] for f in functions if f in elsewhere})
    render = environment(_TEMPLATES)
    common = {"prefix": prefix, "title": comment(title), "target": target}
    models = [symbols.model] if symbols.model else []
    files = {f"{prefix}_internal.h": internal_header(symbols, tables, models)}
    for index, unit in enumerate(units):
        files[f"{prefix}_kernels{index}.c"] = _unit_text(render, common, index, len(units), unit, own, names)
    files |= _assembly_files(own, prefix)
    home = {f: (tables.index(places[function][0]), places[function][1]) for f, function in enumerate(functions)}
    return KernelFiles(files, tuple(tables), home)


def _assembly_files(functions: list[Function], prefix: str) -> dict[str, bytes]:
    """What helpers define in assembler text, with names of this model."""
    texts = {h.name: h.assembly for _, helpers in functions for h in helpers if h.assembly}
    files: list[list[str]] = []
    room = 0
    for name, text in sorted(texts.items()):
        if room < len(text):
            files.append([])
            room = _ASSEMBLY_CHARACTERS
        room -= len(text)
        files[-1].append(re.sub(rf"\b{name}\b", f"{prefix}_{name}", text))
    return {f"{prefix}_functions{i}.S": "\n".join(own).encode() for i, own in enumerate(files)}


def internal_header(symbols: Symbols, units: Sequence[str], models: Sequence[str]) -> bytes:
    """What the generated files tell each other: tables of functions, descriptions, weights and metadata."""
    template = environment(_TEMPLATES).get_template("internal.h.j2")
    return template.render(prefix=symbols.prefix, symbols=symbols, units=units, models=models).encode()


def _unit_text(
    render: Any,
    common: Mapping[str, str],
    index: int,
    count: int,
    unit: _Unit,
    functions: list[Function],
    names: Mapping[int, str],
) -> bytes:
    helpers = _unit_helpers(unit, functions)
    linked = [h.name for h in helpers.values() if h.signature or h.assembly]
    text: str = render.get_template("unit.c.j2").render(
        **common,
        unit=index,
        units=count,
        x86=any(word in functions[f][0] for f in unit.functions for word in ("__m", "_mm", "_tile_"))
        or any("__m" in h.text for h in helpers.values()),
        linked=linked,
        helpers=[_helper_text(h, unit, common["prefix"]) for h in helpers.values()],
        kernels=[functions[f][0].replace(PLACEHOLDER, names[f]).strip() for f in unit.functions],
        symbols=[names[f] for f in unit.functions],
    )
    return text.encode()


def _unit_helpers(unit: _Unit, functions: list[Function]) -> dict[str, CFunction]:
    """Helpers that a file needs, in an order in which each finds what it uses before it."""
    found: dict[str, CFunction] = {}
    for index, (_, helpers) in enumerate(functions):
        for position, helper in enumerate(helpers):
            # A helper that is defined here needs what comes before it in the lists that name it.
            if index in unit.functions or any(later.name in unit.defined for later in helpers[position:]):
                known = found.setdefault(helper.name, helper)
                assert known.text == helper.text, f"two C helpers are called {helper.name}"
    return found


def _helper_text(helper: CFunction, unit: _Unit, prefix: str) -> str:
    """What stands for a helper in one file: its definition, or the prototype of a definition in another file."""
    if helper.signature is None:
        return helper.text
    prototype = f"{prefix.upper()}_HIDDEN {helper.signature};"
    return f"{prototype}\n{helper.definition}" if helper.name in unit.defined else prototype


def _pointer(operand: Operand) -> str:
    if operand.kind == "arena":
        return f"A({operand.interior})"
    letter = "I" if operand.kind == "input" else "O"
    return f"{letter}({operand.index}, {operand.interior})"


def _step_text(index: int, built: Built, home: tuple[int, int], target: Target) -> dict[str, Any]:
    step, (unit, slot) = built.step, home
    operands = [_pointer(o) for o in (*step.inputs, *step.outputs)]
    shapes = " ".join("x".join(map(str, o.buffer.shape)) or "scalar" for o in step.outputs)
    return {
        "index": index,
        "comment": comment(f"{step.node.op.name} {step.node.name}: {shapes}, {built.code.kernel}"),
        "pointers": operands + [f"W({offset})" for offset in built.constants],
        "fills": [_fill(f, target) for f in step.fills],
        "unit": unit,
        "slot": slot,
        "tasks": built.code.tasks,
        "whole": int(built.code.whole),
    }


def _fill(fill: Fill, target: Target) -> dict[str, Any]:
    buffer = fill.operand.buffer
    size = buffer.dtype.numpy.itemsize
    if buffer.dtype is not DType.I8 and not (buffer.dtype is DType.I16 and fill.value == 0):  # equal bytes
        raise QcompError(f"a {buffer.dtype.value} buffer cannot have this halo", where=fill.operand.name)
    (top, left, bottom, right), channels = buffer.halo, buffer.shape[3] * size
    row_stride = buffer.row_stride * size
    arguments = (
        buffer.shape[0],
        top * row_stride + left * channels,
        buffer.shape[1],
        buffer.shape[2] * channels,
        (left + right) * channels,
        bottom * row_stride + right * channels,
        (fill.value + target.stored_offset) & 0xFF if buffer.dtype is DType.I8 else 0,
    )
    return {"offset": fill.operand.offset, "arguments": arguments}
