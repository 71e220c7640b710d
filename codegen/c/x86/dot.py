"""Products of unsigned with signed bytes, four taps a dword, as each instruction set has them.

A form says how a tile's weights and pixels become registers and how they join the accumulators; its costs are cycles of
a core with two multipliers. `vpmaddubsw` saturates at 16 bits, so its form is for weights that prove it cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.codegen.c.vector.shapes import Int8


@dataclass(frozen=True, eq=False)
class Dot(ABC):
    """One form. `tiles` maps widths in vectors to the heights whose tile fits in the registers; the widths in `wide`
    may cover most of a layer, the others its rest."""

    name: str
    tiles: tuple[tuple[int, tuple[int, ...]], ...]
    wide: tuple[int, ...]
    mm: str = "_mm256"
    vi: str = "__m256i"

    cycles: ClassVar[float] = 0.5
    row_cycles: ClassVar[float] = 0.0
    vector_cycles: ClassVar[float] = 0.0
    latency: ClassVar[float] = 4.0
    shares: ClassVar[tuple[int, ...]] = ()
    """Numbers of kernel columns whose weights have registers beside the accumulators of one vector of channels."""
    trims: ClassVar[bool] = True
    """Whether a vector of packed weights may end with the last lane of 128 bits that holds a channel."""

    def rows(self, vectors: int) -> tuple[int, ...]:
        return dict(self.tiles)[vectors]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(vectors for vectors, _ in self.tiles)

    def _load(self, address: str) -> str:
        if self.mm == "_mm512":
            return f"_mm512_loadu_si512({address})"
        return f"_mm256_loadu_si256((const __m256i*)({address}))"

    def as_bytes(self, weights: Int8) -> Int8:
        """Weights [..., C] as the bytes of the taps that meet the input's: [..., C] or, as int16, [..., 2 * C]."""
        return weights

    def arrange(self, body: Int8, lanes: int) -> Int8:
        """Weights [runs, dwords, channels, 4] as they lie in memory."""
        return body

    def weights(self, v: int, address: str) -> tuple[str, ...]:
        """Statements that bring in vector v of the weights."""
        return (f"const {self.vi} w{v} = {self._load(address)};",)

    def pixel(self, m: int, address: str) -> tuple[str, ...]:
        """Statements that spread four bytes of pixel m."""
        return (f"const {self.vi} b{m} = {self.mm}_set1_epi32(*(const qc_x86_i32*)({address}));",)

    def product(self, c: str, m: int, v: int) -> str:
        """c plus the products of pixel m with vector v."""
        return self.add(c, f"b{m}", f"w{v}")

    @abstractmethod
    def add(self, c: str, a: str, w: str) -> str:
        """c plus the dot products in each dword of a with w."""


class Vnni512(Dot):
    """AVX512-VNNI."""

    shares = (2, 3, 5, 7)

    def add(self, c: str, a: str, w: str) -> str:
        return f"_mm512_dpbusd_epi32({c}, {a}, {w})"


class Vnni256(Dot):
    """AVX-VNNI."""

    def add(self, c: str, a: str, w: str) -> str:
        return f"_mm256_dpbusd_avx_epi32({c}, {a}, {w})"


class Maddubs(Dot):
    """Pairs summed in 16 bits: exact only where `pairs_fit`."""

    cycles, latency = 1.0, 1.0

    def add(self, c: str, a: str, w: str) -> str:
        pairs = f"_mm256_maddubs_epi16({a}, {w})"
        return f"_mm256_add_epi32({c}, _mm256_madd_epi16({pairs}, _mm256_set1_epi16(1)))"


class Madd(Dot):
    """Bytes widened to 16 bits, even and odd taps apart: exact for all weights.

    `add` takes operands that are 16 bits already, two taps a dword."""

    cycles, row_cycles, vector_cycles, latency, trims = 1.0, 0.5, 0.5, 1.0, False

    def as_bytes(self, weights: Int8) -> Int8:
        """Weights [..., C] as the bytes of the taps that meet the input's: [..., C] or, as int16, [..., 2 * C]."""
        return weights

    def arrange(self, body: Int8, lanes: int) -> Int8:
        """Of each vector the even taps of all its channels, then the odd ones."""
        runs, dwords, channels, _ = body.shape
        parts = body.reshape(runs, dwords, channels // lanes, lanes, 2, 2)
        return parts.transpose(0, 1, 2, 5, 3, 4)

    def weights(self, v: int, address: str) -> tuple[str, ...]:
        return tuple(
            f"const __m256i {name}{v} = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)({address}{at})));"
            for name, at in (("we", ""), ("wo", " + 16"))
        )

    def pixel(self, m: int, address: str) -> tuple[str, ...]:
        return (
            *super().pixel(m, address),
            f"const __m256i be{m} = _mm256_and_si256(b{m}, _mm256_set1_epi16(255));",
            f"const __m256i bo{m} = _mm256_srli_epi16(b{m}, 8);",
        )

    def product(self, c: str, m: int, v: int) -> str:
        return self.add(self.add(c, f"be{m}", f"we{v}"), f"bo{m}", f"wo{v}")

    def add(self, c: str, a: str, w: str) -> str:
        return f"_mm256_add_epi32({c}, _mm256_madd_epi16({a}, {w}))"


class Words(Dot):
    """int16 and weights widened to it, two taps a dword: `instruction` adds pairs of products in 32 bits, exact for all
    weights in [-127, 127]."""

    instruction: ClassVar[str] = "_mm256_add_epi32({c}, _mm256_madd_epi16({a}, {w}))"

    def as_bytes(self, weights: Int8) -> Int8:
        return np.ascontiguousarray(weights.astype("<i2")).view(np.int8)

    def add(self, c: str, a: str, w: str) -> str:
        return self.instruction.format(c=c, a=a, w=w)


class VnniWords512(Words):
    instruction = "_mm512_dpwssd_epi32({c}, {a}, {w})"


class VnniWords256(Words):
    instruction = "_mm256_dpwssd_avx_epi32({c}, {a}, {w})"


def pairs_fit(weights: Int8) -> bool:
    """Whether no sum of two products of bytes 0..255 with adjacent weights (last axis: taps of a dword) leaves
    int16."""
    pairs = weights.reshape(-1, 2).astype(np.int32)
    high, low = 255 * np.maximum(pairs, 0).sum(axis=1), 255 * np.minimum(pairs, 0).sum(axis=1)
    return bool(np.all(high <= 32767) and np.all(low >= -32768))


VNNI512 = Vnni512(
    "vnni",
    (
        (4, (6, 5, 4, 3, 2, 1)),
        (3, (8, 7, 6, 5, 4, 3, 2, 1)),
        (2, (14, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)),
        (1, (16, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)),
    ),
    (4, 3),
    "_mm512",
    "__m512i",
)
VNNI256 = Vnni256(
    "avxvnni",
    (
        (3, (4, 3, 2, 1)),
        (2, (6, 5, 4, 3, 2, 1)),
        (1, (12, 10, 8, 7, 6, 5, 4, 3, 2, 1)),
    ),
    (3, 2),
)
MADDUBS = Maddubs(
    "avx2 maddubs",
    (
        (3, (3, 2, 1)),
        (2, (5, 4, 3, 2, 1)),
        (1, (10, 8, 7, 6, 5, 4, 3, 2, 1)),
    ),
    (3, 2),
)
MADD = Madd("avx2 madd", ((2, (4, 3, 2, 1)), (1, (8, 7, 6, 5, 4, 3, 2, 1))), (2,))
#: By the name of the form for bytes, that for int16.
WORDS: dict[str, Words] = {
    "vnni": VnniWords512("vnni words", VNNI512.tiles, VNNI512.wide, "_mm512", "__m512i"),
    "avxvnni": VnniWords256("avxvnni words", VNNI256.tiles, VNNI256.wide),
    "avx2 madd": Words("avx2 words", MADDUBS.tiles, MADDUBS.wide),
}
