"""How bytes of depthwise rows become dwords of taps, and results become bytes again, for each vector width.

512 bits: 64 channels a step, two rounds of unpacking. 256 bits: 16 channels, widened to words as they are loaded, so
that accumulators and weights fit in 16 registers; a dword is then two words, or, with vpdpbusd, four bytes put
together."""

from __future__ import annotations

from collections.abc import Sequence

from qcomp.codegen.c.x86.isa import Isa


def channels(isa: Isa) -> int:
    """Channels of a step."""
    return isa.dw_vectors * isa.lanes


def segment_counts(isa: Isa) -> tuple[int, ...]:
    """Into how many pieces of a row a step's lanes may be divided, fewest channels first."""
    return (4, 2, 1) if isa.bits == 512 else (2, 1)


def load(isa: Isa, address: str, segments: int) -> str:
    """A step's channels; with `segments`, as many fewer from each of several places x_seg bytes apart."""
    if isa.bits == 512:
        return isa.load_parts([address, *(f"{address} + {i} * x_seg" for i in range(1, segments))])
    if segments == 1:
        return f"_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)({address})))"
    low, high = (f"_mm_loadl_epi64((const __m128i*)({address}{at}))" for at in ("", " + x_seg"))
    return f"_mm256_cvtepu8_epi16(_mm_unpacklo_epi64({low}, {high}))"


def interleave(isa: Isa, id: int | str, names: Sequence[str]) -> tuple[str, ...]:
    """Statements that define v{id}_0.. with a dword for each channel, of one to four vectors of taps.

    Where there are fewer than a dword holds, the others are any bytes: their weights are zero."""
    if isa.bits == 512:
        return _interleave512(id, names)
    if isa.taps == 2:
        low, high = names[0], names[-1]
        lines: tuple[str, ...] = ()
    else:
        low, high = f"l{id}", f"h{id}" if len(names) > 2 else f"l{id}"
        pairs = [(low, names[:2]), (high, names[2:])][: -(-len(names) // 2)]
        lines = tuple(f"const __m256i {name} = {_bytes(pair)};" for name, pair in pairs)
    unpacked = ", ".join(
        f"v{id}_{v} = _mm256_unpack{half}_epi16({low}, {high})" for v, half in enumerate(("lo", "hi"))
    )
    return (*lines, f"const __m256i {unpacked};")


def _bytes(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"_mm256_or_si256({names[0]}, _mm256_slli_epi16({names[1]}, 8))"


def _interleave512(id: int | str, names: Sequence[str]) -> tuple[str, ...]:
    picks = {1: (0, 0, 0, 0), 2: (0, 1, 0, 1), 3: (0, 1, 2, 2), 4: (0, 1, 2, 3)}[len(names)]
    a, b, c, d = (names[i] for i in picks)

    def unpack(left: str, right: str, results: tuple[str, str], bits: int) -> str:
        low, high = (f"_mm512_unpack{half}_epi{bits}({left}, {right})" for half in ("lo", "hi"))
        return f"const __m512i {results[0]} = {low}, {results[1]} = {high};"

    same = f"const __m512i l{id}b = l{id}a, h{id}b = h{id}a;"
    return (
        unpack(a, b, (f"l{id}a", f"h{id}a"), 8),
        same if (a, b) == (c, d) else unpack(c, d, (f"l{id}b", f"h{id}b"), 8),
        unpack(f"l{id}a", f"l{id}b", (f"v{id}_0", f"v{id}_1"), 16),
        unpack(f"h{id}a", f"h{id}b", (f"v{id}_2", f"v{id}_3"), 16),
    )


def pixel_order(isa: Isa) -> tuple[int, ...]:
    """Dword order after packing that puts a step's bytes first, segment after segment."""
    return isa.pixel_order(isa.dw_vectors)


def stores(isa: Isa, segments: int, masked: bool) -> tuple[str, ...]:
    """Statements that write vector p: one run of bytes, or one for each segment."""
    parts = segments * 4 // isa.dw_vectors
    at = ["y"] if segments == 1 else [f"y + {i} * y_seg" for i in range(segments)]
    return tuple(isa.store_part(address, i, parts, masked) for i, address in enumerate(at))
