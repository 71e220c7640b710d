"""Schedules of products: which form, and how much a block holds; as texts that tuning files keep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qcomp.codegen.tvm.forms import DENSE, DEPTHWISE, Form
from qcomp.errors import QcompError

_FORMS = {form.name: form for form in (*DENSE, *DEPTHWISE)}
_TEXT = re.compile(r"(\w+) vectors=(\d+) rows=(\d+)")
_TILE_ROWS = 16
_MOST_VECTORS = 6
#: Of tile products of few rows, which take as long as these; and what a block costs besides, in cycles.
_LEAST_TILE_ROWS = 9
_BLOCK_CYCLES = 12.0


@dataclass(frozen=True)
class Part:
    """Pixels `first` on of a line: `tiles` blocks of `rows` pixels, in `joined` tile registers a column."""

    first: int
    tiles: int
    rows: int
    joined: int = 1


@dataclass(frozen=True)
class Tiling:
    """Blocks of `rows` pixels times `vectors` vectors of channels; with tile registers `rows` are those of one, and
    blocks have two where a line has so many."""

    form: Form
    vectors: int
    rows: int

    @property
    def text(self) -> str:
        return f"{self.form.name} vectors={self.vectors} rows={self.rows}"

    def parts(self, pixels: int) -> list[Part]:
        """How blocks cover a line."""
        found, first = [], 0
        sizes = [(2 * self.rows, 2)] if self.form.tiled and self.vectors * 2 <= self.form.sums else []
        for rows, joined in (*sizes, (self.rows, 1)):
            tiles = (pixels - first) // rows
            if tiles:
                found.append(Part(first, tiles, rows, joined))
                first += tiles * rows
        if first < pixels:
            found.append(Part(first, 1, pixels - first))
        return found

    def widths(self, channels: int) -> list[tuple[int, int, int]]:
        """How blocks cover channels: (blocks, vectors of each, channels in all), those that are whole first."""
        whole = self.vectors * self.form.lanes
        blocks, rest = divmod(channels, whole)
        found = [(blocks, self.vectors, blocks * whole)] if blocks else []
        if rest:
            found.append((1, -(-rest // self.form.lanes), rest))
        return found

    def cycles(self, pixels: int, channels: int, units: int) -> float:
        """Of a line, about."""
        form, total = self.form, 0.0
        for part in self.parts(pixels):
            for blocks, vectors, _ in self.widths(channels):
                if form.tiled:
                    step = part.joined * vectors * max(part.rows / part.joined, _LEAST_TILE_ROWS)
                else:
                    step = part.rows * vectors * form.cycles + (part.rows + vectors) * form.loads
                ending = part.rows * vectors * 4.0 + _BLOCK_CYCLES
                total += part.tiles * blocks * (step * units + ending)
        return total


def parse_tiling(text: str) -> Tiling:
    """The tiling that a tuning file names; QcompError for one that no layer has."""
    match = _TEXT.fullmatch(text)
    form = _FORMS.get(match[1]) if match else None
    if match is None or form is None:
        raise QcompError(f"unknown schedule {text!r}", fix="run `qcomp tune` again")
    tiling = Tiling(form, int(match[2]), int(match[3]))
    if tiling not in _blocks(form):
        raise QcompError(f"schedule {text!r} has no block that the registers hold", fix="run `qcomp tune` again")
    return tiling


def tilings(forms: Sequence[Form], pixels: int, channels: int, depth: int, taps: int) -> list[Tiling]:
    """All that a layer can have, those of promise first; depth: bytes of a tap."""
    found: dict[tuple[object, ...], tuple[float, Tiling]] = {}
    for form in forms:
        units = taps * form.units(depth)
        for tiling in _blocks(form):
            alike = (form.name, *tiling.parts(pixels), *tiling.widths(channels))
            if alike not in found:
                found[alike] = (tiling.cycles(pixels, channels, units), tiling)
    return [tiling for _, tiling in sorted(found.values(), key=lambda pair: (pair[0], pair[1].text))]


def _blocks(form: Form) -> Iterator[Tiling]:
    if form.tiled:
        yield from (Tiling(form, vectors, rows) for vectors in (2, 1) for rows in range(_TILE_ROWS, 0, -1))
        return
    for vectors in range(1, 2 if form.by_rows else _MOST_VECTORS + 1):
        yield from (Tiling(form, vectors, rows) for rows in range(1, form.sums // vectors + 1))
