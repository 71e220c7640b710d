"""Choice of register tiles: a pure function of shapes, by a small cost model.

Costs are clock cycles of a core with two multipliers and two loads a cycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from qcomp.codegen.c.x86.dot import Dot
from qcomp.codegen.c.x86.isa import Isa

_TAIL_SPAN = 64
# Into how many tasks a small layer may be cut, and how many cycles each must have.
_FEW_TASKS = 4
_LEAST_CYCLES = 1.6e3
# Weights of a tile beyond this are read from the second level cache for every tile of pixels.
_L1_WEIGHTS = 32 * 1024
_L2_BYTES_PER_CYCLE = 20
# By width in vectors: cycles an accumulator takes, and those of each beyond sixteen besides. Rows of three vectors are
# stored in two pieces, those of one vector four at a time.
_EPILOGUE = {4: (0.95, 0.3), 3: (1.45, 1.2), 2: (0.95, 1.1), 1: (2.1, 0.0)}


@dataclass(frozen=True)
class Line:
    """How a line of pixels is covered: (rows, repeats) in order, and its cost in cycles."""

    steps: tuple[tuple[int, int], ...]
    cycles: float


def tile_cycles(dot: Dot, rows: int, vectors: int, runs: int, dwords: int, shared: int = 1) -> float:
    """Cycles of one tile: products bound by multipliers, loads, latency or the stream of weights, then the epilogue.

    shared: kernel columns that take each loaded pixel."""
    products = rows * vectors * dot.cycles + rows * dot.row_cycles + vectors * dot.vector_cycles
    vector_bytes = 64 if dot.mm == "_mm512" else 32
    streams = runs * dwords * vectors * vector_bytes > _L1_WEIGHTS
    stream = vectors * vector_bytes / _L2_BYTES_PER_CYCLE if streams else 0.0
    step = max(products, ((rows + shared - 1) / shared + vectors) / 2, dot.latency, stream)
    return runs * dwords * step + 3.0 * (runs - 1) + _epilogue_cycles(rows * vectors, vectors)


def _epilogue_cycles(accumulators: int, vectors: int) -> float:
    """What the end of a tile adds to its products, as measured: the next tile's products start meanwhile, the fewer
    instructions wait for their accumulators the better."""
    each, crowded = _EPILOGUE[vectors]
    return max(10.0, each * accumulators + crowded * max(0, accumulators - 16))


def cover_line(dot: Dot, pixels: int, vectors: int, runs: int, dwords: int, shared: int = 1) -> Line:
    """Cheapest cover of `pixels` by tiles of at most a few heights."""
    return line_covers(dot, pixels, vectors, runs, dwords, shared)[0]


@cache
def line_covers(dot: Dot, pixels: int, vectors: int, runs: int, dwords: int, shared: int = 1) -> tuple[Line, ...]:
    """Covers of `pixels` by tiles of at most a few heights, the cheapest first."""
    cost = {rows: tile_cycles(dot, rows, vectors, runs, dwords, shared) for rows in dot.rows(vectors)}
    tails: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for length in range(1, min(pixels, _TAIL_SPAN) + 1):
        tails.append(
            min(
                (tails[length - rows][0] + cost[rows] + 1.0, tails[length - rows][1] + (rows,))
                for rows in dot.rows(vectors)
                if rows <= length
            )
        )
    found: dict[tuple[tuple[int, int], ...], float] = {}
    for rows in dot.rows(vectors):
        for repeats in range(max(0, -(-(pixels - _TAIL_SPAN) // rows)), pixels // rows + 1):
            rest = pixels - rows * repeats
            if rest > _TAIL_SPAN:
                continue
            heights = sorted((rows,) * repeats + tails[rest][1], reverse=True)
            kinds = tuple((h, heights.count(h)) for h in dict.fromkeys(heights))
            total = repeats * cost[rows] + tails[rest][0] + 8.0 * len(kinds)
            found[kinds] = min(total, found.get(kinds, total))
    lines = (Line(kinds, total) for kinds, total in found.items())
    return tuple(sorted(lines, key=lambda line: line.cycles))


def _splits(dot: Dot, vectors: int) -> Iterator[dict[int, int]]:
    """Ways to write `vectors` as full tiles of one wide width and at most a few narrower ones."""
    for wide in dot.wide:
        for count in range(max(0, vectors // wide - 3), vectors // wide + 1):
            rest = vectors - wide * count
            for threes in range(rest // 3 + 1 if wide == 4 else 1):
                left = rest - 3 * threes
                if left <= 4:
                    split = {4: 0, 3: 0, 2: left // 2, 1: left % 2}
                    split[wide] += count
                    split[3] += threes
                    yield split


def split_channels(isa: Isa, channels: int, pixels: int, runs: int, dwords: int) -> tuple[int, ...]:
    """Widths (in vectors) of the channel tiles that cover `channels`, widest first."""
    return channel_splits(isa, channels, pixels, runs, dwords)[0]


@cache
def channel_splits(isa: Isa, channels: int, pixels: int, runs: int, dwords: int) -> tuple[tuple[int, ...], ...]:
    """Ways to cover `channels` by tiles, as `split_channels` gives them, the cheapest first."""
    vectors = -(-channels // isa.lanes)
    found: set[tuple[float, tuple[int, ...]]] = set()
    for split in _splits(isa.dot, vectors):
        cycles = sum(n * cover_line(isa.dot, pixels, nv, runs, dwords).cycles for nv, n in split.items() if n)
        widths = tuple(nv for nv in (4, 3, 2, 1) for _ in range(split[nv]))
        found.add((cycles + 0.01 * len(widths), widths))
    return tuple(dict.fromkeys(widths for _, widths in sorted(found)))


def line_length(isa: Isa, pixels: int, channels: int, runs: int, dwords: int) -> int:
    """Length of the lines into which a flat run of `pixels` is cut; it divides `pixels`."""
    return line_lengths(isa, pixels, channels, runs, dwords)[0]


@cache
def line_lengths(isa: Isa, pixels: int, channels: int, runs: int, dwords: int) -> tuple[int, ...]:
    """Lengths that `line_length` chooses from, the cheapest first."""

    def total(length: int) -> float:
        widths = split_channels(isa, channels, length, runs, dwords)
        cost = sum(cover_line(isa.dot, length, nv, runs, dwords).cycles + 20 for nv in widths)
        return cost * (pixels // length)

    short = [d for d in range(1, min(pixels, 512) + 1) if pixels % d == 0 and d >= min(pixels, 12)]
    costs = {length: total(length) for length in short or [pixels]}
    least = min(costs.values())
    # Lines are what tasks are made of: enough of them for threads, where that costs next to nothing.
    several = [length for length, cost in costs.items() if cost <= 1.025 * least and pixels // length >= _FEW_TASKS]
    chosen = max(several, default=0)
    return tuple(sorted(costs, key=lambda length: (length != chosen, costs[length], length)))


@dataclass(frozen=True)
class Partition:
    """Tasks as a grid: blocks of lines x blocks of channel tiles, and lines per pass inside a task."""

    line_blocks: int
    tile_blocks: int
    lines_per_pass: int


@dataclass(frozen=True)
class Order:
    """What of a partition is prescribed; the rest (None) `partition` chooses.

    tiles_first: divide channel tiles before lines; tasks: how many to aim at."""

    tiles_first: bool | None = None
    tasks: int | None = None
    lines_per_pass: int | None = None


def partition(
    lines: int, tiles: int, cycles: float, weight_bytes: int, line_bytes: int, order: Order = Order(),
    min_cycles: float = 12e3,
) -> Partition:  # fmt: skip
    """Cut the work in some 32 tasks (a grid may round that up, below 64) of about `min_cycles` or more, or in up to
    four smaller ones: a task that another thread takes costs it a few hundred cycles.

    Weights that dominate are streamed once: then channel tiles are divided first."""
    want = order.tasks or int(max(1, min(_FEW_TASKS, cycles // _LEAST_CYCLES), min(32, cycles // min_cycles)))
    streamed = weight_bytes > max(256 * 1024, lines * line_bytes // 2)
    if streamed if order.tiles_first is None else order.tiles_first:
        tile_blocks = min(want, tiles)
        line_blocks = min(lines, -(-want // tile_blocks))
    else:
        line_blocks = min(want, lines)
        tile_blocks = min(tiles, -(-want // line_blocks))
    lines_per_block = -(-lines // line_blocks)
    if order.lines_per_pass:
        per_pass = min(lines_per_block, order.lines_per_pass)
    elif weight_bytes <= 20 * 1024:
        per_pass = 1
    else:
        per_pass = max(1, min(lines_per_block, 256 * 1024 // line_bytes))
    tiles_per_block = -(-tiles // tile_blocks)
    return Partition(-(-lines // lines_per_block), -(-tiles // tiles_per_block), per_pass)
