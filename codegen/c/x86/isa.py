"""Vector instruction sets as the generators and templates see them: text of a few operations each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.shapes import Int8, UInt8
from qcomp.codegen.c.x86.dot import MADD, MADDUBS, VNNI256, VNNI512, WORDS, Dot, Madd, pairs_fit
from qcomp.codegen.c.x86.render import render

#: The bits of this float plus an integer below 2**22 in magnitude are the bits of their sum.
FLOAT_OFFSET = 1.5 * 2.0**23


@dataclass(frozen=True, eq=False)
class Isa(ABC):
    """A vector width with its products. Vectors of 32-bit elements come from `features`; `mm` starts their intrinsics.

    Rounding is that of the default floating point environment: to nearest, ties to even."""

    name: str
    features: frozenset[str]
    bits: int
    dot: Dot
    resident: int
    """Accumulators and weights of a depthwise row that fit in registers together; with more of them weights are
    operands in memory."""
    dw_vectors: int
    """Accumulator vectors of a depthwise output pixel."""
    vbmi: bool = False
    variant: str = ""
    """What tells functions of these products from others of the same target."""

    @property
    def mm(self) -> str:
        return f"_mm{self.bits}"

    @property
    def vi(self) -> str:
        return f"__m{self.bits}i"

    @property
    def vf(self) -> str:
        return f"__m{self.bits}"

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def lanes(self) -> int:
        """32-bit elements of a vector."""
        return self.bits // 32

    @property
    def quarters(self) -> int:
        """128-bit lanes, inside which packs and unpacks work."""
        return self.bits // 128

    @property
    def zero(self) -> str:
        return f"{self.mm}_setzero_si{self.bits}()"

    @property
    def taps(self) -> int:
        """Depthwise taps that one dword holds."""
        return 2 if isinstance(self.dot, Madd) else 4

    def for_weights(self, weights: Int8) -> Isa:
        """This instruction set with the fastest products that are exact for weights [..., 4] (taps of a dword)."""
        return self

    @property
    def for_words(self) -> Isa:
        """This instruction set with products of int16 and weights that were widened to it."""
        return _with_words(self)

    @property
    def for_ones(self) -> Isa:
        """This instruction set with the fastest products that are exact for weights of one."""
        return self.for_weights(np.ones(4, np.int8))

    def as_float(self, value: str) -> str:
        """The same bits as floats."""
        return f"{self.mm}_castsi{self.bits}_ps({value})"

    def logic(self, op: str, a: str, b: str) -> str:
        """Bitwise `op` (and, or, xor) of whole vectors."""
        return f"{self.mm}_{op}_si{self.bits}({a}, {b})"

    @property
    def table_name(self) -> str:
        return f"qc_x86_table{self.bytes}_{self.table_form}"

    @property
    def table_helper(self) -> CFunction:
        """C function that maps a vector of bytes through a 256-entry table, packed by `packed_table`."""
        return CFunction(self.table_name, render(f"table_{self.table_form}.c.j2"))

    def packed_table(self, table: Sequence[int]) -> UInt8:
        return np.array(table, np.uint8)

    @property
    def helpers(self) -> tuple[CFunction, ...]:
        """C functions that loads and stores of parts of a vector call."""
        return ()

    def multiply_add(self, a: str, b: str, c: str) -> str:
        """a * b + c of floats, rounded once."""
        return f"{self.mm}_fmadd_ps({a}, {b}, {c})"

    def offset_product(self, scale: str) -> str:
        """What `multiply_add` of accumulators that hold the bits of floats adds: minus their offset times the scale."""
        return f"{self.mm}_mul_ps({scale}, {self.mm}_set1_ps({float_literal(-FLOAT_OFFSET)}))"

    def load_floats(self, address: str) -> str:
        return f"{self.mm}_loadu_ps((const float*)({address}))"

    def load_halves(self, address: str) -> str:
        """Halves times the node's unit as floats."""
        half = self.bits // 2
        load = f"{'_mm256' if half == 256 else '_mm'}_loadu_si{half}((const __m{half}i*)({address}))"
        return f"{self.mm}_mul_ps({self.mm}_cvtph_ps({load}), {self.mm}_set1_ps(q->unit))"

    @property
    @abstractmethod
    def table_form(self) -> str:
        """Which way of looking up bytes in a table, as names of functions and templates have it."""

    @property
    @abstractmethod
    def tail_field(self) -> str:
        """Declaration in the node's parameters that says how many channels a tail tile has."""

    @abstractmethod
    def tail(self, channels: int) -> str:
        """Its value."""

    @abstractmethod
    def load(self, address: str) -> str: ...

    @abstractmethod
    def load_parts(self, addresses: Sequence[str]) -> str:
        """One vector of 1, 2 or 4 equal parts from as many places."""

    @abstractmethod
    def load_first(self, address: str, count: str) -> str:
        """Loads `count` bytes, fewer than a vector, and reads nothing else; zeros follow them."""

    @abstractmethod
    def store(self, address: str, value: str) -> str: ...

    @abstractmethod
    def store_first(self, address: str, value: str, count: str) -> str:
        """Stores the first `count` bytes, fewer than a vector."""

    @abstractmethod
    def store_floats(self, address: str, value: str, first: int, masked: bool) -> str:
        """Stores a vector of floats; with `masked` those of channels (from `first` on) that a tail tile has."""

    @abstractmethod
    def store_words(self, address: str, value: str, first: int, masked: bool) -> str:
        """Stores dwords in the range of int16 as that; masked as `store_floats` has it."""

    @abstractmethod
    def round(self, value: str) -> str:
        """Floats to int32, ties to even."""

    @abstractmethod
    def permute(self, order: str, value: str) -> str:
        """Dwords of value in the order of a vector of indices."""

    @abstractmethod
    def store_part(self, address: str, part: int, parts: int, masked: bool) -> str:
        """Stores one of `parts` (1, 2 or 4) equal parts of vector p, or of that what a tail tile has."""

    @abstractmethod
    def store_three(self, address: str, masked: bool) -> tuple[str, ...]:
        """Stores the first three quarters of vector p, or of them what a tail tile has."""

    def pixel_order(self, vectors: int) -> tuple[int, ...]:
        """Dword order that brings packed bytes into pixel-major order, for a tile width; empty where they are."""
        if vectors == 4:
            return ()
        pixels, lanes = 4 // vectors, range(self.quarters)
        order = [4 * q + m * vectors + v for m in range(pixels) for q in lanes for v in range(vectors)]
        return (*order, *(i for i in range(self.lanes) if i not in order))


class Avx512(Isa):
    """32 registers and masks."""

    @property
    def table_form(self) -> str:
        return "vbmi" if self.vbmi else "bw"

    @property
    def tail_field(self) -> str:
        return "uint64_t mask"

    def tail(self, channels: int) -> str:
        return f"{hex((1 << min(64, channels)) - 1)}u"

    def load(self, address: str) -> str:
        return f"_mm512_loadu_si512({address})"

    def load_parts(self, addresses: Sequence[str]) -> str:
        if len(addresses) == 1:
            return self.load(addresses[0])
        if len(addresses) == 2:
            low, high = (f"_mm256_loadu_si256((const __m256i*)({address}))" for address in addresses)
            return f"_mm512_inserti64x4(_mm512_castsi256_si512({low}), {high}, 1)"
        parts = [f"_mm_loadu_si128((const __m128i*)({address}))" for address in addresses]
        text = f"_mm512_castsi128_si512({parts[0]})"
        for i in range(1, 4):
            text = f"_mm512_inserti32x4({text}, {parts[i]}, {i})"
        return text

    def load_first(self, address: str, count: str) -> str:
        return f"_mm512_maskz_loadu_epi8(qc_x86_tail({count}), {address})"

    def store(self, address: str, value: str) -> str:
        return f"_mm512_storeu_si512({address}, {value})"

    def store_first(self, address: str, value: str, count: str) -> str:
        return f"_mm512_mask_storeu_epi8({address}, ((__mmask64)1 << ({count})) - 1, {value})"

    def store_narrowed(self, address: str, value: str, mask: str) -> str:
        """Stores the low bytes of the dwords that a mask of 16 bits selects.

        One instruction, by name: clang up to 22 makes a store of 4 bytes of a masked store of truncated dwords whose
        mask is a constant with a single bit (https://github.com/llvm/llvm-project/issues/179489)."""
        return f"_mm512_mask_cvtepi32_storeu_epi8({address}, {mask}, {value})"

    def store_floats(self, address: str, value: str, first: int, masked: bool) -> str:
        if masked:
            return f"_mm512_mask_storeu_ps({address}, (__mmask16)(q->mask >> {first}), {value})"
        return f"_mm512_storeu_ps({address}, {value})"

    def store_words(self, address: str, value: str, first: int, masked: bool) -> str:
        if masked:
            return f"_mm512_mask_cvtepi32_storeu_epi16({address}, (__mmask16)(q->mask >> {first}), {value})"
        return f"_mm256_storeu_si256((__m256i*)({address}), _mm512_cvtepi32_epi16({value}))"

    def round(self, value: str) -> str:
        return f"_mm512_cvt_roundps_epi32({value}, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)"

    def permute(self, order: str, value: str) -> str:
        return f"_mm512_permutexvar_epi32({order}, {value})"

    def store_part(self, address: str, part: int, parts: int, masked: bool) -> str:
        if parts == 1:
            return f"_mm512_mask_storeu_epi8({address}, q->mask, p);" if masked else f"{self.store(address, 'p')};"
        bits, prefix, extract = (256, "_mm256", "i64x4_epi64") if parts == 2 else (128, "_mm", "i32x4_epi32")
        value = f"_mm512_extract{extract}(p, {part})" if part else f"_mm512_castsi512_si{bits}(p)"
        if masked:
            return f"{prefix}_mask_storeu_epi8({address}, (__mmask{bits // 8})q->mask, {value});"
        return f"{prefix}_storeu_si{bits}((__m{bits}i*)({address}), {value});"

    def store_three(self, address: str, masked: bool) -> tuple[str, ...]:
        if masked:
            return (f"_mm512_mask_storeu_epi8({address}, q->mask, p);",)
        return (
            f"_mm256_storeu_si256((__m256i*)({address}), _mm512_castsi512_si256(p));",
            f"_mm_storeu_si128((__m128i*)({address} + 32), _mm512_extracti32x4_epi32(p, 2));",
        )


class Avx256(Isa):
    """16 registers; what is left of a vector is stored in pieces of 16, 8, 4, 2 and 1 bytes."""

    @property
    def helpers(self) -> tuple[CFunction, ...]:
        return (CFunction("qc_x86_tail", render("tail_avx2.c.j2")),)

    @property
    def table_form(self) -> str:
        return "avx2"

    def packed_table(self, table: Sequence[int]) -> UInt8:
        """Of each half the rows of 16 entries, each XORed with the row before: see table_avx2.c.j2."""
        rows = np.array(table, np.uint8).reshape(2, 8, 16)
        return np.concatenate([rows[:, :1], rows[:, 1:] ^ rows[:, :-1]], axis=1).reshape(-1)

    def for_weights(self, weights: Int8) -> Isa:
        return AVX2_PAIRS if self is AVX2 and pairs_fit(weights) else self

    @property
    def tail_field(self) -> str:
        return "ptrdiff_t tail"

    def tail(self, channels: int) -> str:
        return str(channels)

    def load(self, address: str) -> str:
        return f"_mm256_loadu_si256((const __m256i*)({address}))"

    def load_parts(self, addresses: Sequence[str]) -> str:
        if len(addresses) == 1:
            return self.load(addresses[0])
        if len(addresses) == 2:
            halves = [f"_mm_loadu_si128((const __m128i*)({address}))" for address in addresses]
        else:
            parts = [f"_mm_loadl_epi64((const __m128i*)({address}))" for address in addresses]
            halves = [f"_mm_unpacklo_epi64({parts[i]}, {parts[i + 1]})" for i in (0, 2)]
        return f"_mm256_inserti128_si256(_mm256_castsi128_si256({halves[0]}), {halves[1]}, 1)"

    def load_first(self, address: str, count: str) -> str:
        return f"qc_x86_load_first({address}, {count})"

    def store(self, address: str, value: str) -> str:
        return f"_mm256_storeu_si256((__m256i*)({address}), {value})"

    def store_first(self, address: str, value: str, count: str) -> str:
        return f"qc_x86_store_first({address}, {value}, {count})"

    def store_floats(self, address: str, value: str, first: int, masked: bool) -> str:
        if masked:
            return f"_mm256_maskstore_ps({address}, qc_x86_lanes(q->tail - {first}), {value})"
        return f"_mm256_storeu_ps({address}, {value})"

    def store_words(self, address: str, value: str, first: int, masked: bool) -> str:
        if masked:
            return f"qc_x86_store_words({address}, {value}, q->tail - {first})"
        return f"_mm_storeu_si128((__m128i*)({address}), qc_x86_words({value}))"

    def round(self, value: str) -> str:
        return f"_mm256_cvtps_epi32({value})"

    def permute(self, order: str, value: str) -> str:
        return f"_mm256_permutevar8x32_epi32({value}, {order})"

    def _half(self, part: int) -> str:
        return "_mm256_extracti128_si256(p, 1)" if part else "_mm256_castsi256_si128(p)"

    def store_part(self, address: str, part: int, parts: int, masked: bool) -> str:
        if parts == 1:
            return f"{self.store_first(address, 'p', 'q->tail')};" if masked else f"{self.store(address, 'p')};"
        if parts == 2:
            if masked:
                return f"qc_x86_store_first16({address}, {self._half(part)}, q->tail);"
            return f"_mm_storeu_si128((__m128i*)({address}), {self._half(part)});"
        half = self._half(part // 2)
        value = f"_mm_unpackhi_epi64({half}, {half})" if part % 2 else half
        if masked:
            return f"qc_x86_store_first16({address}, {value}, q->tail);"
        return f"_mm_storel_epi64((__m128i*)({address}), {value});"

    def store_three(self, address: str, masked: bool) -> tuple[str, ...]:
        if masked:
            return (f"{self.store_first(address, 'p', 'q->tail')};",)
        return (
            f"_mm_storeu_si128((__m128i*)({address}), {self._half(0)});",
            f"_mm_storel_epi64((__m128i*)({address} + 16), {self._half(1)});",
        )


@cache
def _with_words(isa: Isa) -> Isa:
    return replace(isa, dot=WORDS[isa.dot.name], variant="_w")


_AVX2 = frozenset({"avx2", "f16c", "fma"})
_AVX512 = frozenset({"fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"})
AVX512 = Avx512("avx512", _AVX512, 512, VNNI512, 24, 4)
AVX512_VBMI = Avx512("avx512", _AVX512 | {"avx512vbmi"}, 512, VNNI512, 24, 4, True)
AVXVNNI = Avx256("avxvnni", _AVX2 | {"avxvnni"}, 256, VNNI256, 10, 2)
AVX2 = Avx256("avx2", _AVX2, 256, MADD, 10, 2)
AVX2_PAIRS = Avx256("avx2", _AVX2, 256, MADDUBS, 10, 2, variant="_pairs")
ISAS: tuple[Isa, ...] = (AVX512_VBMI, AVX512, AVXVNNI, AVX2)
