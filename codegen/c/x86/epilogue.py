"""From int32 accumulators to stored outputs: the text that ends a tile of products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import render


@dataclass(frozen=True)
class Epilogue:
    """How accumulators become outputs of `kind`, u8, i16 or f32: with the channels of a tail masked, by multipliers
    that are stored as halves, and, as u8, clamped in float first where the proof of range fails (`guard`), through a
    256-entry table.

    fused: accumulators hold the bits of floats (`packing.FLOAT_BITS`), so that one multiply-add converts and scales.
    clamped: bounds other than those of a byte are applied.
    residual: a plane like the result's is added before rounding, as a product and a sum ("separate") or, where the
    product is exact, by one multiply-add ("fused"); else "".
    joined: a tile has all channels of its pixels, so that the results of several are one run of memory.
    """

    isa: Isa
    kind: str = "u8"
    guard: bool = False
    table: bool = False
    masked: bool = False
    short: bool = False
    fused: bool = False
    clamped: bool = True
    residual: str = ""
    joined: bool = False

    @property
    def suffix(self) -> str:
        table = f"_t{self.isa.table_form}" if self.table else ""
        clamped = self.clamped and self.packs
        flags = (("_g", self.guard), ("_m", self.masked), ("_h", self.short), ("_f", self.fused), ("_c", clamped),
                 ("_j", self.joined))  # fmt: skip
        residual = f"_r{self.residual[:1]}" if self.residual else ""
        return self.kind + table + "".join(text for text, given in flags if given) + residual

    @property
    def ctype(self) -> str:
        return {"u8": "uint8_t", "i16": "int16_t", "f32": "float"}[self.kind]

    @property
    def packs(self) -> bool:
        """Whether vectors of results are packed into bytes, from accumulators in the order of that."""
        return self.kind == "u8"

    @property
    def template_values(self) -> dict[str, object]:
        """What bounds.c.j2 and pack.c.j2 ask for besides `index` and `group`."""
        table = self.isa.table_name if self.table else ""
        flags = {name: getattr(self, name) for name in ("guard", "masked", "short", "fused", "clamped", "residual")}
        return {"V": self.isa, "kind": self.kind, "table": table, **flags}

    def multipliers(self, address: str, vectors: int) -> list[str]:
        """Vectors of multipliers as floats; `address` is where they are packed."""
        step = self.isa.bytes // 2 if self.short else self.isa.bytes
        places = (f"{address} + {step * v}" for v in range(vectors))
        return [self.isa.load_halves(at) if self.short else self.isa.load_floats(at) for at in places]

    @property
    def helpers(self) -> tuple[CFunction, ...]:
        table = (self.isa.table_helper,) if self.table else ()
        widen = (widen_helper(self.isa),) if self.residual else ()
        return types_helper(self.isa), *self.isa.helpers, *table, *widen


@cache
def types_helper(isa: Isa) -> CFunction:
    """Parameters of a node."""
    return CFunction("qc_x86_rq", render("types.c.j2", V=isa))


@cache
def widen_helper(isa: Isa) -> CFunction:
    """Bytes to floats, in the order in which a group's accumulators pack."""
    return CFunction("qc_x86_widen", render("widen.c.j2", V=isa))


@dataclass(frozen=True)
class Group:
    """Up to four accumulator vectors that pack into one vector of bytes.

    residual: the bytes that are added to them, in their order before the packed vector is put in order."""

    accumulators: tuple[tuple[int, int], ...]
    pack: tuple[int, int, int, int]
    stores: tuple[str, ...]
    residual: str = ""


def stores(isa: Isa, rows: range, nv: int, masked: bool, joined: bool = False) -> tuple[str, ...]:
    """Statements that write vector p, which holds nv quarters of outputs for each of `rows`."""
    if joined and nv * len(rows) == 4:
        return (isa.store_part(f"y + {rows[0]} * ys", 0, 1, masked),)
    if nv == 3:
        return isa.store_three(f"y + {rows[0]} * ys", masked)
    return tuple(isa.store_part(f"y + {m} * ys", part, 4 // nv, masked) for part, m in enumerate(rows))


def pack_operands(isa: Isa, count: int) -> tuple[int, int, int, int]:
    """Which of `count` accumulators the two packs take, so that no vector is packed in vain."""
    last = count - 1
    if count == 2 and isa.bits < 512:
        return 0, 1, 0, 1
    return 0, min(1, last), min(2, last), min(3, last)


def _residual(isa: Isa, rows: range, nv: int, joined: bool) -> str:
    """The bytes of nv quarters for each of `rows` as a vector, in the order in which accumulators pack.

    Whole vectors are loaded: bytes behind a tile's own channels, which another thread may be writing, are not used."""
    count = 1 if nv >= 3 or joined and nv * len(rows) == 4 else 4 // nv
    loaded = isa.load_parts([f"r + {min(rows[0] + i, rows[-1])} * ys" for i in range(count)])
    order = isa.pixel_order(nv)
    if not order:
        return loaded
    inverse = [order.index(i) for i in range(isa.lanes)]
    return isa.permute(f"{isa.mm}_setr_epi32({', '.join(map(str, inverse))})", loaded)


def pixels_together(nv: int) -> int:
    """Pixels of nv vectors of accumulators that one pack joins."""
    return {4: 1, 3: 1, 2: 2, 1: 4}[nv]


def _groups(mr: int, nv: int, epilogue: Epilogue) -> tuple[Group, ...]:
    isa = epilogue.isa
    together = pixels_together(nv)
    groups = []
    for first in range(0, mr, together):
        rows = range(first, min(mr, first + together))
        accumulators = tuple((m, v) for m in rows for v in range(nv))
        groups.append(
            Group(
                accumulators,
                pack_operands(isa, len(accumulators)),
                stores(isa, rows, nv, epilogue.masked, epilogue.joined),
                _residual(isa, rows, nv, epilogue.joined) if epilogue.residual else "",
            )
        )
    return tuple(groups)


def epilogue_text(mr: int, nv: int, epilogue: Epilogue, scale: str) -> str:
    """C that writes accumulators c0_0.. to y (+ row * ys); `scale` points to the multipliers."""
    isa = epilogue.isa
    groups = _groups(mr, nv, epilogue)
    index = isa.pixel_order(nv)
    return render("epilogue.c.j2", mr=mr, nv=nv, scale=scale, index=index, groups=groups, **epilogue.template_values)
