"""The C interface of runtime/include/qcomp.h as ctypes sees it: opening an artifact's library, and nothing more."""

from __future__ import annotations

import _ctypes
import ctypes
import os
from itertools import count
from typing import Any

from qcomp.errors import QcompError

ABI = 1

RunFunction = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)  # calling one releases the interpreter lock


class Exec(ctypes.Structure):
    """`qcomp_exec`."""

    _fields_ = [
        ("pool", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
        ("profiler", ctypes.c_void_p),
        ("on_step", ctypes.c_void_p),
    ]


class ModelStruct(ctypes.Structure):
    """`qcomp_model`."""

    _fields_ = [
        ("abi", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("arena_bytes", ctypes.c_uint64),
        ("arena_align", ctypes.c_uint64),
        ("metadata", ctypes.c_void_p),
        ("metadata_bytes", ctypes.c_uint64),
        ("run", RunFunction),
    ]


class Library:
    """An artifact's code in this process; its attributes are the C functions and the model's description. `levels` has
    the descriptions of all levels, where there are several, and `level` is the name of the one that is the model.

    It is unloaded when the last reference to it goes, so what points into it must hold one. `where` is the path,
    which also names the file in errors. Raises QcompError if the system refuses it or it is no qcomp library.
    """

    def __init__(self, where: str) -> None:
        self._handle = 0
        try:
            library = ctypes.CDLL(_unique_path(where))
        except OSError as error:
            raise QcompError(
                f"the system cannot load it: {error}", where=where, fix="compile the model for this system"
            ) from error
        self._handle = library._handle
        try:
            self.model: ModelStruct = _function(library.qcomp_describe, ctypes.POINTER(ModelStruct))().contents
            self.levels = _levels(library)
            self.level = next((name for name, model in self.levels.items() if _same(model, self.model)), "")
            if self.model.abi != ABI:
                raise QcompError(
                    f"C interface {self.model.abi}, this qcomp speaks {ABI}",
                    where=where, fix="use the qcomp that compiled the model, or compile it again",
                )  # fmt: skip
            self.run = self.model.run
            self.parallel_for = _address(library.qcomp_pool_parallel_for)
            self.profile_step = _address(library.qcomp_profile_step)
            self.pool_create = _function(library.qcomp_pool_create, ctypes.c_void_p, ctypes.c_int32)
            self.pool_destroy = _function(library.qcomp_pool_destroy, None, ctypes.c_void_p)
            self.enable_amx = _function(library.qcomp_enable_amx, ctypes.c_int32)
        except (AttributeError, ValueError) as error:
            raise QcompError(
                f"not a complete qcomp library: {error}", where=where, fix="compile the model again"
            ) from error

    def take(self, level: str) -> None:
        """Makes a level the model; at first it is the best one that the machine can run."""
        self.level, self.model = level, self.levels[level]
        self.run = self.model.run

    def __del__(self) -> None:
        if self._handle:
            _ctypes.dlclose(self._handle)


_openings = count(1)


def _unique_path(where: str) -> str:
    """A spelling of the path that was never used before.

    The dynamic linker takes a path it has seen for the library it loaded then, without a look at the file: a model
    that was compiled again to the same path would run its old code as long as the old one is open anywhere. It does
    not normalize paths, so the number of the opening, written as "//" and "/./" (a prefix code), keeps them apart.
    """
    folder, name = os.path.split(os.path.abspath(where))
    return folder + "".join("/./" if bit == "1" else "//" for bit in f"{next(_openings):b}") + name


def _levels(library: ctypes.CDLL) -> dict[str, ModelStruct]:
    """The models of an artifact that has several, by name, the best first."""
    if not hasattr(library, "qcomp_level"):
        return {}
    name_of = _function(library.qcomp_level_name, ctypes.c_char_p, ctypes.c_int32)
    model_of = _function(library.qcomp_level, ctypes.POINTER(ModelStruct), ctypes.c_int32)
    levels: dict[str, ModelStruct] = {}
    while (name := name_of(len(levels))) is not None and name.decode("ascii", "replace") not in levels:
        levels[name.decode("ascii", "replace")] = model_of(len(levels)).contents
    return levels


def _same(a: ModelStruct, b: ModelStruct) -> bool:
    return ctypes.addressof(a) == ctypes.addressof(b)


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype = result
    function.argtypes = arguments
    return function


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address
