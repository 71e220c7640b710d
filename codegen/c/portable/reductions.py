"""Reductions, softmax and normalizations: 16 interleaved partial results, then a fixed tree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import Operands, Source, render
from qcomp.codegen.c.portable.fixed_math import helpers_for
from qcomp.codegen.c.portable.nest import Axis, broadcast_strides, collapse, flat_index, sum_of, term
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node
from qcomp.targets import Target


@dataclass(frozen=True)
class Rows:
    """A tensor as rows: kept axes numbered by `row`, reduced axes walked in row-major order."""

    source: Source
    kept: tuple[int, ...]
    reduced: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.source.shape[a] for a in self.kept)

    @property
    def length(self) -> int:
        return math.prod(self.source.shape[a] for a in self.reduced)

    def base(self, other: Source | None = None, strides: Sequence[int] | None = None) -> str:
        """C offset of a row's first element, in this tensor or in another of the same shape."""
        source = other or self.source
        used = source.strides if strides is None else strides
        return flat_index("row", [self.source.shape[a] for a in self.kept], [used[a] for a in self.kept])

    def axes(self, *strides: Sequence[int]) -> list[Axis]:
        """Loops over a row, outermost first, with the strides of all given tensors."""
        return collapse([self.source.shape[a] for a in self.reduced], [[s[a] for a in self.reduced] for s in strides])


def rows_of(source: Source, reduced: tuple[int, ...]) -> Rows:
    kept = tuple(a for a in range(len(source.shape)) if a not in reduced)
    return Rows(source, kept, tuple(sorted(reduced)))


def partials(rows: Rows, name: str, kind: str, start: str, step: str, pointer: str = "x") -> dict[str, object]:
    """Parameters of the reduction macro: `step` combines `acc` with the element `v`."""
    axes = rows.axes(rows.source.strides)
    *outer, inner = axes
    return {
        "name": name,
        "kind": kind,
        "start": start,
        "step": step,
        # partials of mapped elements (|v|, v * v, exp) are added as they are
        "combine": step if step.endswith(("+ v", "* v", ": acc")) and "v * v" not in step else "acc + v",
        "pointer": pointer,
        "outer": [{"variable": f"o{n}", "size": a.size, "stride": a.strides[0]} for n, a in enumerate(outer)],
        "size": inner.size,
        "stride": inner.strides[0],
    }


@dataclass(frozen=True)
class ReduceRow:
    """acc = step(acc, v) from `start`, then `finish`; R is the number of elements.  Types that it takes."""

    op: str
    start: str
    step: str
    finish: str = "acc"
    integers: bool = True
    quantized: bool = False


REDUCE_ROWS = (
    ReduceRow("reduce_sum", "0", "acc + v"),
    ReduceRow("reduce_mean", "0", "acc + v", "acc / R", integers=False),
    ReduceRow("reduce_max", "LOWEST", "v > acc ? v : acc", quantized=True),
    ReduceRow("reduce_min", "HIGHEST", "v < acc ? v : acc", quantized=True),
    ReduceRow("reduce_prod", "1", "acc * v"),
    ReduceRow("reduce_l1", "0", "acc + q_abs(v)", integers=False),
    ReduceRow("reduce_l2", "0", "acc + v * v", "q_sqrt(acc)", integers=False),
    ReduceRow("reduce_sum_square", "0", "acc + v * v"),
)
_UNSIGNED = {DType.I32: "uint32_t", DType.I64: "uint64_t", DType.U32: "uint32_t", DType.U64: "uint64_t"}


def _extreme(dtype: DType, sign: int) -> str:
    if dtype is DType.F32:
        return float_literal(sign * np.inf)
    low, high = dtype.limits
    if dtype is DType.I64:
        return "INT64_MAX" if sign > 0 else "INT64_MIN"
    return str(high) if sign > 0 else (f"(-{-low - 1} - 1)" if low < 0 else "0")


class Reduce(Kernel):
    """One row over any axes."""

    def __init__(self, row: ReduceRow) -> None:
        self.name = self.op = row.op
        self._row = row

    def supports(self, node: Node, target: Target) -> bool:
        dtype = node.input(0).dtype
        if dtype in (DType.I8, DType.U8, DType.I16):
            return self._row.quantized
        return dtype is DType.F32 or (self._row.integers and dtype in (DType.I32, DType.I64))

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        x, y, dtype = operands.source(0), operands.result(), request.node.input(0).dtype
        rows = rows_of(x, request.node.call.ints("axes"))
        row = self._row
        if dtype is DType.F32:
            kind = "float"
        elif row.quantized:
            kind = "int64_t" if dtype is DType.I64 else "int32_t"
        else:
            kind = _UNSIGNED[dtype]  # sums wrap
        start = {"LOWEST": _extreme(dtype, -1), "HIGHEST": _extreme(dtype, 1)}.get(row.start, row.start)
        finish = row.finish.replace("R", float_literal(float(np.float32(rows.length))))
        shift = f" + {y.shift}" if y.shift else ""
        text = render(
            "reduce.c.j2",
            symbol=request.symbol, xtype=x.ctype, ytype=y.ctype, x=x.pointer, y=y.pointer,
            parts=split(rows.count, rows.length), base=rows.base(),
            to=flat_index("row", *_kept_result(request.node, rows, y)),
            reduction=partials(rows, "reduce", kind, start, row.step), value=x.load("VALUE"),
            finish=f"({y.ctype})(({finish}){shift})",
        )  # fmt: skip
        return KernelCode(
            helpers_for(text), text, split(rows.count, rows.length).count, tuple(operands.constants),
            f"portable_{self.name}",
        )  # fmt: skip


def _kept_result(node: Node, rows: Rows, y: Source) -> tuple[list[int], list[int]]:
    """Sizes and strides of the kept axes in the result, whether or not the reduced ones stay with size 1."""
    if len(y.shape) == len(rows.source.shape):
        return [y.shape[a] for a in rows.kept], [y.strides[a] for a in rows.kept]
    return list(y.shape), list(y.strides)


class ArgExtreme(Kernel):
    """First index of the largest or smallest element; NaN is passed over."""

    def __init__(self, op: str) -> None:
        self.name = self.op = op

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype in (DType.F32, DType.I8, DType.U8, DType.I16, DType.I32, DType.I64)

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        x, y, axis = operands.source(0), operands.result(), request.node.call.int("axis")
        rows = rows_of(x, (axis,))
        better = ">" if self.op == "argmax" else "<"
        kind = {DType.F32: "float", DType.I64: "int64_t"}.get(x.dtype, "int32_t")
        parts = split(rows.count, rows.length)
        text = render(
            "arg_extreme.c.j2",
            symbol=request.symbol, xtype=x.ctype, x=x.pointer, y=y.pointer, parts=parts, base=rows.base(),
            to=flat_index("row", *_kept_result(request.node, rows, y)), kind=kind, value=x.load("VALUE"),
            start=_extreme(x.dtype, -1 if better == ">" else 1), better=better, size=rows.length,
            stride=x.strides[axis],
        )  # fmt: skip
        return KernelCode((), text, parts.count, tuple(operands.constants), f"portable_{self.name}")


class Softmax(Kernel):
    """softmax and log_softmax along one axis: the exponentials go through the output's own memory."""

    def __init__(self, op: str) -> None:
        self.name = self.op = op

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype is DType.F32

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        x, y, axis = operands.source(0), operands.result(), request.node.call.int("axis")
        rows, out = rows_of(x, (axis,)), rows_of(y, (axis,))
        log = self.op == "log_softmax"
        parts = split(rows.count, rows.length * 12)
        maximum = partials(rows, "maximum", "float", float_literal(-np.inf), "v > acc ? v : acc")
        if log:
            total = partials(rows, "total", "float", "0.0f", "acc + q_exp(v - m)")
        else:
            total = partials(out, "total", "float", "0.0f", "acc + v", pointer="to")
        text = render(
            "softmax.c.j2",
            symbol=request.symbol, x=x.pointer, y=y.pointer, parts=parts, base=rows.base(), to=out.base(),
            maximum=maximum, total=total, size=rows.length, x_stride=x.strides[axis], y_stride=y.strides[axis],
            log=log,
        )  # fmt: skip
        helpers = helpers_for(text)
        return KernelCode(helpers, text, parts.count, tuple(operands.constants), f"portable_{self.name}")


class Normalize(Kernel):
    """layer_norm (over trailing axes) and instance_norm (over pixels): deviations go through the output."""

    def __init__(self, op: str) -> None:
        self.name = self.op = op

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype is DType.F32

    def generate(self, request: KernelRequest) -> KernelCode:
        node, operands = request.node, Operands(request)
        x, y, rank = operands.source(0), operands.result(), len(request.outputs[0].shape)
        layer = self.op == "layer_norm"
        axes = tuple(range(node.call.int("axis") if layer else 2, rank))
        rows, out = rows_of(x, axes), rows_of(y, axes)
        factors = [("s", operands.source(1))]
        if operands.present(2):
            factors.append(("b", operands.source(2)))
        strides = [broadcast_strides(f, rank) if layer else _channel_strides(rank) for _, f in factors]
        loops = rows.axes(x.strides, y.strides, *strides)
        parts = split(rows.count, rows.length * 6)
        names = [f"i{n}" for n in range(len(loops))]
        offsets = [
            sum_of([term(v, a.strides[position]) for v, a in zip(names, loops, strict=True)])
            for position in range(2 + len(factors))
        ]
        text = render(
            "normalize.c.j2",
            symbol=request.symbol, x=x.pointer, y=y.pointer, parts=parts, base=rows.base(), to=out.base(),
            total=partials(rows, "total", "float", "0.0f", "acc + v"),
            squares=partials(out, "squares", "float", "0.0f", "acc + v * v", pointer="to"),
            loops=[{"variable": v, "size": a.size} for v, a in zip(names, loops, strict=True)], offsets=offsets,
            factors=[{"name": n, "pointer": f.pointer, "base": rows.base(f, s)}
                     for (n, f), s in zip(factors, strides, strict=True)],
            length=float_literal(float(np.float32(rows.length))),
            epsilon=float_literal(np.float32(node.call.float("epsilon"))),
        )  # fmt: skip
        return KernelCode(
            helpers_for(text), text, parts.count, tuple(operands.constants), f"portable_{self.name}"
        )


def _channel_strides(rank: int) -> tuple[int, ...]:
    return tuple(1 if axis == 1 else 0 for axis in range(rank))


class CumSum(Kernel):
    name, op = "cumsum", "cumsum"

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype in (DType.F32, DType.I32, DType.I64)

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        x, y, axis = operands.source(0), operands.result(), request.node.call.int("axis")
        rows, out = rows_of(x, (axis,)), rows_of(y, (axis,))
        parts = split(rows.count, rows.length)
        text = render(
            "cumsum.c.j2",
            symbol=request.symbol, kind=x.ctype, sum="float" if x.dtype is DType.F32 else _UNSIGNED[x.dtype],
            x=x.pointer, y=y.pointer, parts=parts, base=rows.base(), to=out.base(), size=rows.length,
            x_stride=x.strides[axis], y_stride=y.strides[axis],
        )  # fmt: skip
        return KernelCode((), text, parts.count, tuple(operands.constants), "portable_cumsum")


REDUCTIONS: tuple[Kernel, ...] = (
    *(Reduce(row) for row in REDUCE_ROWS), ArgExtreme("argmax"), ArgExtreme("argmin"), Softmax("softmax"),
    Softmax("log_softmax"), Normalize("layer_norm"), Normalize("instance_norm"), CumSum(),
)  # fmt: skip
