"""Files that hold bytes: the weights as assembler or C array, and the metadata as a C array."""

from __future__ import annotations

from pathlib import Path

from qcomp.codegen.c.render import environment

_TEMPLATES = Path(__file__).parent / "templates"
_LINE = 24


def byte_rows(data: bytes) -> str:
    """Initializers of a byte array, some numbers a line."""
    rows = (data[i : i + _LINE] for i in range(0, len(data), _LINE))
    return "\n".join(",".join(map(str, row)) + "," for row in rows)


def weight_files(prefix: str, blob: bytes, form: str) -> tuple[dict[str, bytes], str]:
    """(files, the one to compile) for the constants, in the form "incbin" or "array"."""
    if form == "incbin":
        name = f"{prefix}_weights"
        text = environment(_TEMPLATES).get_template("weights.S.j2").render(prefix=prefix, blob=f"{name}.bin")
        return {f"{name}.bin": blob, f"{name}.S": text.encode()}, f"{name}.S"
    text = (
        f"/* Constants of the model. Generated; do not edit. */\n#include \"{prefix}_internal.h\"\n\n"
        "#if defined(__GNUC__)\n__attribute__((aligned(64)))\n#elif defined(_MSC_VER)\n__declspec(align(64))\n#endif\n"
        f"const uint8_t {prefix}_weights[{len(blob)}] = {{\n{byte_rows(blob)}\n}};\n"
    )
    return {f"{prefix}_weights.c": text.encode()}, f"{prefix}_weights.c"


def metadata_file(prefix: str, metadata: bytes) -> dict[str, bytes]:
    """The metadata as a C file; numbers, because a C compiler need not take a string literal of that length."""
    text = (
        f"/* Metadata of the model: JSON in UTF-8. Generated; do not edit. */\n#include \"{prefix}_internal.h\"\n\n"
        f"const char {prefix}_metadata[{len(metadata) + 1}] = {{\n{byte_rows(metadata + bytes(1))}\n}};\n"
    )
    return {f"{prefix}_metadata.c": text.encode()}
