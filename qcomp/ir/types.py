"""What a tensor is: its element type, its static shape, and how its integers stand for real numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from qcomp.errors import QcompError


class DType(Enum):
    """Element types; the value is the name that the text form prints."""

    F32 = "f32"
    F64 = "f64"
    F16 = "f16"
    I8 = "i8"
    U8 = "u8"
    I16 = "i16"
    U16 = "u16"
    I32 = "i32"
    U32 = "u32"
    I64 = "i64"
    U64 = "u64"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return np.dtype(_NUMPY[self])

    @property
    def bits(self) -> int:
        return self.numpy.itemsize * 8

    @property
    def is_float(self) -> bool:
        return self in (DType.F16, DType.F32, DType.F64)

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer; only for integer types."""
        info = np.iinfo(self.numpy)  # type: ignore[type-var]
        return int(info.min), int(info.max)

    @staticmethod
    def of(dtype: np.dtype[np.generic] | type[np.generic]) -> DType:
        """The element type of a numpy dtype; QcompError for one that no tensor here can have."""
        name = np.dtype(dtype)
        for ours, theirs in _NUMPY.items():
            if np.dtype(theirs) == name:
                return ours
        raise QcompError(f"element type {name} is not supported", fix=f"use one of {', '.join(d.value for d in DType)}")


_NUMPY: dict[DType, type[np.generic]] = {
    DType.F32: np.float32,
    DType.F64: np.float64,
    DType.F16: np.float16,
    DType.I8: np.int8,
    DType.U8: np.uint8,
    DType.I16: np.int16,
    DType.U16: np.uint16,
    DType.I32: np.int32,
    DType.U32: np.uint32,
    DType.I64: np.int64,
    DType.U64: np.uint64,
    DType.BOOL: np.bool_,
}


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale · (integer − zero_point).

    `scale` and `zero_point` hold one number when `axis` is None (per tensor), else one for each index along
    `axis` (per channel).  Scales are positive, finite and exactly representable in float32.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    def __post_init__(self) -> None:
        if not self.scale or len(self.scale) != len(self.zero_point):
            raise QcompError(
                f"quantization has {len(self.scale)} scales and {len(self.zero_point)} zero points",
                fix="give one zero point for each scale",
            )
        if self.axis is None and len(self.scale) != 1:
            raise QcompError(f"per-tensor quantization has {len(self.scale)} scales", fix="name the channel axis")
        scales = np.asarray(self.scale, np.float64)
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            bad = next(s for s in self.scale if not (math.isfinite(s) and s > 0))
            raise QcompError(f"quantization scale {bad} is not a positive finite number", fix="recalibrate the model")
        if not np.array_equal(scales.astype(np.float32).astype(np.float64), scales):
            raise QcompError("quantization scale is not a float32", fix="round it with numpy.float32 first")

    @staticmethod
    def per_tensor(scale: float, zero_point: int = 0) -> Quantization:
        return Quantization((float(np.float32(scale)),), (int(zero_point),))

    @staticmethod
    def per_channel(scales: np.ndarray, axis: int, zero_points: np.ndarray | None = None) -> Quantization:
        flat = np.asarray(scales, np.float32).reshape(-1)
        zeros = np.zeros(flat.size, np.int64) if zero_points is None else np.asarray(zero_points).reshape(-1)
        return Quantization(tuple(float(s) for s in flat), tuple(int(z) for z in zeros), axis)

    def broadcast(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale (float32) and zero point (int64) shaped to broadcast over a tensor of `rank` dimensions."""
        scale, zero = np.asarray(self.scale, np.float32), np.asarray(self.zero_point, np.int64)
        if self.axis is None:
            return scale.reshape(()), zero.reshape(())
        shape = [1] * rank
        shape[self.axis] = scale.size
        return scale.reshape(shape), zero.reshape(shape)


@dataclass(frozen=True)
class TensorType:
    """Element type, static shape and, for integers that stand for reals, their quantization."""

    dtype: DType
    shape: tuple[int, ...]
    quant: Quantization | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.numpy.itemsize

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return replace(self, shape=tuple(int(d) for d in shape))

    def with_quant(self, quant: Quantization | None) -> TensorType:
        return replace(self, quant=quant)

    @staticmethod
    def f32(*shape: int) -> TensorType:
        return TensorType(DType.F32, tuple(shape))

    @staticmethod
    def of(array: np.ndarray, quant: Quantization | None = None) -> TensorType:
        return TensorType(DType.of(array.dtype), tuple(array.shape), quant)
