"""Pooling, interpolating resize and local response normalization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qcomp.codegen.c.kernel import CFunction, Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import FIXED, ROUND, Operands, fixed_rounded, render, rounded
from qcomp.codegen.c.portable.convolutions import image, is_channels_last
from qcomp.codegen.c.portable.fixed_math import helpers_for
from qcomp.codegen.c.portable.nest import sum_of, term
from qcomp.codegen.c.portable.reductions import _extreme
from qcomp.codegen.c.portable.tasks import split
from qcomp.codegen.c.render import float_literal
from qcomp.ir import DType, Node
from qcomp.ir.fixed_point import fixed_factors
from qcomp.ir.ops.pool import AvgPool as AvgPoolOp
from qcomp.ir.ops.qpool import QAvgPool as QAvgPoolOp
from qcomp.ir.ops.resize import axis_taps, resized_axes
from qcomp.ir.requantize import is_fixed
from qcomp.targets import Target


class Pool(Kernel):
    """max_pool, avg_pool and qavg_pool: windows clipped to the image, vectors across channels where they are last."""

    def __init__(self, op: str) -> None:
        self.name = self.op = op
        self.fixed = op == "qavg_pool"

    def supports(self, node: Node, target: Target) -> bool:
        dtype = node.input(0).dtype
        if self.op == "max_pool":
            return dtype in (DType.F32, DType.I8, DType.U8, DType.I16, DType.I32)
        return dtype is (DType.F32 if self.op == "avg_pool" else DType.I8)

    def generate(self, request: KernelRequest) -> KernelCode:
        node, call, operands = request.node, request.node.call, Operands(request)
        last = is_channels_last(node)
        x, y = image(operands.source(0), last), image(operands.result(), last)
        kernel, dilations = call.ints("kernel"), call.ints("dilations") if "dilations" in node.attrs else (1, 1)
        real = x.source.dtype is DType.F32
        helpers: tuple[CFunction, ...] = ()
        divisors, divisor_type = "", "float"
        if self.op == "max_pool":
            # Stored order is logical order: the maximum needs no shift.
            kind, shift = ("float", 0) if real else ("int32_t", 0)
            start = _extreme(x.source.dtype, -1)
            start = start if real else f"{start} + {x.source.shift}"
            step, finish = "v > acc ? v : acc", "acc"
        elif self.op == "avg_pool":
            divisors = operands.constant(AvgPoolOp.counts(call).astype(np.float32))
            kind, shift, start, step, finish = "float", 0, "0.0f", "acc + v", "acc / divisor"
        else:
            mult = QAvgPoolOp.multipliers(call)
            kind, shift, start, step = "int32_t", call.int("x_zp") + x.source.shift, "0", "acc + v"
            zp, lo, hi = call.int("zp"), call.int("lo"), call.int("hi")
            if is_fixed(call):
                found = fixed_factors(mult)
                divisors, divisor_type = operands.constant(found.factors[0].astype(np.int32)), "int32_t"
                finish = fixed_rounded("(int64_t)acc * divisor", found.shift, zp, lo, hi, y.source.shift)
                helpers = (FIXED,)
            else:
                divisors = operands.constant(mult)
                finish = rounded("(float)acc * divisor", zp, lo, hi, y.source.shift)
                helpers = (ROUND,)
        parts = split(y.n * y.h, y.w * y.c * math.prod(kernel))
        text = render(
            "pool.c.j2",
            symbol=request.symbol, x=x, y=y, parts=parts, kernel=kernel, strides=call.ints("strides"),
            dilations=dilations, pads=call.ints("pads"), kind=kind, start=start, step=step, finish=finish,
            shift=shift, divisors=divisors, divisor_type=divisor_type, block=16 if last else 1,
        )  # fmt: skip
        return KernelCode(helpers, text, parts.count, tuple(operands.constants), f"portable_{self.name}")


class ResizeTaps(Kernel):
    """Linear and cubic resize: every output is a nested sum over the taps of each axis, innermost the first axis."""

    name, op = "resize_taps", "resize"

    def supports(self, node: Node, target: Target) -> bool:
        return node.call.str("mode") != "nearest" and node.input(0).dtype is DType.F32

    def generate(self, request: KernelRequest) -> KernelCode:
        operands, call = Operands(request), request.node.call
        x, y = operands.source(0), operands.result()
        axes = resized_axes(call)
        taps = []
        for axis in axes:
            index, weights = axis_taps(call, axis)
            offsets = (index * x.strides[axis]).astype(np.int32)
            taps.append(
                {
                    "axis": axis, "count": index.shape[1], "index": operands.constant(offsets),
                    "weight": operands.constant(weights),
                }
            )  # fmt: skip
        loops = [
            {"variable": f"i{a}", "size": size, "stride": 0 if a in axes else x.strides[a], "to": y.strides[a]}
            for a, size in enumerate(y.shape)
        ]
        if not loops:
            loops = [{"variable": "i0", "size": 1, "stride": 0, "to": 0}]
        size = int(str(loops[0]["size"]))
        parts = split(size, math.prod(y.shape) // size * 8)
        text = render(
            "resize.c.j2",
            symbol=request.symbol, x=x.pointer, y=y.pointer, parts=parts, loops=loops, depth=len(taps),
            nested=_nested(taps), start=sum_of([term(str(v["variable"]), int(str(v["stride"]))) for v in loops]),
            to=sum_of([term(str(v["variable"]), int(str(v["to"]))) for v in loops]),
        )  # fmt: skip
        return KernelCode((), text, parts.count, tuple(operands.constants), "portable_resize_taps")


def _nested(taps: Sequence[Mapping[str, object]]) -> list[str]:
    """Lines that set v<n> from the offset at<n>: the sum over the taps of the n-th axis of what v<n-1> is there."""
    depth = len(taps)
    if not depth:
        return ["const float v0 = x[at0];"]
    tap = taps[-1]
    count, counter = tap["count"], f"n{depth}"
    entry = f"[i{tap['axis']} * {count} + {counter}]"
    return [
        f"float v{depth} = 0.0f;",
        f"for (int32_t {counter} = 0; {counter} < {count}; ++{counter}) {{",
        f"    const int32_t at{depth - 1} = at{depth} + ((const int32_t*){tap['index']}){entry};",
        *(f"    {line}" for line in _nested(taps[:-1])),
        f"    v{depth} = v{depth} + v{depth - 1} * ((const float*){tap['weight']}){entry};",
        "}",
    ]


class Lrn(Kernel):
    name, op = "lrn", "lrn"

    def generate(self, request: KernelRequest) -> KernelCode:
        operands, call = Operands(request), request.node.call
        x, y = operands.source(0), operands.result()
        size = call.int("size")
        pixels = math.prod(x.shape[2:])
        parts = split(x.shape[0] * x.shape[1], pixels * (size + 16))
        text = render(
            "lrn.c.j2",
            symbol=request.symbol, x=x.pointer, y=y.pointer, parts=parts, channels=x.shape[1], pixels=pixels,
            size=size, before=(size - 1) // 2, alpha=float_literal(np.float32(call.float("alpha") / size)),
            bias=float_literal(call.float("bias")), beta=float_literal(call.float("beta")),
        )  # fmt: skip
        return KernelCode(helpers_for(text), text, parts.count, tuple(operands.constants), "portable_lrn")


POOLS: tuple[Kernel, ...] = (Pool("max_pool"), Pool("avg_pool"), Pool("qavg_pool"), ResizeTaps(), Lrn())
