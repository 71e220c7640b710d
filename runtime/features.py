"""What the CPU of this machine can do, in the names that targets and artifacts use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache

# Linux's names in /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h, arch/arm64/kernel/cpuinfo.c) -> ours.
_LINUX = {
    "sse2": "sse2",
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_1": "sse4_1",
    "sse4_2": "sse4_2",
    "popcnt": "popcnt",
    "movbe": "movbe",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "f16c": "f16c",
    "fma": "fma",
    "avx": "avx",
    "avx2": "avx2",
    "gfni": "gfni",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_ifma": "avxifma",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "neon": "neon",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}

# Apple's sysctl names -> ours. The words in the x86 lists are folded to lower case before the look-up.
_APPLE_ARM = {
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_FP16": "fp16",
}
_APPLE_X86_LISTS = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
_APPLE_X86 = {
    "sse2": "sse2",
    "sse3": "sse3",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "popcnt": "popcnt",
    "movbe": "movbe",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "f16c": "f16c",
    "fma": "fma",
    "avx1.0": "avx",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512vbmi": "avx512vbmi",
    "avx512vnni": "avx512vnni",
}

# What every CPU of an architecture has, by the architecture's definition.
_BASELINE = {"x86_64": frozenset({"sse2"}), "aarch64": frozenset({"neon"})}

_MACHINE_ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def machine() -> str:
    """This process's architecture as Linux names it: "x86_64", "aarch64", ..."""
    if hasattr(os, "uname"):
        name = os.uname().machine
    else:
        name = os.environ.get("PROCESSOR_ARCHITECTURE", "unknown")
    return _MACHINE_ALIASES.get(name.lower(), name.lower())


@cache
def cpu_features() -> frozenset[str]:
    """Feature names of this machine's CPU that its operating system lets programs use.

    Linux is asked through /proc/cpuinfo, macOS through sysctl. Elsewhere, and where neither answers, only the
    architecture's baseline is claimed: a program that needs more is refused rather than crashed.
    """
    found: frozenset[str] = frozenset()
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
                found = parse_cpuinfo(lines)
        except OSError:
            pass
    elif sys.platform == "darwin":
        found = _apple_features()
    return found | _BASELINE.get(machine(), frozenset())


def cpu_name() -> str:
    """What this machine's CPU calls itself, for people; empty where that is not known."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return ""


def parse_cpuinfo(lines: Iterable[str]) -> frozenset[str]:
    """The known features in the text of /proc/cpuinfo: those of its first CPU, which Linux makes all CPUs share."""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(_LINUX[word] for word in value.split() if word in _LINUX)
    return frozenset()


def _apple_features() -> frozenset[str]:
    found = {ours for name, ours in _APPLE_ARM.items() if _sysctl(name)[:1] == b"\x01"}
    for name in _APPLE_X86_LISTS:
        words = _sysctl(name).rstrip(b"\0").decode("ascii", "replace").lower().split()
        found.update(_APPLE_X86[word] for word in words if word in _APPLE_X86)
    return frozenset(found)


def _sysctl(name: str) -> bytes:
    """The raw value of a sysctl; empty if there is none of that name."""
    import ctypes

    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(0)
    if libc.sysctlbyname(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return b""
    buffer = ctypes.create_string_buffer(size.value)
    if libc.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return b""
    return buffer.raw[: size.value]
