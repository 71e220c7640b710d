"""Targets: what the hardware is, as data.  One TOML file a target; this is the only code that reads them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from qcomp.errors import QcompError
from qcomp.runtime.features import cpu_features, machine

_FOLDER = Path(__file__).parent
_COMPILERS = ("zig", "gcc", "clang")
_ARCHITECTURES = ("x86_64", "aarch64", "arm", "riscv64", "generic")
_RATES = ("int8", "float32", "bytes")
_DOT_PRODUCTS = ("", "u8s8", "s8s8")
_REQUANTIZE = ("float", "fixed")


@dataclass(frozen=True)
class Memory:
    """One memory of the device: its address, and how much of it a model may take, in bytes."""

    name: str
    bytes: int
    kind: str  # "ram": arena and stack, "rom": code and weights
    origin: int = 0


@dataclass(frozen=True)
class Target:
    """One machine model.

    `features` are ISA extensions that generated code may use, named as the runtime names CPU features ("avx512vnni").
    `vector_bytes` is the width of a vector register, 0 without one.  `dot_product` names the operand signs of a
    4-way int8 dot product instruction.  `flags` maps a compiler kind (zig, gcc, clang) to its flags.  `caches` maps
    "l1", "l2", "l3" to bytes.  `preference` orders targets for `native()`: the highest that the CPU allows wins.
    `rates` of one core, for estimates: multiply-accumulates a nanosecond in "int8" and in "float32", besides for kinds
    of products that differ ("int8_grouped", "float32_gemm"), and "bytes" moved a nanosecond.
    `memories` of a microcontroller are in order of preference: images keep the arena in the first RAM that takes it.
    `requantize` is the arithmetic that results are rounded in: "fixed" for cores that compute floats in software.
    `carries` names targets whose code goes into the same artifact: the richest that the CPU allows runs.
    """

    name: str
    description: str
    arch: str
    triple: str = ""
    features: frozenset[str] = frozenset()
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vector_bytes: int = 0
    activation_storage: str = "s8"
    dot_product: str = ""
    caches: Mapping[str, int] = field(default_factory=dict)
    memories: tuple[Memory, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    emulator: tuple[str, ...] = ()
    preference: int = 0
    requantize: str = "float"
    carries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def reject(what: str) -> QcompError:
            return QcompError(what, where=f"target {self.name!r}")

        if not self.name:
            raise reject("a target needs a name")
        if self.arch not in _ARCHITECTURES:
            raise reject(f"arch {self.arch!r} is not one of {', '.join(_ARCHITECTURES)}")
        if self.activation_storage not in ("u8", "s8"):
            raise reject(f"activation_storage {self.activation_storage!r} is neither u8 nor s8")
        if self.dot_product not in _DOT_PRODUCTS:
            raise reject(f"dot_product {self.dot_product!r} is not one of {', '.join(filter(None, _DOT_PRODUCTS))}")
        if self.vector_bytes < 0 or self.vector_bytes & (self.vector_bytes - 1):
            raise reject(f"vector_bytes {self.vector_bytes} is not a power of two")
        if "avx512f" in self.features and not {"avx2", "fma"} <= self.features:
            raise reject("avx512f implies avx2 and fma; list them too")
        if self.arch != "x86_64" and any(f.startswith(("avx", "sse", "amx")) for f in self.features):
            raise reject(f"{self.arch} has no x86 features")
        for kind in self.flags:
            if kind not in _COMPILERS:
                raise reject(f"flags for unknown compiler {kind!r}; known are {', '.join(_COMPILERS)}")
        for name, size in self.caches.items():
            if size <= 0:
                raise reject(f"cache {name} has {size} bytes")
        if self.rates and (not set(_RATES) <= set(self.rates) or min(self.rates.values()) <= 0):
            raise reject(f"rates need a positive number for each of {', '.join(_RATES)}")
        if self.requantize not in _REQUANTIZE:
            raise reject(f"requantize {self.requantize!r} is not one of {', '.join(_REQUANTIZE)}")
        for memory in self.memories:
            whole = all(isinstance(n, int) and n >= 0 for n in (memory.bytes, memory.origin))
            if not whole or memory.bytes <= 0 or memory.kind not in ("ram", "rom"):
                raise reject(f"memory {memory.name!r} needs a positive size and kind ram or rom")
            if not memory.name.isidentifier():
                raise reject(f"memory {memory.name!r} needs a name of letters, digits and underscores")
        if self.bare_metal and set(self.memory) != {"ram", "rom"}:
            raise reject("a core without an operating system needs memories of kind ram and rom")

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def bare_metal(self) -> bool:
        """Whether code runs without an operating system: there are no shared libraries, and memories are budgets."""
        return "freestanding" in self.triple

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes by kind of memory, "ram" and "rom"; empty where they are no budget."""
        kinds = {memory.kind for memory in self.memories}
        return {kind: sum(m.bytes for m in self.memories if m.kind == kind) for kind in sorted(kinds)}

    @property
    def stored_offset(self) -> int:
        """What is added to a logical i8 value to get the stored one: 128 for u8 storage, else 0."""
        return 128 if self.activation_storage == "u8" else 0

    @property
    def stored_ctype(self) -> str:
        """C type of a stored i8 activation."""
        return "uint8_t" if self.activation_storage == "u8" else "int8_t"

    def compiler_flags(self, kind: str) -> tuple[str, ...]:
        """Flags for a compiler kind; QcompError when the target was not described for it."""
        if kind not in self.flags:
            raise QcompError(
                f"target {self.name} cannot be compiled with {kind}",
                fix=f"use {' or '.join(sorted(self.flags)) or '--emit c and your own compiler'}",
            )
        return self.flags[kind]


def parse_target(text: str, source: str) -> Target:
    """A target from TOML; QcompError for malformed text, unknown keys or values that make no sense."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise QcompError(f"not valid TOML: {error}", where=source) from None
    unknown = sorted(set(table) - set(Target.__dataclass_fields__))
    if unknown:
        raise QcompError(f"unknown key {unknown[0]!r}", where=source)
    for key in ("name", "description", "arch"):
        if not isinstance(table.get(key), str):
            raise QcompError(f"key {key!r} is missing or no string", where=source)
    fields: dict[str, Any] = dict(table)
    try:
        fields["features"] = frozenset(table.get("features", ()))
        fields["flags"] = {k: tuple(v) for k, v in sorted(table.get("flags", {}).items())}
        fields["caches"] = {k: int(v) for k, v in sorted(table.get("caches", {}).items())}
        fields["rates"] = {k: float(v) for k, v in sorted(table.get("rates", {}).items())}
        fields["memories"] = tuple(Memory(**m) for m in table.get("memories", ()))
        for key in ("emulator", "carries"):
            if isinstance(table.get(key, ()), str):
                raise QcompError(f"key {key!r} is no list of strings", where=source)
            fields[key] = tuple(table.get(key, ()))
        return Target(**fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise QcompError(f"malformed value: {error}", where=source) from None


@cache
def target(name: str) -> Target:
    """The target of that name ("native" asks the CPU); QcompError with close names when there is none."""
    if name == "native":
        return native()
    if name not in target_names():
        near = difflib.get_close_matches(name, (*target_names(), "native"), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(target_names())}"
        raise QcompError(f"no target is called {name!r}", fix=hint)
    found = _read(name)
    check_carried(found, {carried: _read(carried) for carried in found.carries if carried in target_names()})
    return found


@cache
def _read(name: str) -> Target:
    found = parse_target((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"), f"targets/{name}.toml")
    if found.name != name:
        raise QcompError(f"the file describes target {found.name!r}", where=f"targets/{name}.toml")
    return found


def check_carried(base: Target, known: Mapping[str, Target]) -> None:
    """Raises QcompError unless `base` can carry all targets it names; `known` are those of them that exist."""
    if len(set(base.carries)) != len(base.carries):
        raise QcompError("a carried target is named twice", where=f"target {base.name!r}", fix="name each once")
    for name in base.carries:
        carried = known.get(name)
        if carried is None:
            wrong = "there is no such target"
        elif carried.carries or name == base.name:
            wrong = "it carries targets itself"
        elif (carried.arch, carried.triple) != (base.arch, base.triple):
            wrong = f"it is for {carried.arch} {carried.triple}, not {base.arch} {base.triple}"
        elif not carried.features > base.features:
            wrong = f"its features are no more than those of {base.name}"
        elif set(carried.flags) != set(base.flags):
            wrong = f"its flags are not for the compilers of {base.name}"
        else:
            continue
        raise QcompError(f"cannot carry {name!r}: {wrong}", where=f"target {base.name!r}")


def levels(base: Target, names: Sequence[str] = ()) -> tuple[Target, ...]:
    """What an artifact for `base` holds code for: what it carries, the most preferred first, and `base` last.

    `names` keeps only these of the carried targets (`base` itself may be among the names).  Raises QcompError for
    one that `base` does not carry.
    """
    for name in names:
        if name not in (base.name, *base.carries):
            raise QcompError(
                f"target {base.name} carries no level {name!r}",
                fix=f"name some of {', '.join(base.carries)}" if base.carries else "leave the levels out (--levels)",
            )
    carried = [target(name) for name in base.carries if not names or name in names]
    return (*sorted(carried, key=lambda t: (-t.preference, t.name)), base)


@cache
def target_names() -> tuple[str, ...]:
    """Every target that has a file, sorted."""
    return tuple(sorted(p.stem for p in _FOLDER.glob("*.toml")))


def native() -> Target:
    """The richest target that this machine's CPU can run, alone: nothing is carried for other machines."""
    found = richest(machine(), cpu_features())
    return replace(found, carries=()) if found.carries else found


def richest(arch: str, features: frozenset[str]) -> Target:
    """The target of that architecture with the highest preference among those the features allow."""
    fitting = [t for t in map(target, target_names()) if t.arch == arch and t.features <= features]
    if not fitting:
        raise QcompError(f"no target fits this machine ({arch})", fix="name one with --target, or use --emit c")
    return max(fitting, key=lambda t: (t.preference, t.name))
