"""Schedules of the x86 products as text: how a layer is cut into tiles, and in which order these are computed.

    vectors=4*2+3 rows=6*9+2,8*7 line=56 first=tiles tasks=8 pass=4 prefetch=off
    tiles=amx first=lines

Any word may be left out; the cost model then chooses. A text has one spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.tiling import Line, Order, cover_line, line_length, split_channels, tile_cycles
from qcomp.errors import QcompError

Runs = tuple[tuple[int, int], ...]  # (number, how often), in order

_COUNT = r"[1-9]\d*"
_LIST = rf"{_COUNT}(?:\*{_COUNT})?(?:\+{_COUNT}(?:\*{_COUNT})?)*"
_WORDS = re.compile(
    rf"(?:form=(?P<form>row|any|dense))?(?: ?tiles=(?P<tiles>amx))?(?: ?vectors=(?P<vectors>{_LIST}))?"
    rf"(?: ?rows=(?P<rows>{_LIST}(?:,{_LIST})*))?(?: ?line=(?P<line>{_COUNT}))?"
    rf"(?: ?first=(?P<first>lines|tiles))?(?: ?tasks=(?P<tasks>{_COUNT}))?"
    rf"(?: ?pass=(?P<passes>{_COUNT}))?(?: ?prefetch=(?P<prefetch>on|off))?"
)


@dataclass(frozen=True)
class Schedule:
    """What is prescribed; None and empty are the cost model's choice.

    form: of a depthwise convolution: "row" or "any" (its kernels), "dense" (products with zeros)
    tiles: "amx": products by tile registers, and what is said of vectors and rows is not
    vectors: widths of the tiles that cover the channels, in vectors of lanes, widest first
    rows: for each width that occurs, the heights of tiles along a line, in pixels
    line: pixels of a line, where all pixels lie densely
    first: "lines" or "tiles" (of channels): what is divided into tasks first; tasks: how many to aim at
    passes: lines that a tile of weights meets before the next tile's turn
    prefetch: whether the next tile's weights are prefetched"""

    form: str | None = None
    tiles: str | None = None
    vectors: Runs = ()
    rows: tuple[Runs, ...] = ()
    line: int | None = None
    first: str | None = None
    tasks: int | None = None
    passes: int | None = None
    prefetch: bool | None = None

    @cached_property
    def text(self) -> str:
        words = {
            "form": self.form,
            "tiles": self.tiles,
            "vectors": _runs_text(self.vectors),
            "rows": ",".join(map(_runs_text, self.rows)),
            "line": self.line,
            "first": self.first,
            "tasks": self.tasks,
            "pass": self.passes,
            "prefetch": None if self.prefetch is None else "on" if self.prefetch else "off",
        }
        return " ".join(f"{key}={value}" for key, value in words.items() if value)

    @property
    def order(self) -> Order:
        return Order(None if self.first is None else self.first == "tiles", self.tasks, self.passes)

    @property
    def cut(self) -> bool:
        """Whether it is prescribed how vectors cover channels and lines."""
        return bool(self.vectors or self.rows or self.line)

    @property
    def plain(self) -> bool:
        """Whether nothing but the form and the order of tasks is prescribed."""
        return not (self.tiles or self.cut or self.passes or self.prefetch is not None)

    def reject(self, why: str) -> QcompError:
        return QcompError(f"schedule {self.text!r} does not fit the layer: {why}", fix="run `qcomp tune` again")


BY_MODEL = Schedule()


def parse_schedule(text: str) -> Schedule:
    """The schedule that a text says; QcompError for anything else."""
    match = _WORDS.fullmatch(text)
    if match is not None:
        said = match.groupdict()
        schedule = Schedule(
            said["form"],
            said["tiles"],
            _runs(said["vectors"] or ""),
            tuple(_runs(part) for part in said["rows"].split(",")) if said["rows"] else (),
            _number(said["line"]),
            said["first"],
            _number(said["tasks"]),
            _number(said["passes"]),
            None if said["prefetch"] is None else said["prefetch"] == "on",
        )
        if schedule.text == text:
            return schedule
    raise QcompError(f"{text!r} is no schedule", fix="run `qcomp tune` again")


def runs_of_numbers(numbers: tuple[int, ...]) -> Runs:
    """Numbers as (number, how often) of neighbours that are equal."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][0] == number:
            runs[-1] = number, runs[-1][1] + 1
        else:
            runs.append((number, 1))
    return tuple(runs)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _runs(text: str) -> Runs:
    if not text:
        return ()
    pairs = (part.partition("*") for part in text.split("+"))
    return tuple((int(number), int(times or 1)) for number, _, times in pairs)


def _runs_text(runs: Runs) -> str:
    return "+".join(f"{number}*{times}" if times > 1 else str(number) for number, times in runs)


def chosen_length(schedule: Schedule, isa: Isa, pixels: int, channels: int, runs: int, dwords: int) -> int:
    """Length of the lines of `pixels` that lie densely."""
    if schedule.line is None:
        return line_length(isa, pixels, channels, runs, dwords)
    if pixels % schedule.line:
        raise schedule.reject(f"its {pixels} pixels are no lines of {schedule.line}")
    return schedule.line


def chosen_widths(
    schedule: Schedule, isa: Isa, channels: int, pixels: int, runs: int, dwords: int
) -> tuple[int, ...]:
    """Widths of channel tiles (in vectors), widest first, of a layer whose lines have `pixels`; `runs` of `dwords` each
    are a pixel's products."""
    if not schedule.vectors:
        return split_channels(isa, channels, pixels, runs, dwords)
    vectors, kinds = -(-channels // isa.lanes), [width for width, _ in schedule.vectors]
    covered = sum(width * times for width, times in schedule.vectors)
    if covered != vectors or not set(kinds) <= set(isa.dot.widths) or kinds != sorted(kinds, reverse=True):
        count = "1 vector" if vectors == 1 else f"{vectors} vectors"
        raise schedule.reject(f"its channels take {count}, in tiles of {_words(isa.dot.widths)}")
    return tuple(width for width, times in schedule.vectors for _ in range(times))


def chosen_covers(
    schedule: Schedule, isa: Isa, widths: tuple[int, ...], pixels: int, runs: int, dwords: int, shared: int
) -> dict[int, Line]:
    """For each width how a line is covered; `shared` kernel columns take each loaded pixel."""
    kinds = tuple(dict.fromkeys(widths))
    if not schedule.rows:
        return {width: cover_line(isa.dot, pixels, width, runs, dwords, shared) for width in kinds}
    if len(schedule.rows) != len(kinds):
        raise schedule.reject(f"it has tiles of {_words(kinds)} vectors")
    covers = {}
    for width, rows in zip(kinds, schedule.rows, strict=True):
        allowed = isa.dot.rows(width)
        sum_of_rows = sum(height * times for height, times in rows)
        if sum_of_rows != pixels or not {height for height, _ in rows} <= set(allowed):
            raise schedule.reject(f"its lines have {pixels} pixels, in tiles of {_words(allowed)}")
        cycles = (times * tile_cycles(isa.dot, height, width, runs, dwords, shared) for height, times in rows)
        covers[width] = Line(rows, sum(cycles))
    return covers


def _words(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
