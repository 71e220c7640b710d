"""How an elementwise node walks its buffers: one flat run, rows of an image, or single pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qcomp.codegen.plan.buffer import Buffer

_CHUNK = 8192
_TASK_BYTES = 32 * 1024
_REPEATED_BYTES = 2048


@dataclass(frozen=True)
class OperandWalk:
    """Strides of one operand in elements; 0 where it is broadcast.

    repeated: a row of copies of its pixel is made first, so that one run covers several pixels."""

    index: int
    ctype: str
    image: int
    row: int
    column: int
    repeated: bool = False


@dataclass(frozen=True)
class Walk:
    """`rows` rows of `columns` pixels of `length` elements, `together` pixels a run.

    With `total`, one flat run cut in rows."""

    rows: int
    per_image: int
    columns: int
    length: int
    total: int
    tasks: int
    rows_per_task: int
    together: int = 1


def can_walk(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether operands of these shapes (the last is the result) broadcast over pixels only, not over channels."""
    *inputs, out = shapes
    if all(shape == out for shape in inputs):
        return True
    if len(out) > 4 or not out:
        return False
    return all(_image(shape)[3] == _image(out)[3] for shape in inputs)


def _image(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    n, h, w, c = (1,) * (4 - len(shape)) + shape
    return n, h, w, c


def walk(buffers: Sequence[Buffer], ctypes: Sequence[str]) -> tuple[Walk, list[OperandWalk]]:
    """The walk over buffers (inputs, then the result) that `can_walk` accepted."""
    out = buffers[-1]
    if all(b.dense and b.shape == out.shape for b in buffers):
        total = math.prod(out.shape)
        rows = -(-total // _CHUNK)
        operands = [OperandWalk(i, ctype, 0, 0, 0) for i, ctype in enumerate(ctypes)]
        return _tasks(rows, 1, 1, min(_CHUNK, total), total), operands
    n, h, w, c = _image(out.shape)
    operands = []
    for i, (buffer, ctype) in enumerate(zip(buffers, ctypes, strict=True)):
        shape = _image(buffer.shape)
        if buffer.dense:
            strides = (math.prod(shape[1:]), math.prod(shape[2:]), shape[3])
        else:
            strides = (buffer.image_stride, buffer.row_stride, shape[3])
        image, row, column = (s if extent > 1 else 0 for s, extent in zip(strides, shape[:3], strict=True))
        operands.append(OperandWalk(i, ctype, image, row, column))
    if all(_image(b.shape)[2] == w for b in buffers):
        return _tasks(n * h, h, 1, w * c, 0), operands
    together = max(1, min(w, _REPEATED_BYTES // c))
    if together > 1:
        operands = [replace(o, repeated=_image(b.shape)[2] != w) for o, b in zip(operands, buffers, strict=True)]
    return replace(_tasks(n * h, h, w, c, 0), together=together), operands


def _tasks(rows: int, per_image: int, columns: int, length: int, total: int) -> Walk:
    wanted = max(1, min(32, rows, rows * columns * length // _TASK_BYTES))
    rows_per_task = -(-rows // wanted)
    return Walk(rows, per_image, columns, length, total, -(-rows // rows_per_task), rows_per_task)
