"""How products are done: what a CPU has for them, and what each costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qcomp.codegen.tvm.intrinsics.dots import sdot, vnni, words
from qcomp.targets import Target


@dataclass(frozen=True)
class Form:
    """`lanes` channels at a time, each the sum of `unit` products (a multiple of 4; 1: each channel has an input
    channel of its own) of stored activations of that dtype, for CPUs with `features`.

    sums: how many vectors of sums leave room for operands.  cycles: about, of a vector of products; loads: of its
    operands.  weights: their type as they are packed.  intrinsic: names what computes a vector; without it, whatever
    LLVM makes of the compute.  tiled: sums are in tile registers.  by_rows: a row of taps is multiplied at once."""

    name: str
    lanes: int
    unit: int
    dtype: str
    features: tuple[str, ...]
    sums: int
    cycles: float
    loads: float
    weights: str = "int8"
    intrinsic: Callable[[], str] | None = None
    tiled: bool = False
    by_rows: bool = False

    @property
    def depthwise(self) -> bool:
        return self.unit == 1

    def units(self, depth: int) -> int:
        """Steps that a tap of so many bytes takes."""
        return 1 if self.depthwise else -(-depth // self.unit)

    def fits(self, target: Target) -> bool:
        unsigned = target.activation_storage == "u8"
        return target.features.issuperset(self.features) and unsigned == (self.dtype == "uint8")


_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
_DOTPROD = ("neon", "dotprod")
AMX = Form("amx", 16, 64, "uint8", (*_AVX512, "amx_tile", "amx_int8"), 4, 16.0, 0.0, tiled=True)
VNNI = Form("vnni", 16, 4, "uint8", _AVX512, 26, 0.6, 0.5, intrinsic=vnni)
SDOT = Form("sdot", 4, 16, "int8", _DOTPROD, 18, 4.0, 2.0, intrinsic=sdot)
ROWS = Form("rows", 64, 1, "uint8", _AVX512, 5, 3.7, 0.0, by_rows=True)
WORDS = Form("words", 16, 1, "uint8", _AVX512, 26, 2.0, 0.5, "int32", words)
LANES = Form("lanes", 8, 1, "int8", _DOTPROD, 8, 2.0, 1.0, "int16")

#: Of each kind, all forms; which of those that fit is taken is a matter of estimates, and of tuning.
DENSE = (AMX, VNNI, SDOT)
DEPTHWISE = (ROWS, WORDS, LANES)
