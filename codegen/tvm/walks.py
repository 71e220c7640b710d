"""C around functions of lines: where their operands are, and which lines a task has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcomp.codegen.c.kernel import KernelCode
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.plan.buffer import Buffer
from qcomp.codegen.tvm.functions import compiled
from qcomp.codegen.tvm.render import ctype, render
from qcomp.codegen.tvm.shares import MOST_TASKS, divisor
from qcomp.targets import Target

_TASK_ELEMENTS = 1 << 17


@dataclass(frozen=True)
class Place:
    """Where lines of an operand are, in elements: strides of images and of the lines of one, and of the first line."""

    image: int
    line: int
    offset: int = 0


@dataclass(frozen=True)
class Constant:
    """A constant operand; `line` elements of it belong to each line of an image, 0 where all have the same."""

    array: np.ndarray
    line: int = 0


def lines_of_a_task(per_image: int, elements: int) -> int:
    """How many lines of an image, of so many elements of work each, a task has: a divisor."""
    return per_image // divisor(per_image, min(MOST_TASKS, per_image * elements // _TASK_ELEMENTS))


def walk_code(
    spec: Any, scheduled: Callable[[Any], Any], target: Target, symbol: str, images: int, groups: int, lines: int,
    operands: Mapping[str, Place], y: Place, reals: Sequence[float], integers: Sequence[int],
    constants: Mapping[str, Constant], kernel: str, aliased: bool = False,
) -> KernelCode:  # fmt: skip
    """A node as calls of one function, which takes `lines` lines: `groups` of them for each image."""
    function = compiled(spec, scheduled, target, len(spec.parameters), aliased)
    slots = iter(range(len(operands) + 1 + len(constants)))
    arrays = {name: constant.array for name, constant in constants.items()}
    text = render(
        "walk.c.j2", symbol=symbol, groups=groups, lines=lines, function=function.name, arguments=spec.parameters,
        operands=[{"name": name, "slot": next(slots), **vars(place)} for name, place in operands.items()],
        y={"slot": next(slots), **vars(y)},
        reals=[float_literal(value) for value in reals], integers=integers,
        stored=ctype(spec.dtype),
        constants=[
            {"name": name, "slot": next(slots), "line": constant.line, "ctype": ctype(str(constant.array.dtype))}
            for name, constant in constants.items()
        ],
    )  # fmt: skip
    return KernelCode((function,), text, images * groups, tuple(arrays.values()), f"tvm {kernel}")


def flat_places(buffers: Sequence[Buffer]) -> tuple[int, int, int, list[Place]]:
    """(images, lines of each, elements of a line, where the lines of each buffer are) of buffers of one shape."""
    shape = buffers[0].shape
    if all(buffer.dense for buffer in buffers):
        total = math.prod(shape)
        pieces = divisor(total, min(MOST_TASKS, total // _TASK_ELEMENTS))
        length = total // pieces
        return 1, pieces, length, [Place(0, length)] * len(buffers)
    images, rows, columns, channels = shape
    places = [Place(*buffer.strides[:2]) for buffer in buffers]
    return images, rows, columns * channels, places
