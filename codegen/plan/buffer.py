"""Where one operand lives: a dense array, or an NHWC image with a halo of padding around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qcomp.errors import QcompError
from qcomp.ir import DType

Halo = tuple[int, int, int, int]
NO_HALO: Halo = (0, 0, 0, 0)


@dataclass(frozen=True)
class Buffer:
    """Where one operand lives; everything is known at compile time.

    `dtype` is the logical type: i8 activations are stored as u8 (value + 128) when the target's
    activation_storage is "u8".  `halo` is (top, left, bottom, right) pixels of padding around every image of a
    rank 4 NHWC tensor, which the generated code fills before the producer runs.

    An `external` buffer is the caller's: dense, aligned to its element only, with nothing readable past its end, and
    i8 in it is always signed.  Only copies see external i8 when the target stores u8.
    """

    dtype: DType
    shape: tuple[int, ...]
    halo: Halo = NO_HALO
    external: bool = False

    def __post_init__(self) -> None:
        if self.halo != NO_HALO and len(self.shape) != 4:
            raise QcompError(f"a buffer of shape {self.shape} cannot have a halo: it is not NHWC")

    @property
    def row_stride(self) -> int:
        """Elements from one image row to the next (rank 4)."""
        _, left, _, right = self.halo
        return (left + self.shape[2] + right) * self.shape[3]

    @property
    def image_stride(self) -> int:
        """Elements from one image to the next (rank 4)."""
        top, _, bottom, _ = self.halo
        return (top + self.shape[1] + bottom) * self.row_stride

    @property
    def interior(self) -> int:
        """Elements from the start of the buffer to its first interior element."""
        if self.dense:
            return 0
        return self.halo[0] * self.row_stride + self.halo[1] * self.shape[3]

    @property
    def elements(self) -> int:
        """Elements of the whole buffer, halo included."""
        return math.prod(self.shape) if self.dense else self.shape[0] * self.image_stride

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.numpy.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements between neighbours along each dimension, for any rank."""
        if not self.dense:
            return (self.image_stride, self.row_stride, self.shape[3], 1)
        return tuple(math.prod(self.shape[i + 1 :]) for i in range(len(self.shape)))

    @property
    def dense(self) -> bool:
        return self.halo == NO_HALO


def union_halo(a: Halo, b: Halo) -> Halo:
    """The smallest halo that holds both."""
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
