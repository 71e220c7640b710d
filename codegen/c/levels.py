"""Sources for several targets in one: the code of each, their constants once, and a file that picks by the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qcomp.codegen.c import cpuid, hwcap
from qcomp.codegen.c.constants import Blob
from qcomp.codegen.c.cpuid import permissions
from qcomp.codegen.c.distribution import with_distribution
from qcomp.codegen.c.emit import Place, Symbols, code_files, generate, internal_header, is_unit
from qcomp.codegen.c.kernel import KernelTable
from qcomp.codegen.c.lower import Function, lower
from qcomp.codegen.c.metadata import describe_levels
from qcomp.codegen.c.package import Options, SourcePackage
from qcomp.codegen.c.render import comment, environment, identifier
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.c.weights import metadata_file, weight_files
from qcomp.codegen.tune.file import Tuning
from qcomp.ir import Graph
from qcomp.runtime.metadata import metadata_text
from qcomp.runtime.sources import HEADER
from qcomp.targets import Target

_TEMPLATES = Path(__file__).parent / "templates"
#: Where code finds the features of its CPU, by architecture: each has a template features_ARCH.c.j2 too.
_BITS: Mapping[str, Callable[[Iterable[str]], Mapping[str, Any]]] = {"x86_64": cpuid.bits, "aarch64": hwcap.bits}


def _tables(sharing: bool) -> KernelTable:
    return kernel_table(sharing=sharing)


def generate_levels(
    graph: Graph,
    levels: Sequence[Target],
    options: Options | None = None,
    table: KernelTable | None = None,
    tuning: Tuning | None = None,
    tables: Callable[[bool], KernelTable] = _tables,
) -> SourcePackage:
    """C sources of a verified graph for these targets, the best first; the last one is the package's own target,
    whose features all others have. One target alone gives what `generate` gives. Kernels are of `table`, or else of
    what `tables` gives for levels that share constants (True) or not.

    Raises QcompError as `generate` does, for features that code cannot ask the CPU for, and for a tuning of several
    targets: kernels of a level are chosen to share constants with others', which those of a tuning may not.
    """
    *richer, base = levels
    if not richer:
        return generate(graph, base, options, table or tables(False), tuning)
    if tuning is not None:
        tuning.check_levels([target.name for target in levels])
    options = (options or Options()).resolved(graph.name, base)
    prefix = options.prefix
    widths = [target.vector_bytes for target in richer]
    table = table or tables(len(set(widths)) < len(widths))
    blob = Blob()
    # From the base up: a level can only borrow code from those below it.
    lowered = {target.name: lower(graph, target, blob, table) for target in reversed(levels)}
    content = blob.content()
    metadata = describe_levels([lowered[target.name] for target in levels], options, content)
    text = metadata_text(metadata)

    symbols = Symbols(prefix, f"{prefix}_weights", f"{prefix}_metadata")
    names = {target.name: f"{prefix}_{identifier(target.name)}" for target in levels}
    models = {name: f"{own}_model" for name, own in names.items()}
    files: dict[str, bytes] = {}
    machines: dict[str, Target] = {}
    places: dict[str, dict[Function, Place]] = {}
    for target in reversed(levels):
        own = Symbols(names[target.name], symbols.weights, symbols.metadata, models[target.name])
        borrowed = _elsewhere(target, levels, places)
        code = code_files(lowered[target.name], own, len(content), len(text), borrowed)
        files |= code.files
        machines |= {name: target for name in code.files if is_unit(name) and target is not base}
        places[target.name] = code.places
    files[f"{prefix}.c"] = choice(prefix, graph.name, levels, models)
    files[f"{prefix}_internal.h"] = internal_header(symbols, (), list(models.values()))
    weights, weights_unit = weight_files(prefix, content, options.weights)
    files |= metadata_file(prefix, text) | weights | {"qcomp.h": HEADER.read_bytes()}
    plan = lowered[base.name].plan
    units = (*(n for n in files if is_unit(n) and n != weights_unit), weights_unit)
    package = SourcePackage(prefix, base, files, units, metadata, plan, levels=tuple(levels), machines=machines)
    return with_distribution(package, graph) if options.form == "c" else package


def _elsewhere(
    target: Target, levels: Sequence[Target], places: Mapping[str, Mapping[Function, Place]]
) -> dict[Function, Place]:
    """Functions that a level can take from the levels below it: those it has in common with one of its own width of
    vectors, because the width is what compilers make more of."""
    found: dict[Function, Place] = {}
    for other in levels:
        if other.name in places and other.features < target.features and other.vector_bytes == target.vector_bytes:
            found |= places[other.name]
    return found


def choice(prefix: str, title: str, levels: Sequence[Target], models: Mapping[str, str]) -> bytes:
    """The C file that asks the CPU; `models` has the C name of each level's description, by the level's name."""
    arch = levels[-1].arch
    asked = _BITS[arch]({feature for target in levels for feature in target.features})
    assert len(asked) <= 64, "a mask of features has 64 bits"
    place = {feature: index for index, feature in enumerate(asked)}
    rows: list[dict[str, Any]] = []
    for target in levels:
        (permit, *more) = permissions(target.features) or ("",)
        assert not more, "a level has room for one permission"
        needs = sum(1 << place[feature] for feature in target.features)
        rows.append({"name": target.name, "model": models[target.name], "needs": needs, "permit": permit})
    template = environment(_TEMPLATES).get_template("levels.c.j2")
    return template.render(prefix=prefix, title=comment(title), bits=asked, levels=rows, arch=arch).encode()
