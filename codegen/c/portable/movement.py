"""Kernels that move elements: every one is a loop nest whose operand strides (or index tables) do the moving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import Operands, Source, render
from qcomp.codegen.c.portable.copies import converted
from qcomp.codegen.c.portable.nest import broadcast_strides, collapse, nest, sum_of, term
from qcomp.codegen.c.portable.runs import Run, run_helpers, run_of
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node
from qcomp.ir.ops.movement import Pad as PadOp
from qcomp.ir.ops.resize import axis_taps, resized_axes
from qcomp.targets import Target


@dataclass(frozen=True)
class Move:
    """One nest: y[to + Σ i·y_strides] = x[from + Σ i·x_strides] over `shape`; without x, the literal `value`."""

    shape: tuple[int, ...]
    y: Source
    y_strides: tuple[int, ...]
    x: Source | None = None
    x_strides: tuple[int, ...] = ()
    to: int = 0
    start: int = 0
    value: str = "0"

    def generate(self, symbol: str) -> tuple[str, int]:
        y = _shifted(self.y, self.to, writable=True)
        if self.x is None:
            line = f"@y = ({y.ctype})({self.value});"
            return nest(symbol, self.shape, [("y", y, True)], [self.y_strides], [line])
        x = _shifted(self.x, self.start, writable=False)
        return nest(
            symbol,
            self.shape,
            [("x", x, False), ("y", y, True)],
            [self.x_strides, self.y_strides],
            [f"@y = {converted(x, y, '@x')};"],
        )


def _shifted(source: Source, elements: int, *, writable: bool) -> Source:
    """The operand with its pointer moved by some elements."""
    if elements == 0:
        return source
    kind = source.ctype if writable else f"const {source.ctype}"
    return replace(source, pointer=f"(({kind}*){source.pointer} + {elements})")


def joined(request: KernelRequest, operands: Operands, moves: Sequence[Move], kernel: str) -> KernelCode:
    """One kernel of several nests; their tasks follow each other."""
    if len(moves) == 1:
        text, tasks = moves[0].generate(request.symbol)
        return KernelCode((), text, tasks, tuple(operands.constants), kernel)
    parts, calls, total = [], [], 0
    for number, move in enumerate(moves):
        text, tasks = move.generate(f"{request.symbol}_{number}")
        parts.append(text)
        calls.append(f"    if (task < {total + tasks}) {{\n        {request.symbol}_{number}(p, task - {total});\n"
                     "        return;\n    }\n")  # fmt: skip
        total += tasks
    body = "".join(calls)
    parts.append(f"static void {request.symbol}(void* const* p, int32_t task)\n{{\n{body}}}\n")
    # Small pieces in one task: a task costs more than copying a few lines.
    text = "\n".join(parts)
    if total == len(moves):
        loop = "".join(f"    {request.symbol}_{n}(p, 0);\n" for n in range(len(moves)))
        parts[-1] = f"static void {request.symbol}(void* const* p, int32_t task)\n{{\n    (void)task;\n{loop}}}\n"
        text, total = "\n".join(parts), 1
    return KernelCode((), text, total, tuple(operands.constants), kernel)


class Moving(Kernel):
    """Base: a subclass lists the moves."""

    def supports(self, node: Node, target: Target) -> bool:
        return node.outputs[0].dtype is not DType.F16

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        raise NotImplementedError(self.name)

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        moves = [m for m in self.moves(request, operands) if math.prod(m.shape)]
        axis = _run_axis(moves[0]) if len(moves) == 1 else None
        if axis is not None:
            return _in_one_pass(request, operands, moves, axis, f"portable_{self.name}_runs")
        return joined(request, operands, moves, f"portable_{self.name}")


def _run_axis(move: Move) -> int | None:
    """The first axis from which on a move copies runs that are written out, inside a loop over others."""
    if move.x is None:
        return None
    for axis in range(1, len(move.shape)):
        if _contiguous(move, axis):
            run = run_of(move.x, move.y, math.prod(move.shape[axis:]))
            return axis if run is not None and math.prod(move.shape[:axis]) > 1 else None
    return None


class Transpose(Moving):
    name, op = "transpose", "transpose"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, y = operands.source(0), operands.result()
        perm = request.node.call.ints("perm")
        return [Move(y.shape, y, y.strides, x, tuple(x.strides[a] for a in perm))]


class Slice(Moving):
    name, op = "slice", "slice"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, y, call = operands.source(0), operands.result(), request.node.call
        starts, steps = call.ints("starts"), call.ints("steps")
        origin = sum(s * stride for s, stride in zip(starts, x.strides, strict=True))
        strides = tuple(s * stride for s, stride in zip(steps, x.strides, strict=True))
        return [Move(y.shape, y, y.strides, x, strides, start=origin)]


class Expand(Moving):
    name, op = "expand", "expand"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, y = operands.source(0), operands.result()
        return [Move(y.shape, y, y.strides, x, broadcast_strides(x, len(y.shape)))]


class Tile(Moving):
    name, op = "tile", "tile"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, y = operands.source(0), operands.result()
        repeats = request.node.call.ints("repeats")
        shape = tuple(d for pair in zip(repeats, x.shape, strict=True) for d in pair)
        to = tuple(s for size, stride in zip(x.shape, y.strides, strict=True) for s in (size * stride, stride))
        return [Move(shape, y, to, x, tuple(s for stride in x.strides for s in (0, stride)))]


class Pieces(Moving):
    """Base of concat and split: where each piece is a short run of every pixel, one pass moves all pieces."""

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        moves = [m for m in self.moves(request, operands) if math.prod(m.shape)]
        axis = request.node.call.int("axis")
        if len(moves) > 1 and math.prod(moves[0].shape[:axis]) > 1 and all(_contiguous(m, axis) for m in moves):
            return _in_one_pass(request, operands, moves, axis, f"portable_{self.name}_runs")
        return joined(request, operands, moves, f"portable_{self.name}")


def _contiguous(move: Move, axis: int) -> bool:
    """Whether the dimensions from `axis` on are one run in both operands."""
    assert move.x is not None
    tail = [math.prod(move.shape[a + 1 :]) for a in range(axis, len(move.shape))]
    strides = [(s[axis:], move.shape[axis:]) for s in (move.x_strides, move.y_strides)]
    return all(
        own == want or size == 1 for s, sizes in strides for own, want, size in zip(s, tail, sizes, strict=True)
    )


def _in_one_pass(
    request: KernelRequest, operands: Operands, moves: Sequence[Move], axis: int, kernel: str
) -> KernelCode:
    lead = moves[0].shape[:axis]
    strides = [s for m in moves for s in (m.x_strides[:axis], m.y_strides[:axis])]
    axes = collapse(lead, strides)
    names = [f"i{n}" for n in range(len(axes))]
    sizes = [math.prod(m.shape[axis:]) for m in moves]
    parts = split(axes[0].size, math.prod(a.size for a in axes[1:]) * sum(sizes))
    pieces: list[dict[str, object]] = []
    runs: list[Run] = []
    rows: dict[tuple[str, bool], dict[str, str]] = {}
    for number, (move, size) in enumerate(zip(moves, sizes, strict=True)):
        assert move.x is not None
        offsets = [
            sum_of([term(v, a.strides[2 * number + side]) for v, a in zip(names, axes, strict=True)])
            for side in range(2)
        ]
        sources = []
        for source, writable in ((move.x, False), (move.y, True)):
            kind = source.ctype if writable else f"const {source.ctype}"
            # One name for each operand, however many pieces it has.
            row = {"type": kind, "name": f"o{len(rows)}", "pointer": source.pointer, "restrict": ""}
            row["restrict"] = " restrict" if writable else ""
            sources.append(rows.setdefault((source.pointer, writable), row)["name"])
        start = f"{sources[0]}[{offsets[0]} + {move.start}"
        run = run_of(move.x, move.y, size)
        runs += [run] if run else []
        pieces.append(
            {
                "lines": run.lines(f"&{sources[1]}[{offsets[1]} + {move.to}]", f"&{start}]") if run else [],
                "size": size,
                "to": sources[1],
                "to_offset": f"{offsets[1]} + {move.to}",
                "value": converted(move.x, move.y, f"{start} + j]"),
            }
        )
    text = render(
        "pieces.c.j2",
        symbol=request.symbol, operands=list(rows.values()), parts=parts, pieces=pieces,
        loops=[{"variable": v, "size": a.size} for v, a in zip(names, axes, strict=True)],
    )  # fmt: skip
    return KernelCode(run_helpers(runs), text, parts.count, tuple(operands.constants), kernel)


class Concat(Pieces):
    name, op = "concat", "concat"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        y, axis, position = operands.result(), request.node.call.int("axis"), 0
        moves = []
        for index in range(len(request.node.inputs)):
            x = operands.source(index)
            moves.append(Move(x.shape, y, y.strides, x, x.strides, to=position * y.strides[axis]))
            position += x.shape[axis]
        return moves


class Split(Pieces):
    name, op = "split", "split"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, axis, position = operands.source(0), request.node.call.int("axis"), 0
        moves = []
        for index in range(len(request.outputs)):
            y = operands.result(index)
            moves.append(Move(y.shape, y, y.strides, x, x.strides, start=position * x.strides[axis]))
            position += y.shape[axis]
        return moves


def _channels_last(node: Node) -> bool:
    return node.call.str("layout") == "NHWC"


def _image(source: Source, last: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """((n, c, h, w), their strides) of an image operand."""
    order = (0, 3, 1, 2) if last else (0, 1, 2, 3)
    return tuple(source.shape[i] for i in order), tuple(source.strides[i] for i in order)


class DepthToSpace(Moving):
    name, op = "depth_to_space", "depth_to_space"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, y, call = operands.source(0), operands.result(), request.node.call
        b, last = call.int("block"), _channels_last(request.node)
        (n, _, h, w), (xn, xc, xh, xw) = _image(x, last)
        (_, c, _, _), (yn, yc, yh, yw) = _image(y, last)
        block = (xc * b * c, xc * c, xc) if call.str("mode") == "DCR" else (xc * b, xc, xc * b * b)
        # axes: n, h, block row, w, block column, c
        shape = (n, h, b, w, b, c)
        to = (yn, yh * b, yh, yw * b, yw, yc)
        return [_ordered(Move(shape, y, to, x, (xn, xh, block[0], xw, block[1], block[2])), last)]


class SpaceToDepth(Moving):
    name, op = "space_to_depth", "space_to_depth"

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, y, call = operands.source(0), operands.result(), request.node.call
        b, last = call.int("block"), _channels_last(request.node)
        (n, c, _, _), (xn, xc, xh, xw) = _image(x, last)
        (_, _, h, w), (yn, yc, yh, yw) = _image(y, last)
        shape = (n, h, b, w, b, c)
        to = (yn, yh, yc * b * c, yw, yc * c, yc)
        return [_ordered(Move(shape, y, to, x, (xn, xh * b, xh, xw * b, xw, xc)), last)]


def _ordered(move: Move, last: bool) -> Move:
    """Axes n, h, bh, w, bw, c with the channel moved outwards where it is not the innermost in memory."""
    if last:
        return move
    order = (0, 5, 1, 2, 3, 4)
    return replace(
        move,
        shape=tuple(move.shape[i] for i in order),
        y_strides=tuple(move.y_strides[i] for i in order),
        x_strides=tuple(move.x_strides[i] for i in order),
    )


def indexed(
    request: KernelRequest, operands: Operands, tables: dict[int, np.ndarray], kernel: str
) -> KernelCode:
    """y[i] = x[i with tables[axis][i_axis] for the axes that have a table]."""
    x, y = operands.source(0), operands.result()
    walked: list[tuple[str, Source, bool]] = [("x", x, False)]
    strides = [tuple(0 if a in tables else s for a, s in enumerate(x.strides))]
    for axis, table in sorted(tables.items()):
        offsets = (table.astype(np.int64) * x.strides[axis]).astype(np.int32)
        source = Source(operands.constant(offsets), "int32_t", DType.I32, offsets.shape, (1,))
        walked.append((f"t{axis}", source, False))
        strides.append(tuple(1 if a == axis else 0 for a in range(len(y.shape))))
    index = " + ".join(f"@t{axis}" for axis in sorted(tables)) or "0"
    line = f"@y = {converted(x, y, f'(&@x)[{index}]')};"
    text, tasks = nest(request.symbol, y.shape, [*walked, ("y", y, True)], [*strides, y.strides], [line], work=2.0)
    return KernelCode((), text, tasks, tuple(operands.constants), kernel)


class Pad(Moving):
    """Constant padding fills disjoint slabs around the copied middle; the other modes read through index tables."""

    name, op = "pad", "pad"

    def generate(self, request: KernelRequest) -> KernelCode:
        node = request.node
        mode, pads = node.call.str("mode"), node.call.ints("pads")
        if mode == "constant":
            return super().generate(request)
        tables = {}
        for axis, size in enumerate(node.input(0).shape):
            before, after = pads[axis], pads[axis + len(node.input(0).shape)]
            if before == after == 0:
                continue
            kept = np.arange(max(0, -before), size - max(0, -after))
            how = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode]
            tables[axis] = np.pad(kept, (max(0, before), max(0, after)), mode=how)  # type: ignore[call-overload]
        return indexed(request, Operands(request), tables, f"portable_pad_{mode}")

    def moves(self, request: KernelRequest, operands: Operands) -> list[Move]:
        x, y, node = operands.source(0), operands.result(), request.node
        pads, rank = node.call.ints("pads"), len(operands.result().shape)
        number = PadOp.fill(node.call).reshape(()).item()
        value = float_literal(number) if y.dtype is DType.F32 else str(int(number) + y.shift)
        moves = []
        low, size = [0] * rank, list(y.shape)
        for axis in range(rank):
            before, after = max(0, pads[axis]), max(0, pads[axis + rank])
            for start, width in ((0, before), (y.shape[axis] - after, after)):
                at = [*low[:axis], start, *low[axis + 1 :]]
                shape = (*size[:axis], width, *size[axis + 1 :])
                to = sum(a * s for a, s in zip(at, y.strides, strict=True))
                moves.append(Move(shape, y, y.strides, to=to, value=value))
            low[axis], size[axis] = before, y.shape[axis] - before - after
        to = sum(a * s for a, s in zip(low, y.strides, strict=True))
        start = sum(max(0, -pads[a]) * x.strides[a] for a in range(rank))
        moves.append(Move(tuple(size), y, y.strides, x, x.strides, to=to, start=start))
        return moves


class ResizeNearest(Kernel):
    name, op = "resize_nearest", "resize"

    def supports(self, node: Node, target: Target) -> bool:
        return node.call.str("mode") == "nearest" and node.output.dtype is not DType.F16

    def generate(self, request: KernelRequest) -> KernelCode:
        call = request.node.call
        tables = {axis: axis_taps(call, axis)[0][:, 0] for axis in resized_axes(call)}
        return indexed(request, Operands(request), tables, "portable_resize_nearest")


class Gather(Kernel):
    """Slices at run-time or constant indices: negative ones count from the end, others are clamped."""

    name, op = "gather", "gather"

    def supports(self, node: Node, target: Target) -> bool:
        return node.output.dtype is not DType.F16

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        x, indices, y = operands.source(0), operands.source(1), operands.result()
        axis, rank = request.node.call.int("axis"), len(indices.shape)
        size, step = x.shape[axis], x.strides[axis]
        x_strides = (*x.strides[:axis], *(0,) * rank, *x.strides[axis + 1 :])
        i_strides = (*(0,) * axis, *indices.strides, *(0,) * (len(x.shape) - axis - 1))
        lines = [
            f"int64_t k = (int64_t){indices.load('@i')};",
            f"k = k < 0 ? k + {size} : k;",
            f"k = k < 0 ? 0 : (k > {size - 1} ? {size - 1} : k);",
            f"@y = {converted(x, y, f'(&@x)[k * {step}]')};",
        ]
        text, tasks = nest(
            request.symbol, y.shape, [("x", x, False), ("i", indices, False), ("y", y, True)],
            [x_strides, i_strides, y.strides], lines, work=2.0,
        )  # fmt: skip
        return KernelCode((), text, tasks, tuple(operands.constants), "portable_gather")


MOVEMENT: tuple[Kernel, ...] = (
    Transpose(), Slice(), Expand(), Tile(), Concat(), Split(), DepthToSpace(), SpaceToDepth(), Pad(), ResizeNearest(),
    Gather(),
)  # fmt: skip
