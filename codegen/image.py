"""Images for cores without an operating system: a model, what starts it, and a linker script from the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qcomp.codegen.c.package import SourcePackage
from qcomp.codegen.c.render import environment
from qcomp.codegen.elf_size import object_sizes
from qcomp.codegen.toolchain import Compiler, compile_unit, compile_units, kernel_flags, run_tool
from qcomp.errors import QcompError
from qcomp.runtime.sources import BOARD, INCLUDE_DIR
from qcomp.targets import Memory, Target

_TEMPLATES = Path(__file__).parent / "c" / "templates"
#: Bytes that images keep for the stack.
STACK_BYTES = 2048
_ALIGN = 64


def link_image(package: SourcePackage, folder: Path, compiler: Compiler) -> Path:
    """Compiles the sources that lie in `folder` there; the ELF image for the target's board, without trailer.

    Raises QcompError where the model does not fit into the target's memories."""
    target = package.target
    tensors = image_tensors(package)
    (folder / "board.ld").write_text(_script(target, package.arena_bytes, tensors))
    (folder / "board_model.h").write_text(_header(package, tensors))
    (folder / BOARD.name).write_bytes(BOARD.read_bytes())
    objects = compile_units(package, folder, compiler)
    flags = (*(flag for flag in kernel_flags(target) if flag != "-O3"), "-Os", f"-I{INCLUDE_DIR}")
    objects.append(compile_unit(compiler, target, folder, BOARD.name, flags))
    machine = compiler.flags(target)
    command = [*compiler.command, *machine, "-O2", "-static", "-Wl,-T,board.ld", "-Wl,--gc-sections", "-Wl,-n", "-s"]
    try:
        run_tool([*command, "-nostdlib", *objects, "-o", "model.elf"], folder)
    except QcompError as error:
        _check_flash(target, folder, objects)
        if "undefined symbol" not in str(error) and "undefined reference" not in str(error):
            raise
        # Arithmetic that the core lacks, in the compiler's own library: zig builds that for the core, once.
        run_tool([*command, "-nostartfiles", *objects, "-o", "model.elf"], folder)
    return folder / "model.elf"


def _check_flash(target: Target, folder: Path, objects: Sequence[str]) -> None:
    """QcompError where the objects take more than the flash of the target's board."""
    there = target.memory["rom"]
    taken = sum(object_sizes((folder / name).read_bytes()).rom for name in objects)
    if taken > there:
        raise QcompError(
            f"an image takes about {taken} bytes of flash, {taken - there} more than its board has",
            where=f"target {target.name}", fix="make the model smaller, or write sources for another device (--emit c)",
        )  # fmt: skip


def flash_bytes(path: Path) -> int:
    """What an image takes in flash: code, constants, and what variables start from."""
    return object_sizes(path.read_bytes()).rom


def image_tensors(package: SourcePackage) -> int:
    """Bytes that an image keeps for the model's inputs and outputs."""
    return sum(-(-size // 8) * 8 for key in ("inputs", "outputs") for size in package.tensor_bytes(key))


def places(target: Target, tensors: int) -> list[tuple[int, Memory, Memory]]:
    """Ways to lay out what is written, the preferred first: bytes that the arena may have, the RAM that it is in, and
    that of the caller's tensors, everything else and the stack."""
    rams = [memory for memory in target.memories if memory.kind == "ram"]
    taken = tensors + STACK_BYTES
    ways = [(arena, rest) for arena in rams for rest in reversed(rams) if rest.bytes >= taken]
    return [(arena.bytes - (taken if arena is rest else 0), arena, rest) for arena, rest in ways]


def most_arena(target: Target, tensors: int) -> int:
    """The largest arena that an image for the target may have, 0 for none at all."""
    return max((room for room, _, _ in places(target, tensors)), default=0)


def _script(target: Target, arena: int, tensors: int) -> str:
    """The linker script: the arena in the first RAM that takes it, everything else that is written in the last."""
    (rom, *_) = [memory for memory in target.memories if memory.kind == "rom"]
    fitting = [(own, rest) for room, own, rest in places(target, tensors) if room >= arena]
    if not fitting:
        raise QcompError(
            f"an image needs {arena} bytes for the arena, and no memory has room for more than "
            f"{max(0, most_arena(target, tensors))} beside inputs, outputs and stack ({tensors + STACK_BYTES} bytes)",
            where=f"target {target.name}",
            fix="make the model or its input smaller, or write sources for another device (--emit c)",
        )  # fmt: skip
    own, rest = fitting[0]
    values: dict[str, Any] = {
        "target": target.name, "memories": target.memories, "rom": rom, "ram": rest, "arena": own,
        "stack": STACK_BYTES,
    }  # fmt: skip
    return environment(_TEMPLATES).get_template("board.ld.j2").render(**values)


def _header(package: SourcePackage, tensors: int) -> str:
    def initializer(key: str) -> str:
        return "{" + ", ".join(f"{size}u" for size in (*package.tensor_bytes(key), 0)) + "}"

    lines = (
        "/* What board.c needs to know of the model: bytes. */",
        f"#define BOARD_ARENA_BYTES {package.arena_bytes}u",
        f"#define BOARD_ARENA_ALIGN {_ALIGN}",
        f"#define BOARD_TENSOR_BYTES {max(tensors, 8)}u",
        f"#define BOARD_INPUT_BYTES {initializer('inputs')}",
        f"#define BOARD_OUTPUT_BYTES {initializer('outputs')}",
    )
    return "\n".join(lines) + "\n"
