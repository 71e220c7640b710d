"""C text that loads and stores the first bytes of vectors, and nothing else of memory."""

from __future__ import annotations

from collections.abc import Iterator

_VECTOR = 16
_TYPES = {1: "int8_t", 2: "qc_neon_i16", 4: "qc_neon_i32", 8: "qc_neon_i64"}


def pieces(start: int, count: int) -> Iterator[tuple[int, int]]:
    """(size, byte in the vector) of the elements that `count` bytes from byte `start` on are moved by: each as large
    as its place allows."""
    end = start + count
    while start < end:
        size = next(s for s in (16, 8, 4, 2, 1) if start % s == 0 and start + s <= end)
        yield size, start
        start += size


def load(address: str, count: int, into: str = "vdupq_n_s8(0)", start: int = 0) -> str:
    """An int8x16_t: `into` with `count` bytes of memory in the place of those from byte `start` on."""
    for size, at in pieces(start, count):
        place = _shifted(address, at - start)
        if size == _VECTOR:
            return f"vld1q_s8({place})"
        bits = 8 * size
        vector = into if size == 1 else f"vreinterpretq_s{bits}_s8({into})"
        loaded = f"vld1q_lane_s{bits}((const {_TYPES[size]}*)({place}), {vector}, {at // size})"
        into = loaded if size == 1 else f"vreinterpretq_s8_s{bits}({loaded})"
    return into


def stores(address: str, vector: str, count: int, start: int = 0) -> list[str]:
    """Statements that store `count` bytes of an int8x16_t from its byte `start` on."""
    lines = []
    for size, at in pieces(start, count):
        place = _shifted(address, at - start)
        if size == _VECTOR:
            lines.append(f"vst1q_s8((int8_t*)({place}), {vector});")
        else:
            bits = 8 * size
            whole = vector if size == 1 else f"vreinterpretq_s{bits}_s8({vector})"
            lines.append(f"vst1q_lane_s{bits}(({_TYPES[size]}*)({place}), {whole}, {at // size});")
    return lines


def _shifted(address: str, by: int) -> str:
    return f"{address} + {by}" if by else address
