"""Sizes of the sections of an ELF object: what code costs in flash and in RAM."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from qcomp.errors import QcompError

_ALLOC, _WRITE, _NOBITS = 2, 1, 8


@dataclass(frozen=True)
class Sizes:
    """Bytes of read-only memory (code and constants) and of writable memory."""

    rom: int
    ram: int

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(self.rom + other.rom, self.ram + other.ram)


def object_sizes(data: bytes) -> Sizes:
    """Loaded section bytes of a 32- or 64-bit ELF file; QcompError for anything else."""
    if len(data) < 52 or data[:4] != b"\x7fELF":
        raise QcompError("not an ELF object")
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    if wide:
        (table,) = struct.unpack_from(f"{order}Q", data, 40)
        size, count = struct.unpack_from(f"{order}HH", data, 58)
        layout, kind_at, flags_at, bytes_at = "Q", 4, 8, 32
    else:
        (table,) = struct.unpack_from(f"{order}I", data, 32)
        size, count = struct.unpack_from(f"{order}HH", data, 46)
        layout, kind_at, flags_at, bytes_at = "I", 4, 8, 20
    rom = ram = 0
    for index in range(count):
        start = table + index * size
        (kind,) = struct.unpack_from(f"{order}I", data, start + kind_at)
        (flags,) = struct.unpack_from(f"{order}{layout}", data, start + flags_at)
        (length,) = struct.unpack_from(f"{order}{layout}", data, start + bytes_at)
        if flags & _ALLOC and flags & _WRITE and kind == _NOBITS:
            ram += length
        elif flags & _ALLOC:
            # Position-independent code keeps constant pointers in .data.rel.ro: the loader writes it, nobody else.
            rom += length
    return Sizes(rom, ram)
