"""The pixels of a result as equal lines along which tiles move by constant steps."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.codegen.c.vector.shapes import ConvShape, Residual


@dataclass(frozen=True)
class Lines:
    """`count` lines of `length` pixels, `per_image` of them an image: where they start, in elements of x and y; flat:
    they are pieces of one line."""

    count: int
    length: int
    per_image: int
    x_image: int
    x_row: int
    y_image: int
    y_row: int
    flat: bool

    def residual_row(self, residual: Residual | None) -> int:
        """Elements from a line of a residual to the next, 0 without one."""
        if residual is None:
            return 0
        return self.y_row if self.flat else residual.plane.row_stride


def is_flat(shape: ConvShape, residual: Residual | None) -> bool:
    """Whether all pixels lie as one line, which may be cut anywhere."""
    pointwise = shape.kernel == (1, 1) and shape.strides == (1, 1) and shape.pads == (0, 0, 0, 0)
    return pointwise and shape.x.dense and shape.y.dense and (residual is None or residual.plane.dense)


def flat_lines(shape: ConvShape, length: int, per_image: int) -> Lines:
    """The line of a flat convolution in pieces of `length` pixels; per_image: at least as many as there are pieces."""
    return Lines(
        shape.y.pixels // length, length, per_image, 0, length * shape.x.channels, 0, length * shape.y.channels, True
    )


def row_lines(shape: ConvShape) -> Lines:
    """The rows of the result."""
    x, y = shape.x, shape.y
    return Lines(
        y.batch * y.height, y.width, y.height, x.image_stride, shape.strides[0] * x.row_stride, y.image_stride,
        y.row_stride, False,
    )  # fmt: skip
