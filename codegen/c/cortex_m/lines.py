"""The pixels of a result as lines along which tiles move by constant steps."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.c.vector.shapes import ConvShape, Plane


@dataclass(frozen=True)
class Lines:
    """`count` lines of `length` pixels; strides, in elements, of images and of the lines of one (`per_image`)."""

    count: int
    length: int
    per_image: int
    x_image: int
    x_row: int
    y_image: int
    y_row: int
    r_image: int
    r_row: int


def lines_of(shape: ConvShape, residual: Plane | None) -> Lines:
    """All pixels as one line where nothing lies between rows, else the rows of the result."""
    x, y, sh = shape.x, shape.y, shape.strides[0]
    pointwise = shape.kernel == (1, 1) and shape.strides == (1, 1) and not any(shape.pads)
    if pointwise and x.dense and y.dense and (residual is None or residual.dense):
        return Lines(1, y.batch * y.height * y.width, 1, 0, 0, 0, 0, 0, 0)
    r_image, r_row = (0, 0) if residual is None else (residual.image_stride, residual.row_stride)
    return Lines(
        y.batch * y.height, y.width, y.height, x.image_stride, sh * x.row_stride, y.image_stride, y.row_stride,
        r_image, r_row,
    )  # fmt: skip
