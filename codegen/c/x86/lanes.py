"""Elements of bytes and of int16 as dwords, one a lane: the text that loads and stores a vector of them."""

from __future__ import annotations

from qcomp.codegen.c.x86.isa import Isa
from qcomp.ir import DType

#: C types of activations as they are stored.
STORED = {DType.I8: "uint8_t", DType.I16: "int16_t", DType.F32: "float"}


def load_dwords(isa: Isa, dtype: DType, address: str) -> str:
    """A vector of dwords from as many stored integers."""
    source = isa.bits * dtype.bits // 32
    kind = "u8" if dtype is DType.I8 else "i16"
    if source == 64:
        loaded = f"_mm_loadl_epi64((const __m128i*)({address}))"
    else:
        loaded = f"{'_mm256' if source == 256 else '_mm'}_loadu_si{source}((const __m{source}i*)({address}))"
    return f"{isa.mm}_cvtep{kind}_epi32({loaded})"


def load_words(isa: Isa, dtype: DType, address: str) -> str:
    """A vector of words from as many stored integers."""
    if dtype is DType.I16:
        return isa.load(address)
    half = isa.bits // 2
    loaded = f"{'_mm256' if half == 256 else '_mm'}_loadu_si{half}((const __m{half}i*)({address}))"
    return f"{isa.mm}_cvtepu8_epi16({loaded})"


def store_dwords(isa: Isa, dtype: DType, address: str, value: str) -> str:
    """Stores dwords that are in the range of the stored integers."""
    if dtype is DType.I16:
        return isa.store_words(address, value, 0, False)
    if isa.bits == 512:
        return f"_mm_storeu_si128((__m128i*)({address}), _mm512_cvtepi32_epi8({value}))"
    return f"_mm_storel_epi64((__m128i*)({address}), _mm_packus_epi16(qc_x86_words({value}), _mm_setzero_si128()))"
