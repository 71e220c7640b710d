"""A layered drawing of a graph: layers by the longest path, order by barycenters, bends for edges that skip layers.

After K. Sugiyama, S. Tagawa, M. Toda, Methods for Visual Understanding of Hierarchical System Structures (1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BOX_WIDTH, BOX_HEIGHT = 196, 40
_LAYER_STEP = 62
_BEND_WIDTH = 14
_GAP = 18
_SWEEPS = 8
_MARGIN = 12


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
    """Draws `count` nodes in topological order, edges leading from earlier to later ones."""
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
    left = min((x[i] - width[i] / 2 for i in range(len(level))), default=0.0)
    right = max((x[i] + width[i] / 2 for i in range(len(level))), default=0.0)
    x = [round(v - left + _MARGIN, 1) for v in x]
    boxes = tuple(Box(i, round(x[i] - BOX_WIDTH / 2, 1), _MARGIN + layer[i] * _LAYER_STEP) for i in range(count))
    height = 2 * _MARGIN + (len(rows) - 1) * _LAYER_STEP + BOX_HEIGHT
    paths = tuple(Edge(_path(chain, x, level, count)) for chain in chains)
    return Drawing(right - left + 2 * _MARGIN, height, boxes, paths)


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


def _path(chain: Sequence[int], x: Sequence[float], level: Sequence[int], count: int) -> str:
    """Through the bends, upright at every stop."""

    def top(item: int) -> float:
        return _MARGIN + level[item] * _LAYER_STEP

    stops: list[tuple[float, float]] = [(x[chain[0]], top(chain[0]) + BOX_HEIGHT)]
    for item in chain[1:-1]:
        stops += [(x[item], top(item)), (x[item], top(item) + BOX_HEIGHT)]
    stops.append((x[chain[-1]], top(chain[-1])))
    text = f"M{stops[0][0]:g},{stops[0][1]:g}"
    for (x0, y0), (x1, y1) in zip(stops, stops[1:], strict=False):
        middle = (y0 + y1) / 2
        text += f"L{x1:g},{y1:g}" if x0 == x1 else f"C{x0:g},{middle:g} {x1:g},{middle:g} {x1:g},{y1:g}"
    return text
