"""Shapes of the layers that the generators accept: where operands lie and how they are walked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plane:
    """An NHWC activation with dense channels and a halo (top, left, bottom, right) in pixels.

    Strides count elements; pointers to it name the first interior element."""

    batch: int
    height: int
    width: int
    channels: int
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def row_stride(self) -> int:
        return (self.halo[1] + self.width + self.halo[3]) * self.channels

    @property
    def image_stride(self) -> int:
        return (self.halo[0] + self.height + self.halo[2]) * self.row_stride

    @property
    def pixels(self) -> int:
        return self.batch * self.height * self.width

    @property
    def interior(self) -> int:
        return self.halo[0] * self.row_stride + self.halo[1] * self.channels

    @property
    def elements(self) -> int:
        return self.batch * self.image_stride

    @property
    def dense(self) -> bool:
        return self.halo == (0, 0, 0, 0)


@dataclass(frozen=True)
class ConvShape:
    """A convolution from plane x to plane y; pads are (top, left, bottom, right)."""

    x: Plane
    y: Plane
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    @property
    def x_step(self) -> int:
        """Elements of x from what one pixel of a row of y reads to what the next one does."""
        return self.strides[1] * self.x.channels

    @property
    def macs(self) -> int:
        taps = self.kernel[0] * self.kernel[1] * self.x.channels // self.groups
        return self.y.batch * self.y.height * self.y.width * self.y.channels * taps

    @property
    def halo(self) -> tuple[int, int, int, int]:
        """Halo that x must have so that no tap leaves its buffer."""
        return required_halo(
            (self.x.height, self.x.width), (self.y.height, self.y.width),
            self.kernel, self.strides, self.dilations, self.pads,
        )  # fmt: skip


def required_halo(
    size: tuple[int, int],
    out: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
) -> tuple[int, int, int, int]:
    """Pixels (top, left, bottom, right) around a `size` image that the taps of `out` windows read."""
    bottom, right = (
        max(0, (out[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - size[i]) for i in range(2)
    )
    return pads[0], pads[1], bottom, right


@dataclass(frozen=True)
class Residual:
    """What a convolution adds before it rounds: (r - zp) * mult of a plane like the result's, in stored terms.

    mult is a float32 value."""

    plane: Plane
    zp: int
    mult: float

    @property
    def exact(self) -> bool:
        """Whether the product with any byte is exact in float32, so that one multiply-add rounds as product and sum."""
        return bool(np.float32(self.mult).view(np.uint32) & 0xFF == 0)


@dataclass(frozen=True)
class Requantization:
    """Output arithmetic in stored terms, which are unsigned for bytes: x_zp, zp, lo, hi are in 0..255.

    `table` maps a stored output to the stored result; `dtype` is "u8", "i16" or "f32", which ignores zp, lo, hi and
    table.  `words`: x is int16, with a zero point of 0."""

    x_zp: int
    zp: int = 128
    lo: int = 0
    hi: int = 255
    table: tuple[int, ...] | None = field(default=None, repr=False)
    dtype: str = "u8"
    residual: Residual | None = None
    words: bool = False

    @property
    def packs(self) -> bool:
        """Whether vectors of results are packed into bytes."""
        return self.dtype == "u8"

    @property
    def result_bytes(self) -> int:
        return {"u8": 1, "i16": 2, "f32": 4}[self.dtype]

    @property
    def clamped(self) -> bool:
        """Whether a bound is tighter than that of a byte."""
        return (self.lo, self.hi) != (0, 255)
