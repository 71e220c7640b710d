"""Vectors of products: dot products of four bytes a lane, and single products of channels."""

from __future__ import annotations

from functools import cache

from qcomp.codegen.tvm.intrinsics.script import registered

_OPERANDS = """
@T.prim_func(s_tir=True)
def dots(
    A: T.Buffer(({quads}4,), {dtype}, offset_factor=1),
    B: T.Buffer(({quads}{lanes}, 4), "int8", offset_factor=1),
    C: T.Buffer(({lanes},), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{lanes}], A[{all_quads}0:4], B[{all_quads}0:{lanes}, 0:4])
        T.writes(C[0:{lanes}])
"""

_DOTS = """
        for l, {q}r in T.grid({lanes}, {quads}4):
            with T.sblock("update"):
                vl, {vq}vr = T.axis.remap("{kinds}", [l, {q}r])
                C[vl] = C[vl] + T.cast(A[{vq}vr], "int32") * T.cast(B[{vq}vl, vr], "int32")
"""

_CHANNELS = """
@T.prim_func(s_tir=True)
def taps(
    A: T.Buffer((16,), "uint8", offset_factor=1),
    B: T.Buffer((16,), "int32", offset_factor=1),
    C: T.Buffer((16,), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:16], A[0:16], B[0:16])
        T.writes(C[0:16])
"""

_TAPS = """
        for l in T.serial(16):
            with T.sblock("update"):
                vl = T.axis.spatial(16, l)
                C[vl] = C[vl] + T.cast(A[vl], "int32") * B[vl]
"""

_VNNI = """C[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
            C.vload([0], dtype="int32x16"),
            T.reinterpret(
                T.broadcast(T.reinterpret(A.vload([0], "uint8x4"), dtype="int32"), 16), dtype="uint8x64"
            ),
            B.vload([0, 0], dtype="int8x64"),
            dtype="int32x16",
        )"""

_WORDS = """C[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpwssd.512"),
            C.vload([0], dtype="int32x16"),
            T.reinterpret(T.cast(A.vload([0], dtype="uint8x16"), "int32x16"), dtype="int16x32"),
            T.reinterpret(B.vload([0], dtype="int32x16"), dtype="int16x32"),
            dtype="int32x16",
        )"""


@cache
def vnni() -> str:
    """16 channels of 4 products each by VPDPBUSD: unsigned times signed bytes."""
    return registered("qcomp.vnni", _OPERANDS, _DOTS, [_VNNI], **_dots("uint8", 1, 16))


@cache
def sdot() -> str:
    """4 channels of 16 products each by SDOT: signed bytes."""
    # The same dword of 16 loaded bytes in all lanes: SDOT takes it by its number, as its last operand.
    products = [
        'C[T.ramp(T.int32(0), 1, 4)] = T.call_llvm_pure_intrin('
        'T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.sdot.v4i32.v16i8"), C.vload([0], dtype="int32x4"), '
        f'B.vload([{quad}, 0, 0], dtype="int8x16"), '
        'T.reinterpret(T.Shuffle([T.reinterpret(A.vload([0, 0], "int8x16"), dtype="int32x4")], '
        f'{[quad] * 4}), dtype="int8x16"), dtype="int32x4")'
        for quad in range(4)
    ]
    return registered("qcomp.sdot", _OPERANDS, _DOTS, products, **_dots("int8", 4, 4))


@cache
def words() -> str:
    """One product each of 16 channels by VPDPWSSD: unsigned bytes times weights in the low halves of 32 bits."""
    return registered("qcomp.words", _CHANNELS, _TAPS, [_WORDS])


def _dots(dtype: str, quads: int, lanes: int) -> dict[str, object]:
    """Of sums of `quads` times 4 products, `lanes` of them, what the text says."""
    if quads == 1:
        names = {"quads": "", "q": "", "all_quads": "", "vq": "", "kinds": "SR"}
    else:
        names = {"quads": f"{quads}, ", "q": "q, ", "all_quads": f"0:{quads}, ", "vq": "vq, ", "kinds": "SRR"}
    return {"dtype": f'"{dtype}"', "lanes": lanes, **names}
