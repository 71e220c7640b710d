"""From int32 accumulators to stored outputs: the text that ends a tile of products."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.x86.render import plain_helper, render

TYPES = plain_helper("qc_x86_rq", "types.c.j2")


@dataclass(frozen=True)
class Epilogue:
    """How accumulators become outputs: u8 or f32, clamped in float first where the proof of range fails,
    through a 256-entry table, with the channels of a tail masked, and by multipliers that are stored as halves."""

    kind: str = "u8"
    guard: bool = False
    table: bool = False
    masked: bool = False
    vbmi: bool = False
    short: bool = False

    @property
    def suffix(self) -> str:
        table = ("_t" + ("vbmi" if self.vbmi else "bw")) if self.table else ""
        flags = (("_g", self.guard), ("_m", self.masked), ("_h", self.short))
        return self.kind + table + "".join(text for text, given in flags if given)

    @property
    def ctype(self) -> str:
        return "uint8_t" if self.kind == "u8" else "float"

    @property
    def template_values(self) -> dict[str, object]:
        """What bounds.c.j2 and pack.c.j2 ask for besides `index` and `group`."""
        table = table_helper(self.vbmi).name if self.table else ""
        return {"kind": self.kind, "guard": self.guard, "masked": self.masked, "table": table, "short": self.short}

    def multipliers(self, address: str, vectors: int) -> list[str]:
        """The multipliers of a tile as vectors of floats; `address` is where they are packed."""
        if self.short:
            halves = (f"_mm256_loadu_si256((const __m256i*)({address} + {32 * v}))" for v in range(vectors))
            return [f"_mm512_mul_ps(_mm512_cvtph_ps({half}), _mm512_set1_ps(q->unit))" for half in halves]
        return [f"_mm512_loadu_ps((const float*)({address} + {64 * v}))" for v in range(vectors)]

    @property
    def helpers(self) -> tuple[CFunction, ...]:
        if not self.table:
            return (TYPES,)
        return TYPES, table_helper(self.vbmi)


def table_helper(vbmi: bool) -> CFunction:
    """C function that maps 64 bytes through a 256-entry table."""
    form = "vbmi" if vbmi else "bw"
    return plain_helper(f"qc_x86_table64_{form}", f"table_{form}.c.j2")


@dataclass(frozen=True)
class Group:
    """Up to four accumulator vectors that pack into one vector of bytes."""

    accumulators: tuple[tuple[int, int], ...]
    pack: tuple[int, int, int, int]
    stores: tuple[str, ...]


# Dword order that brings packed bytes into pixel-major order, for each tile width.
PIXEL_ORDER: dict[int, tuple[int, ...]] = {
    4: (),
    3: (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15),
    2: (0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15),
    1: (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
}


def _stores(rows: range, nv: int, masked: bool) -> tuple[str, ...]:
    if nv == 4:
        at = f"y + {rows[0]} * ys"
        return (f"_mm512_mask_storeu_epi8({at}, q->mask, p);" if masked else f"_mm512_storeu_si512({at}, p);",)
    if nv == 3:
        at = f"y + {rows[0]} * ys"
        if masked:
            return (f"_mm512_mask_storeu_epi8({at}, q->mask, p);",)
        return (
            f"_mm256_storeu_si256((__m256i*)({at}), _mm512_castsi512_si256(p));",
            f"_mm_storeu_si128((__m128i*)({at} + 32), _mm512_extracti32x4_epi32(p, 2));",
        )
    text = []
    for part, m in enumerate(rows):
        at = f"y + {m} * ys"
        if nv == 2:
            value = f"_mm512_extracti64x4_epi64(p, {part})" if part else "_mm512_castsi512_si256(p)"
            if masked:
                text.append(f"_mm256_mask_storeu_epi8({at}, (__mmask32)q->mask, {value});")
            else:
                text.append(f"_mm256_storeu_si256((__m256i*)({at}), {value});")
        else:
            value = f"_mm512_extracti32x4_epi32(p, {part})" if part else "_mm512_castsi512_si128(p)"
            if masked:
                text.append(f"_mm_mask_storeu_epi8({at}, (__mmask16)q->mask, {value});")
            else:
                text.append(f"_mm_storeu_si128((__m128i*)({at}), {value});")
    return tuple(text)


def _groups(mr: int, nv: int, masked: bool) -> tuple[Group, ...]:
    together = {4: 1, 3: 1, 2: 2, 1: 4}[nv]
    groups = []
    for first in range(0, mr, together):
        rows = range(first, min(mr, first + together))
        accumulators = tuple((m, v) for m in rows for v in range(nv))
        last = len(accumulators) - 1
        pack = (0, min(1, last), min(2, last), min(3, last))
        groups.append(Group(accumulators, pack, _stores(rows, nv, masked)))
    return tuple(groups)


def epilogue_text(mr: int, nv: int, epilogue: Epilogue, scale: str) -> str:
    """C that writes accumulators c0_0.. to y (+ row * ys); `scale` points to the multipliers."""
    values = epilogue.template_values | {"scale": scale}
    groups = _groups(mr, nv, epilogue.masked)
    return render("epilogue.c.j2", mr=mr, nv=nv, index=PIXEL_ORDER[nv], groups=groups, **values)
