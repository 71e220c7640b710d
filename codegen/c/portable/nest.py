"""Loop nests over operands with strides: the walk of every elementwise op and copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcomp.codegen.c.portable.code import Source, render
from qcomp.codegen.c.portable.tasks import split


@dataclass(frozen=True)
class Axis:
    """One loop: its trip count, and the element stride of each operand."""

    size: int
    strides: tuple[int, ...]


def broadcast_strides(source: Source, rank: int) -> tuple[int, ...]:
    """Strides of an operand along `rank` dimensions, 0 where numpy would broadcast it."""
    missing = rank - len(source.shape)
    own = tuple(0 if size == 1 else stride for size, stride in zip(source.shape, source.strides, strict=True))
    return (0,) * missing + own


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Axis]:
    """Loops over `shape`: no trip count of 1, and neighbours merged where every operand walks through both evenly."""
    axes: list[Axis] = []
    for dim, size in enumerate(shape):
        axis = Axis(size, tuple(s[dim] for s in strides))
        if size == 1:
            continue
        if axes and all(a == b * size for a, b in zip(axes[-1].strides, axis.strides, strict=True)):
            axes[-1] = Axis(axes[-1].size * size, axis.strides)
        else:
            axes.append(axis)
    return axes or [Axis(1, tuple(0 for _ in strides))]


def term(variable: str, stride: int) -> str:
    """`variable * stride` as C, without the trivial parts; empty for stride 0."""
    if stride == 0:
        return ""
    return variable if stride == 1 else f"{variable} * {stride}"


def sum_of(terms: Sequence[str]) -> str:
    """C sum of the non-empty terms."""
    return " + ".join(t for t in terms if t) or "0"


def flat_index(variable: str, shape: Sequence[int], strides: Sequence[int]) -> str:
    """C element offset of the `variable`-th position, counted in row-major order over `shape`."""
    axes = collapse(shape, [strides])
    terms, below = [], 1
    for position, axis in enumerate(reversed(axes)):
        part = variable if below == 1 else f"{variable} / {below}"
        if position + 1 < len(axes):
            part += f" % {axis.size}"
        terms.append(term(part, axis.strides[0]))
        below *= axis.size
    return sum_of(terms[::-1])


def nest(
    symbol: str,
    shape: Sequence[int],
    operands: Sequence[tuple[str, Source, bool]],
    strides: Sequence[Sequence[int]],
    body: Sequence[str],
    *,
    prologue: Sequence[str] = (),
    work: float = 1.0,
    in_place: bool = False,
) -> tuple[str, int]:
    """(C function, tasks) that runs `body` for every element of `shape`.

    `operands` are (name, source, writable); in the body `@name` is the operand's element.  `work` is the cost of one
    element in units of a copy.  `in_place`: the written operand may be the memory of a read one.
    """
    axes = collapse(shape, strides)
    *outer, inner = axes
    loops = [f"i{n}" for n in range(len(outer))]
    if outer:
        parts = split(outer[0].size, work * inner.size * math.prod(a.size for a in outer[1:]))
    else:
        parts = split(inner.size, work, grain=64)
    rows, elements, hoisted = [], {}, []
    for position, (name, source, writable) in enumerate(operands):
        offset = sum_of([term(v, a.strides[position]) for v, a in zip(loops, outer, strict=True)])
        rows.append(
            {
                "type": source.ctype if writable else f"const {source.ctype}",
                "name": name,
                "restrict": " restrict" if writable and not in_place else "",
                "pointer": source.pointer,
                "offset": offset,
            }
        )
        fixed = inner.strides[position] == 0 and not writable and not any(f"&@{name}" in line for line in body)
        if fixed:  # the compiler cannot hoist it: it does not know that the stores leave it alone
            hoisted.append(f"const {source.ctype} {name}_v = {name}_[0];")
        elements[name] = f"{name}_v" if fixed else f"{name}_[{sum_of([term('e', inner.strides[position])])}]"
    lines = list(body)
    for name in sorted(elements, key=len, reverse=True):
        lines = [line.replace(f"@{name}", elements[name]) for line in lines]
    text = render(
        "nest.c.j2",
        symbol=symbol,
        operands=rows,
        loops=[
            {"variable": v, "first": parts.first if n == 0 else "0", "last": parts.last if n == 0 else str(a.size)}
            for n, (v, a) in enumerate(zip(loops, outer, strict=True))
        ],
        first="0" if outer else parts.first,
        last=str(inner.size) if outer else parts.last,
        body=lines,
        hoisted=hoisted,
        prologue=list(prologue),
        tasks=parts.count,
    )
    return text, parts.count
