"""AMX tiles over a convolution: which pixels and bytes a tile holds, which tiles go together, and what that costs.

Pure functions of shapes. Costs are clock cycles of a core that multiplies two tiles in 16 cycles, waits 52 for the
sum, and loads two rows of a tile a cycle from its first level cache (Intel's optimization reference manual, chapter
on AMX)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import lcm

from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Plane

TILE_ROWS = 16
TILE_BYTES = 64
ACCUMULATORS = 4
"""Tiles of sums; of the other four, two hold pixels and two weights."""

_PRODUCT, _LATENCY = 16.0, 52.0
_L1_WEIGHTS = 32 * 1024
_VECTOR = 2.5
_CALL, _BLOCK = 15.0, 40.0


@dataclass(frozen=True)
class Depth:
    """Products of one pixel: of each of `runs` runs `chunks` pieces of `bytes` bytes (a multiple of 4, at most 64).

    The last piece may reach past its run, by fewer than 64 bytes, where it meets weights of zero."""

    runs: int
    chunks: int
    bytes: int

    @property
    def products(self) -> int:
        return self.runs * self.chunks

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights of 16 channels."""
        return self.products * self.bytes * TILE_ROWS


def depth_of(runs: int, length: int) -> Depth:
    """The fewest pieces of a run of `length` bytes, all as short as that allows."""
    chunks = -(-length // TILE_BYTES)
    return Depth(runs, chunks, 4 * -(-length // (4 * chunks)))


@dataclass(frozen=True)
class Strides:
    """From image to image, from line to line, and between the rows of a line."""

    image: int
    line: int
    row: int


@dataclass(frozen=True)
class PixelTiles:
    """Output pixels as `lines` of `length` positions that lie x_step bytes apart in x, `rows` of them a tile.

    Position i of a line is column i % pitch of row i // pitch; columns from `width` on lie in the halo of x, and what
    comes out there is dropped. The last tile of a line starts early, so that it ends where the line does. Line l
    is line l % per_image of image l // per_image. Strides count bytes in x, elements in y and in the residual."""

    lines: int
    length: int
    pitch: int
    width: int
    per_image: int
    x_step: int
    x: Strides
    y: Strides
    residual: Strides | None

    @property
    def per_line(self) -> int:
        return -(-self.length // TILE_ROWS)

    @property
    def rows(self) -> int:
        """All tiles of a line have as many, so that one tile configuration serves the layer."""
        return -(-self.length // self.per_line)

    @property
    def count(self) -> int:
        return self.lines * self.per_line

    @property
    def segments(self) -> int:
        """Rows of the output that a tile reaches into, at most."""
        return min(-(-self.length // self.pitch), 1 + -(-(self.rows - 1) // self.pitch))


def pixel_tilings(shape: ConvShape, residual: Plane | None = None) -> tuple[PixelTiles, ...]:
    """Row by row; and, where the rows of x are a whole number of steps apart, image by image or all images at once."""
    x, y = shape.x, shape.y
    outputs = [y] if residual is None else [y, residual]
    step, row = shape.strides[1] * x.channels, shape.strides[0] * x.row_stride

    def tiles(lines: int, length: int, pitch: int, width: int, whole: bool) -> PixelTiles:
        """`whole`: lines are images or more, not rows."""
        strides = [Strides(p.image_stride, 0 if whole else p.row_stride, p.row_stride if whole else 0) for p in outputs]
        return PixelTiles(
            lines, length, pitch, width, 1 if whole else y.height, step,
            Strides(x.image_stride, 0 if whole else row, 0), strides[0], None if residual is None else strides[1],
        )  # fmt: skip

    found = [tiles(y.batch * y.height, y.width, y.width, y.width, False)]
    if row % step == 0 and row // step >= y.width:
        pitch, width, lines, rows = row // step, y.width, y.batch, y.height
        if x.image_stride == rows * row and all(p.image_stride == rows * p.row_stride for p in outputs):
            lines, rows = 1, y.batch * rows
        length = (rows - 1) * pitch + width
        if pitch == width and all(p.row_stride == width * p.channels for p in outputs):
            pitch = width = length
        found.append(tiles(lines, length, pitch, width, True))
    return tuple(found)


def block_cycles(tiles: PixelTiles, depth: Depth, pixels: int, vectors: int) -> float:
    """Cycles of a block of `pixels` x `vectors` tiles: products, and the epilogue of another block meanwhile."""
    aligned = tiles.x_step % TILE_BYTES == 0 and TILE_BYTES % depth.bytes == 0
    a = tiles.rows / (2 if aligned else 1)
    near = vectors * depth.weight_bytes <= _L1_WEIGHTS
    b = depth.bytes / 4 / (2 if near else 1)
    step = max(_PRODUCT * pixels * vectors, _LATENCY, pixels * a + vectors * b)
    products = depth.products * step
    finish = pixels * vectors * (tiles.rows * _VECTOR + 1.5 * TILE_ROWS) + pixels * tiles.segments * _CALL
    return max(products, finish) + 0.2 * min(products, finish) + _BLOCK


@dataclass(frozen=True)
class AmxPlan:
    """How a layer is cut: panels of (tiles of channels, tiles of pixels in a block), widest first; `products` counts
    the tile products."""

    tiles: PixelTiles
    depth: Depth
    panels: tuple[tuple[int, int], ...]
    products: int
    cycles: float

    @property
    def unit(self) -> int:
        """Tiles of pixels that are not divided between tasks."""
        return lcm(*(pixels for _, pixels in self.panels))


def _panels(tiles: PixelTiles, depth: Depth, vectors: int) -> tuple[float, tuple[tuple[int, int], ...]]:
    """Cheapest cover of `vectors` tiles of channels."""

    def cheapest(width: int) -> tuple[float, int]:
        return min(
            (-(-tiles.count // pixels) * block_cycles(tiles, depth, pixels, width), pixels)
            for pixels in range(1, ACCUMULATORS // width + 1)
        )

    covers = []
    for wide in range(min(vectors, ACCUMULATORS), 0, -1):
        widths = [wide] * (vectors // wide) + [vectors % wide] * (vectors % wide > 0)
        best = [cheapest(width) for width in widths]
        panels = tuple((width, pixels) for width, (_, pixels) in zip(widths, best, strict=True))
        covers.append((sum(cycles for cycles, _ in best), panels))
    return min(covers)


@cache
def amx_plan(shape: ConvShape, residual: Plane | None = None) -> AmxPlan:
    """The cheapest way to compute a convolution with tiles; residual: a plane that is added to its results."""
    layout = runs_of(shape)
    depth = depth_of(len(layout.offsets), layout.length)
    vectors = -(-layout.outputs // TILE_ROWS)
    plans = []
    for tiles in pixel_tilings(shape, residual):
        cycles, panels = _panels(tiles, depth, vectors)
        blocks = sum(width * pixels * -(-tiles.count // pixels) for width, pixels in panels)
        plans.append(
            AmxPlan(tiles, depth, panels, layout.blocks * blocks * depth.products, layout.blocks * cycles)
        )
    return min(plans, key=lambda plan: plan.cycles)
