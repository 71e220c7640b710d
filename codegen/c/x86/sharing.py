"""The 256-bit kernels in forms that read the same packed weights, for artifacts that hold code for several targets.

They cut channels alike and take weights as they come, four taps a dword. Alone they are up to 3 % slower than the forms
of isa.py."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.vector.shapes import Int8
from qcomp.codegen.c.x86.dot import MADD, MADDUBS, VNNI256, Madd, Maddubs, Vnni256, Words, pairs_fit
from qcomp.codegen.c.x86.isa import AVX2, AVX2_PAIRS, AVXVNNI, Avx256, Isa
from qcomp.codegen.c.x86.kernels import X86_KERNELS
from qcomp.codegen.c.x86.row import X86Kernel

_WIDTHS = (2, 1)


class WholeMadd(Madd):
    """As Madd, but even and odd taps part in registers."""

    vector_cycles, trims = 0.75, True

    def arrange(self, body: Int8, lanes: int) -> Int8:
        return body

    def weights(self, v: int, address: str) -> tuple[str, ...]:
        return (
            f"const __m256i w{v} = {self._load(address)};",
            f"const __m256i we{v} = _mm256_srai_epi16(_mm256_slli_epi16(w{v}, 8), 8);",
            f"const __m256i wo{v} = _mm256_srai_epi16(w{v}, 8);",
        )


class SharingAvx2(Avx256):
    """AVX2 with these forms."""

    def for_weights(self, weights: Int8) -> Isa:
        return _PAIRS if not isinstance(self.dot, Words) and pairs_fit(weights) else self


def _tiles(tiles: tuple[tuple[int, tuple[int, ...]], ...]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    return tuple((vectors, rows) for vectors, rows in tiles if vectors in _WIDTHS)


_PAIRS = replace(AVX2_PAIRS, dot=Maddubs(MADDUBS.name, _tiles(MADDUBS.tiles), _WIDTHS[:1]))
SHARING: dict[Isa, Isa] = {
    AVXVNNI: replace(AVXVNNI, dot=Vnni256(VNNI256.name, _tiles(VNNI256.tiles), _WIDTHS[:1])),
    AVX2: SharingAvx2(
        AVX2.name, AVX2.features, AVX2.bits, WholeMadd(MADD.name, _tiles(MADD.tiles), _WIDTHS[:1]), AVX2.resident,
        AVX2.dw_vectors,
    ),
}  # fmt: skip


def _sharing(kernel: Kernel) -> Kernel:
    if not isinstance(kernel, X86Kernel) or kernel.isa not in SHARING:
        return kernel
    twin = copy(kernel)
    twin.isa = SHARING[kernel.isa]
    return twin


SHARING_X86_KERNELS: tuple[Kernel, ...] = tuple(map(_sharing, X86_KERNELS))
