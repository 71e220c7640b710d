"""A layered drawing of a graph: layers by the longest path, order by barycenters, bends for edges that skip layers.

After K. Sugiyama, S. Tagawa, M. Toda, Methods for Visual Understanding of Hierarchical System Structures (1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOX_WIDTH, BOX_HEIGHT = 186, 40
_LAYER_STEP = 62
_BEND_WIDTH = 14
_GAP = 18
_SWEEPS = 8
_MARGIN = 8
_TURN = 18  # room above and below for edges between columns
_COLUMN_GAP = 44
_PAGE_WIDTH = 1040
_LEAST_LAYERS = 8  # of a column


@dataclass(frozen=True)
class Box:
    """Where node `node` (its place in the given order) is drawn: its upper left corner."""

    node: int
    x: float
    y: float


@dataclass(frozen=True)
class Edge:
    """A path in the notation of SVG."""

    path: str


@dataclass(frozen=True)
class Drawing:
    """Boxes of BOX_WIDTH x BOX_HEIGHT and edges between them, within width x height."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def draw_graph(count: int, edges: Sequence[tuple[int, int]]) -> Drawing:
    """Draws `count` nodes in topological order, edges leading from earlier to later ones, in columns from the left."""
    layer = [0] * count
    for a, b in sorted(edges, key=lambda e: e[1]):
        layer[b] = max(layer[b], layer[a] + 1)
    _lower_sources(layer, edges)
    level = list(layer)
    chains: list[list[int]] = []
    for a, b in edges:
        chain = [a]
        for between in range(layer[a] + 1, layer[b]):
            chain.append(len(level))
            level.append(between)
        chains.append([*chain, b])
    width = [float(BOX_WIDTH)] * count + [float(_BEND_WIDTH)] * (len(level) - count)
    above, below = _neighbours(len(level), chains)
    rows: list[list[int]] = [[] for _ in range(max(level, default=0) + 1)]
    for item, at in enumerate(level):
        rows[at].append(item)
    x = _place(rows, width, above, below)
    columns = _columns(rows, width, x, chains, level)
    left = float(_MARGIN)
    place: dict[int, tuple[float, float]] = {}
    starts: dict[int, float] = {}
    for start, end in columns:
        items = [item for row in rows[start:end] for item in row]
        low, high = _extent(items, width, x)
        for item in items:
            place[item] = round(x[item] - low + left, 1), _MARGIN + _TURN + (level[item] - start) * _LAYER_STEP
        starts[start] = left
        left += high - low + _COLUMN_GAP
    boxes = tuple(Box(i, round(place[i][0] - BOX_WIDTH / 2, 1), place[i][1]) for i in range(count))
    most = max((end - start for start, end in columns), default=1)
    height = 2 * (_MARGIN + _TURN) + (most - 1) * _LAYER_STEP + BOX_HEIGHT
    paths = tuple(Edge(_path(chain, place, level, starts, n)) for n, chain in enumerate(chains))
    return Drawing(round(left - _COLUMN_GAP + _MARGIN, 1), height, boxes, paths)


def _extent(items: Sequence[int], width: Sequence[float], x: Sequence[float]) -> tuple[float, float]:
    low = min((x[i] - width[i] / 2 for i in items), default=0.0)
    return low, max((x[i] + width[i] / 2 for i in items), default=0.0)


def _columns(
    rows: Sequence[Sequence[int]],
    width: Sequence[float],
    x: Sequence[float],
    chains: Sequence[Sequence[int]],
    level: Sequence[int],
) -> list[tuple[int, int]]:
    """(first, last + 1) layer of each column: as many columns as fit a page's width, cut where few edges pass."""
    passing = [0] * (len(rows) + 1)
    for chain in chains:
        for item in chain[1:]:
            passing[level[item]] += 1
    for number in range(len(rows) // _LEAST_LAYERS, 1, -1):
        cuts = [0]
        for share in range(1, number):
            middle = round(len(rows) * share / number)
            near = range(max(cuts[-1] + 2, middle - 3), min(len(rows) - 1, middle + 4))
            cuts.append(min(near, key=lambda at, middle=middle: (passing[at], abs(at - middle))))  # type: ignore[misc]
        found = list(zip(cuts, [*cuts[1:], len(rows)], strict=True))
        extents = [_extent([i for row in rows[a:b] for i in row], width, x) for a, b in found]
        if sum(high - low for low, high in extents) + _COLUMN_GAP * (number - 1) <= _PAGE_WIDTH:
            return found
    return [(0, len(rows))]


def _lower_sources(layer: list[int], edges: Sequence[tuple[int, int]]) -> None:
    """Nodes that nothing leads to stand right above what they lead to."""
    targets: dict[int, int] = {}
    for a, b in edges:
        targets[a] = min(targets.get(a, layer[b]), layer[b])
    led = {b for _, b in edges}
    for node, first in targets.items():
        if node not in led:
            layer[node] = first - 1


def _neighbours(count: int, chains: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for chain in chains:
        for a, b in zip(chain, chain[1:], strict=False):
            below[a].append(b)
            above[b].append(a)
    return above, below


def _place(
    rows: list[list[int]], width: Sequence[float], above: Sequence[list[int]], below: Sequence[list[int]]
) -> list[float]:
    """Centers of all items: each row is ordered by, and drawn towards, the centers of its neighbours."""
    x = [0.0] * len(width)
    for row in rows:
        _pack(row, [0.0] * len(row), width, x)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        beside = above if down else below
        for row in rows if down else reversed(rows):
            wanted = {i: _center(beside[i], width, x) if beside[i] else x[i] for i in row}
            row.sort(key=lambda i, wanted=wanted: (wanted[i], i))  # type: ignore[misc]
            _pack(row, [wanted[i] for i in row], width, x)
    return x


def _center(items: Sequence[int], width: Sequence[float], x: Sequence[float]) -> float:
    """Mean of centers, boxes before bends: a chain beside which edges pass stays straight."""
    return sum(x[i] * width[i] for i in items) / sum(width[i] for i in items)


def _pack(row: Sequence[int], wanted: Sequence[float], width: Sequence[float], x: list[float]) -> None:
    """Puts a row's items as near to where they are wanted as their widths and order allow; a wide one counts more."""
    groups: list[tuple[list[int], float, float]] = []  # items, wanted left edge, weight
    for item, center in zip(row, wanted, strict=True):
        group, left, weight = [item], center - width[item] / 2, width[item]
        while groups:
            items, before, heavy = groups[-1]
            span = sum(width[i] + _GAP for i in items)
            if before + span <= left:
                break
            groups.pop()
            left = (before * heavy + (left - span) * weight) / (heavy + weight)
            group, weight = items + group, heavy + weight
        groups.append((group, left, weight))
    for group, left, _ in groups:
        for item in group:
            x[item] = left + width[item] / 2
            left += width[item] + _GAP


def _path(
    chain: Sequence[int],
    place: Mapping[int, tuple[float, float]],
    level: Sequence[int],
    starts: Mapping[int, float],
    number: int,
) -> str:
    """Through the bends, upright at every stop; up between two columns where the next one begins.

    `starts`: the left edge of the column that begins at a layer."""
    x, y = place[chain[0]]
    text = f"M{x:g},{y + BOX_HEIGHT:g}"
    for item in chain[1:]:
        to_x, to_y = place[item]
        start, middle = y + BOX_HEIGHT, (y + BOX_HEIGHT + to_y) / 2
        if level[item] in starts:
            turn = 6 + 3 * (number % 4)
            between = starts[level[item]] - turn - 4
            text += f"V{start + turn:g}H{between:g}V{to_y - turn:g}H{to_x:g}V{to_y:g}"
        elif x == to_x:
            text += f"V{to_y:g}"
        else:
            text += f"C{x:g},{middle:g} {to_x:g},{middle:g} {to_x:g},{to_y:g}"
        if item != chain[-1]:
            text += f"V{to_y + BOX_HEIGHT:g}"
        x, y = to_x, to_y
    return text
