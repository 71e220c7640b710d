"""Blocks of tiles of AMX: cleared, multiplied, stored. Their configuration is the caller's."""

from __future__ import annotations

from functools import cache

from qcomp.codegen.tvm.intrinsics.script import registered

#: The registers that tiles of pixels and of weights are in; those before hold sums.
_PIXELS, _WEIGHTS = 4, 6
_TILE = 16

_SUMS = """
@T.prim_func(s_tir=True)
def zeros(C: T.Buffer(({pixels}, {vectors}, 16), "int32", offset_factor=1)) -> None:
    with T.sblock("root"):
        T.reads()
        T.writes(C[0:{pixels}, 0:{vectors}, 0:16])
"""

_ZEROS = """
        for m, i, c in T.grid({pixels}, {vectors}, 16):
            with T.sblock("init"):
                {iterators}vc = T.axis.remap("{kinds}", [{loops}c])
                C[{m}, {v}, vc] = 0
"""

_OPERANDS = """
@T.prim_func(s_tir=True)
def products(
    A: T.Buffer(({pixels}, 16, 4), "uint8", offset_factor=1),
    B: T.Buffer(({vectors}, 16, 16, 4), "int8", offset_factor=1),
    C: T.Buffer(({pixels}, {vectors}, 16), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{pixels}, 0:{vectors}, 0:16], A[0:{pixels}, 0:16, 0:4], B[0:{vectors}, 0:16, 0:16, 0:4])
        T.writes(C[0:{pixels}, 0:{vectors}, 0:16])
"""

_PRODUCTS = """
        for m, i, c, q, r in T.grid({pixels}, {vectors}, 16, 16, 4):
            with T.sblock("update"):
                {iterators}vc, vq, vr = T.axis.remap("{kinds}RR", [{loops}c, q, r])
                C[{m}, {v}, vc] = C[{m}, {v}, vc] + (
                    T.cast(A[{m}, vq, vr], "int32") * T.cast(B[{v}, vq, vc, vr], "int32")
                )
"""

_STRIDED_OPERANDS = """
@T.prim_func(s_tir=True)
def product_tiles(a: T.handle, b: T.handle, c: T.handle) -> None:
    step = T.int32()
    A = T.match_buffer(a, ({pixels}, 16, 4), "uint8", strides=[step, 4, 1], offset_factor=1)
    B = T.match_buffer(b, ({vectors}, 16, 16, 4), "int8", offset_factor=1)
    C = T.match_buffer(c, ({pixels}, {vectors}, 16), "int32", offset_factor=1)
    with T.sblock("root"):
        T.reads(C[0:{pixels}, 0:{vectors}, 0:16], A[0:{pixels}, 0:16, 0:4], B[0:{vectors}, 0:16, 0:16, 0:4])
        T.writes(C[0:{pixels}, 0:{vectors}, 0:16])
"""

_BOTH = """
@T.prim_func(s_tir=True)
def copy(
    S: T.Buffer(({pixels}, {vectors}, 16), "int32", offset_factor=1),
    C: T.Buffer(({pixels}, {vectors}, 16), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(S[0:{pixels}, 0:{vectors}, 0:16])
        T.writes(C[0:{pixels}, 0:{vectors}, 0:16])
"""

_COPY = """
        for m, i, c in T.grid({pixels}, {vectors}, 16):
            with T.sblock("copy"):
                {iterators}vc = T.axis.remap("{kinds}", [{loops}c])
                C[{m}, {v}, vc] = S[{m}, {v}, vc]
"""


@cache
def amx(tiles: int, rows: int, vectors: int) -> tuple[str, str, str]:
    """Names of what clears, multiplies and stores a block of `tiles` x `vectors` tiles of sums, of `rows` pixels and 16
    channels each, in registers 0 on."""
    pixels = tiles * rows
    # A schedule has no iterator for a loop of one iteration: then there is none to match.
    several = [(loop, iterator) for loop, iterator, count in (("m", "vm", pixels), ("i", "vi", vectors)) if count > 1]
    values = {
        "pixels": pixels, "vectors": vectors, "m": "vm" if pixels > 1 else "0", "v": "vi" if vectors > 1 else "0",
        "loops": "".join(f"{loop}, " for loop, _ in several), "kinds": "S" * (len(several) + 1),
        "iterators": "".join(f"{iterator}, " for _, iterator in several),
    }  # fmt: skip
    blocks = [(m, n) for m in range(tiles) for n in range(vectors)]
    zero = [_call("tilezero", _tile(m * vectors + n)) for m, n in blocks]
    products, store = [], []
    for m, n in blocks:
        pixel, weight, total = _tile(_PIXELS + m), _tile(_WEIGHTS + n), _tile(m * vectors + n)
        if n == 0:
            products.append(_call("tileloadd64", pixel, f"T.address_of(A[{m * rows}, 0, 0])", 'T.cast(step, "int64")'))
        if m == 0:
            products.append(_call("tileloadd64", weight, f"T.address_of(B[{n}, 0, 0, 0])", "T.int64(64)"))
        products.append(_call("tdpbusd", total, pixel, weight))
        place = f"T.address_of(C[{m * rows}, {n}, 0])"
        store.append(_call("tilestored64", total, place, f"T.int64({64 * vectors})"))
    name = f"qcomp.amx_{tiles}x{rows}x{vectors}"
    return (
        registered(f"{name}_zero", _SUMS, _ZEROS, zero, **values),
        registered(f"{name}_products", _OPERANDS, _PRODUCTS, products, _STRIDED_OPERANDS, **values),
        registered(f"{name}_store", _BOTH, _COPY, store, **values),
    )


def _call(name: str, *arguments: str) -> str:
    return f'T.evaluate(T.call_llvm_intrin("void", "llvm.x86.{name}", {", ".join(arguments)}))'


def _tile(number: int) -> str:
    return f"T.uint8({number})"


def tile_config(rows: int) -> list[int]:
    """The 64 bytes that LDTILECFG reads before blocks of `amx`: sums and pixels of `rows` rows, weights of 16, all of
    64 bytes. Intel SDM volume 1, 18.3."""
    heights = [rows] * _WEIGHTS + [_TILE] * 2
    return [1, *[0] * 15, *[64, 0] * len(heights), *[0] * 16, *heights, *[0] * 8]
