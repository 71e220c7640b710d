"""Where Linux says which features an ARM CPU has: arch/arm64/include/uapi/asm/hwcap.h."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qcomp.errors import QcompError


@dataclass(frozen=True, order=True)
class HwcapBit:
    """A bit of AT_HWCAP (word 0) or AT_HWCAP2 (word 1)."""

    word: int
    bit: int


#: By the names of runtime/features.py.
BITS: dict[str, HwcapBit] = {
    "neon": HwcapBit(0, 1),
    "fp16": HwcapBit(0, 10),
    "dotprod": HwcapBit(0, 20),
    "sve": HwcapBit(0, 22),
    "sve2": HwcapBit(1, 1),
    "i8mm": HwcapBit(1, 13),
    "bf16": HwcapBit(1, 14),
}


def bits(features: Iterable[str]) -> dict[str, HwcapBit]:
    """The bits of these features, in their order; QcompError for one that the system does not tell."""
    wanted = sorted(features)
    for name in wanted:
        if name not in BITS:
            raise QcompError(
                f"no code can ask the system for feature {name!r} when it runs",
                where="codegen/c/hwcap.py", fix="add its bit, or leave out the level that needs it",
            )  # fmt: skip
    return {name: BITS[name] for name in sorted(wanted, key=lambda name: BITS[name])}
