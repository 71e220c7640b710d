"""Rows of taps of depthwise convolutions: 64 channels, up to four taps a dword."""

from __future__ import annotations

from functools import cache

from qcomp.codegen.tvm.intrinsics.script import registered

LANES = 64

_OPERANDS = """
@T.prim_func(s_tir=True)
def row(
    A: T.Buffer(({taps}64,), "uint8", offset_factor=1),
    B: T.Buffer(({taps}64,), "int8", offset_factor=1),
    C: T.Buffer((64,), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:64], A[{all_taps}0:64], B[{all_taps}0:64])
        T.writes(C[0:64])
"""

_ROW = """
        for l, j in T.grid(64, {count}):
            with T.sblock("update"):
                vl{vj} = T.axis.remap("{kinds}", [l{j}])
                C[vl] = C[vl] + T.cast(A[{tap}vl], "int32") * T.cast(B[{tap}vl], "int32")
"""

_BOTH = """
@T.prim_func(s_tir=True)
def line(S: T.Buffer((64,), "int32", offset_factor=1), C: T.Buffer((64,), "int32", offset_factor=1)) -> None:
    with T.sblock("root"):
        T.reads(S[0:64])
        T.writes(C[0:64])
"""

_LINE = """
        for l in T.serial(64):
            with T.sblock("copy"):
                vl = T.axis.spatial(64, l)
                C[vl] = S[vl]
"""


@cache
def row(taps: int) -> tuple[str, str]:
    """Names of what adds a row of `taps` products to the sums of 64 channels by VPDPBUSD, and of what brings these into
    their order.

    Four taps of a channel become a dword by unpacking bytes and words, which leaves dwords of channels 16g + 4v + e in
    lane 4g + e of vector v; pairs of neighbours serve the taps of more than one pixel.  `row_bytes` says which tap each
    byte of the weights' dwords is for."""
    names = {"taps": f"{taps}, ", "all_taps": f"0:{taps}, ", "j": ", j", "vj": ", vj", "kinds": "SR", "tap": "vj, "}
    if taps == 1:  # a schedule has no iterator for a loop of one iteration
        names = dict.fromkeys(names, "") | {"kinds": "S"}
    return (
        registered(f"qcomp.row_{taps}", _OPERANDS, _ROW, _products(taps), count=taps, **names),
        registered("qcomp.row_order", _BOTH, _LINE, _order()),
    )


def _products(taps: int) -> list[str]:
    """A line for each vector of sums and each dword of taps."""
    lines = []
    for quad, starts in enumerate(row_pairs(taps)):
        for vector in range(4):
            first, second = (_pair(start, taps, high=vector >= 2) for start in starts)
            row = 4 * quad + vector
            place = f"{row}, 0" if taps > 1 else str(LANES * row)
            lines.append(
                f"C[T.ramp(T.int32({16 * vector}), 1, 16)] = T.call_llvm_pure_intrin("
                'T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"), '
                f'C.vload([{16 * vector}], dtype="int32x16"), {_unpacked(first, second, 2, high=vector % 2 == 1)}, '
                f'B.vload([{place}], dtype="int8x64"), dtype="int32x16")'
            )
    return lines


def _pair(start: int, taps: int, high: bool) -> str:
    """Bytes of two neighbouring taps, the last one in the place of one past it."""
    both = (f"{min(tap, taps - 1)}, " if taps > 1 else "" for tap in (start, start + 1))
    left, right = (f'A.vload([{tap}0], "uint8x64")' for tap in both)
    return _unpacked(left, right, 1, high)


def _unpacked(left: str, right: str, width: int, high: bool) -> str:
    """Elements of `width` bytes in turns, from the low or the high halves of 16-byte lanes."""
    half, order = 8 // width, []
    for lane in range(4):
        for place in range(half):
            first = lane * 16 + (place + half * high) * width
            order += [*range(first, first + width), *range(LANES + first, LANES + first + width)]
    return f"T.Shuffle([{left}, {right}], {order})"


def _order() -> list[str]:
    lines = []
    for lane in range(4):
        order = [16 * vector + 4 * lane + element for vector in range(4) for element in range(4)]
        whole = 'S.vload([0], dtype="int32x64")'
        lines.append(f"C[T.ramp(T.int32({16 * lane}), 1, 16)] = T.Shuffle([{whole}], {order})")
    return lines


def row_pairs(taps: int) -> list[tuple[int, int]]:
    """The first taps of the two pairs of neighbours in each dword of `row`: together they hold all taps."""
    found = []
    for first in range(0, taps, 4):
        last = min(first + 4, taps)  # taps first .. last - 1 are in this dword
        found.append((first, max(first, last - 2)))
    return found


def row_bytes(taps: int) -> list[int | None]:
    """Which tap each byte of the dwords of `row` is for; None for one that another has."""
    found: list[int | None] = []
    known: set[int] = set()
    for pair in row_pairs(taps):
        for start in pair:
            for tap in (start, start + 1):
                fresh = tap < taps and tap not in known
                found.append(tap if fresh else None)
                known.add(tap)
    return found
