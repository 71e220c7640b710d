"""The C files of the runtime, for whoever compiles or ships them."""

from __future__ import annotations

from pathlib import Path

_ROOM = Path(__file__).resolve().parent

INCLUDE_DIR = _ROOM / "include"
HEADER = INCLUDE_DIR / "qcomp.h"
POOL = _ROOM / "src" / "pool.c"
PROFILE = _ROOM / "src" / "profile.c"
AMX = _ROOM / "src" / "amx.c"
#: A program that runs an artifact inside an emulator.
RUN_FOREIGN = _ROOM / "src" / "run_foreign.c"
#: What starts a core without an operating system and runs a model there.
BOARD = _ROOM / "src" / "board.c"

#: Linked into every shared library (with -lpthread).
SOURCES = (POOL, PROFILE, AMX)
