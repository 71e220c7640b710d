"""Where x86 CPUs say which features they have: Intel's manual, volume 2, CPUID; AMD's, volume 3, appendix E."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qcomp.errors import QcompError

_YMM = 0b110  # bits of XCR0: the system saves the registers xmm and ymm
_ZMM = 0b1110_0110  # mask registers and zmm too
_TILES = 0b110 << 16


@dataclass(frozen=True, order=True)
class Bit:
    """One bit that CPUID returns, and the bits of XCR0 without which the feature cannot be used.

    `permission` is a C function that has to return 0 first, called only if all else is there."""

    leaf: int
    subleaf: int
    register: str
    bit: int
    state: int = 0
    permission: str = ""

    @property
    def word(self) -> int:
        """Which of eax, ebx, ecx, edx."""
        return "abcd".index(self.register)


#: By the names of runtime/features.py.
BITS: dict[str, Bit] = {
    "sse3": Bit(1, 0, "c", 0),
    "ssse3": Bit(1, 0, "c", 9),
    "fma": Bit(1, 0, "c", 12, _YMM),
    "sse4_1": Bit(1, 0, "c", 19),
    "sse4_2": Bit(1, 0, "c", 20),
    "movbe": Bit(1, 0, "c", 22),
    "popcnt": Bit(1, 0, "c", 23),
    "avx": Bit(1, 0, "c", 28, _YMM),
    "f16c": Bit(1, 0, "c", 29, _YMM),
    "sse2": Bit(1, 0, "d", 26),
    "bmi": Bit(7, 0, "b", 3),
    "avx2": Bit(7, 0, "b", 5, _YMM),
    "bmi2": Bit(7, 0, "b", 8),
    "avx512f": Bit(7, 0, "b", 16, _ZMM),
    "avx512dq": Bit(7, 0, "b", 17, _ZMM),
    "avx512ifma": Bit(7, 0, "b", 21, _ZMM),
    "avx512cd": Bit(7, 0, "b", 28, _ZMM),
    "avx512bw": Bit(7, 0, "b", 30, _ZMM),
    "avx512vl": Bit(7, 0, "b", 31, _ZMM),
    "avx512vbmi": Bit(7, 0, "c", 1, _ZMM),
    "avx512vbmi2": Bit(7, 0, "c", 6, _ZMM),
    "gfni": Bit(7, 0, "c", 8),
    "avx512vnni": Bit(7, 0, "c", 11, _ZMM),
    "avx512bitalg": Bit(7, 0, "c", 12, _ZMM),
    "avx512vpopcntdq": Bit(7, 0, "c", 14, _ZMM),
    "amx_bf16": Bit(7, 0, "d", 22, _TILES, "qcomp_enable_amx"),
    "avx512fp16": Bit(7, 0, "d", 23, _ZMM),
    "amx_tile": Bit(7, 0, "d", 24, _TILES, "qcomp_enable_amx"),
    "amx_int8": Bit(7, 0, "d", 25, _TILES, "qcomp_enable_amx"),
    "avxvnni": Bit(7, 1, "a", 4, _YMM),
    "avx512bf16": Bit(7, 1, "a", 5, _ZMM),
    "avxifma": Bit(7, 1, "a", 23, _YMM),
    "avxvnniint8": Bit(7, 1, "d", 4, _YMM),
    "lzcnt": Bit(0x80000001, 0, "c", 5),
}


def bits(features: Iterable[str]) -> dict[str, Bit]:
    """The bits of these features, in the order of the leaves; QcompError for one that CPUID does not tell."""
    wanted = sorted(features)
    for name in wanted:
        if name not in BITS:
            raise QcompError(
                f"no code can ask the CPU for feature {name!r} when it runs",
                where="codegen/c/cpuid.py", fix="add its bit, or leave out the level that needs it",
            )  # fmt: skip
    return {name: BITS[name] for name in sorted(wanted, key=lambda name: BITS[name])}


def permissions(features: Iterable[str]) -> tuple[str, ...]:
    """The C functions that must grant the use of these features, each once."""
    return tuple(sorted({BITS[name].permission for name in features if name in BITS and BITS[name].permission}))
