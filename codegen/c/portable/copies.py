"""Copies: identity and reshape where a view will not do (other storage, padding, the caller's memory)."""

from __future__ import annotations

import math

from qcomp.codegen.c.kernel import Kernel, KernelCode, KernelRequest
from qcomp.codegen.c.portable.code import Operands, Source, render
from qcomp.codegen.c.portable.nest import flat_index, nest
from qcomp.codegen.c.portable.tasks import split


def converted(source: Source, result: Source, element: str) -> str:
    """C expression that stores a loaded element as the result stores it."""
    if source.shift == result.shift:
        return element
    return f"({result.ctype})((int32_t){element} + {result.shift - source.shift})"


class Copy(Kernel):
    """y = x in row-major order; the shapes may differ, the number of elements does not."""

    def __init__(self, op: str) -> None:
        self.name = self.op = op

    def generate(self, request: KernelRequest) -> KernelCode:
        operands = Operands(request)
        source, result = operands.source(0), operands.result()
        if source.shape == result.shape:
            shape, strides = result.shape, (source.strides, result.strides)
        elif _dense(source):
            shape, strides = result.shape, (_row_major(result.shape), result.strides)
        elif _dense(result):
            shape, strides = source.shape, (source.strides, _row_major(source.shape))
        else:
            return self._scattered(request, operands, source, result)
        text, tasks = nest(
            request.symbol,
            shape,
            [("x", source, False), ("y", result, True)],
            strides,
            [f"@y = {converted(source, result, '@x')};"],
        )
        return KernelCode((), text, tasks, tuple(operands.constants), f"portable_copy_{self.name}")

    def _scattered(self, request: KernelRequest, operands: Operands, source: Source, result: Source) -> KernelCode:
        count = math.prod(result.shape)
        parts = split(count, 8.0)
        text = render(
            "scattered.c.j2",
            symbol=request.symbol, xtype=source.ctype, ytype=result.ctype, from_=source.pointer, to=result.pointer,
            parts=parts, x_index=flat_index("e", source.shape, source.strides),
            y_index=flat_index("e", result.shape, result.strides), value=converted(source, result, "value"),
        )  # fmt: skip
        return KernelCode((), text, parts.count, tuple(operands.constants), f"portable_copy_{self.name}_scattered")


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _dense(source: Source) -> bool:
    return source.strides == _row_major(source.shape)


COPIES: tuple[Kernel, ...] = (Copy("identity"), Copy("reshape"))
