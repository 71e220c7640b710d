"""The source package for people: header, example, build file and readme around the generated C."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from qcomp.codegen.c.cpuid import permissions
from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.c.render import CTYPES, comment, environment, float_literal
from qcomp.codegen.toolchain import NUMERIC_FLAGS, measure_code
from qcomp.errors import QcompError
from qcomp.ir import Graph, Value
from qcomp.runtime.sources import AMX, POOL, PROFILE
from qcomp.targets import Target

_TEMPLATES = Path(__file__).parent / "templates"
_CMAKE_IDS = {"gcc": "GNU", "clang": "Clang"}


def _tensor(value: Value) -> dict[str, Any]:
    dtype = value.dtype
    if dtype not in CTYPES:
        raise QcompError(f"{dtype.value} has no C type", where=f"%{value.name}", fix="cast it to float32 in the model")
    shape = "x".join(map(str, value.shape)) or "scalar"
    quant = value.quant
    grid = ""
    if quant is not None and quant.axis is None:
        grid = f"; real = {quant.scale[0]:.9g} * (x - {quant.zero_point[0]})"
    return {
        "name": comment(value.name),
        "dtype": str(dtype.numpy),
        "ctype": CTYPES[dtype],
        "shape": shape,
        "elements": value.type.elements,
        "bytes": value.type.bytes,
        "text": comment(f"{value.name}, {dtype.numpy} {shape}"),
        "grid": grid,
        "scale": "" if not grid or quant is None else float_literal(quant.scale[0]),
        "zero_point": 0 if not grid or quant is None else quant.zero_point[0],
    }


def with_distribution(package: SourcePackage, graph: Graph) -> SourcePackage:
    """The package with header, main.c, CMakeLists.txt, README.md, the thread pool and the request for AMX added, as far
    as the target has a system.

    Code size is measured by compiling with the ziglang package, where that is installed.
    """
    render, target = environment(_TEMPLATES), package.target
    amx = any(feature.startswith("amx") for feature in target.features)
    try:
        sizes = measure_code(package)
    except QcompError:
        sizes = None
    values: dict[str, Any] = {
        "prefix": package.name,
        "title": comment(graph.name),
        "target": target.name,
        "description": target.description,
        "inputs": [_tensor(v) for v in graph.inputs],
        "outputs": [_tensor(v) for v in graph.outputs],
        "arena_bytes": package.arena_bytes,
        "lower_bound": package.plan.lower_bound,
        "levels": [_level(package, level) for level in package.levels],
        "weights_bytes": package.metadata["weights_bytes"],
        "code_rom": None if sizes is None else sizes.rom,
        "code_ram": None if sizes is None else sizes.ram,
        "measured": None if sizes is None else "clang -O3 of the ziglang package",
        "units": package.units,
        "assembler": any(unit.endswith(".S") for unit in package.units),
        "functions": any("_functions" in unit for unit in package.units),
        "amx": amx,
        "bare_metal": target.bare_metal,
        "memories": target.memories,
        "tensor_bytes": sum(v.type.bytes for v in (*graph.inputs, *graph.outputs)),
        "numeric": NUMERIC_FLAGS,
        "asks_system": any(permissions(level.features) for level in package.levels),
        "gcc_flags": target.flags.get("gcc", ()),
        "machine": [(_CMAKE_IDS[k], f) for k, f in target.flags.items() if k in _CMAKE_IDS and f],
    }
    written = {
        f"{package.name}.h": "package.h.j2",
        "main.c": "main_bare.c.j2" if target.bare_metal else "main.c.j2",
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "README.md": "README.md.j2",
    }
    files = dict(package.files)
    for name, template in written.items():
        files[name] = render.get_template(template).render(**values).encode()
    threads = () if target.bare_metal else (POOL, PROFILE)
    sources = (*threads, *[AMX] * bool(amx or values["asks_system"]))
    files |= {source.name: source.read_bytes() for source in sources}
    return replace(package, files=files)


def _level(package: SourcePackage, level: Target) -> dict[str, Any]:
    """A level, its units if they have flags of their own, and those flags by CMake's name of the compiler."""
    (row,) = (row for row in package.metadata["levels"] if row["target"] == level.name)
    return {
        "name": level.name,
        "description": level.description,
        "arena_bytes": row["arena_bytes"],
        "units": [unit for unit in package.units if package.machines.get(unit) is level],
        "gcc_flags": level.flags.get("gcc", ()),
        "flags": [(_CMAKE_IDS[k], f) for k, f in level.flags.items() if k in _CMAKE_IDS and f],
    }
