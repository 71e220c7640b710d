"""Shape and type checks that many ops share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.registry import Call
from qcomp.ir.types import Quantization, TensorType


def broadcast(call: Call, *types: TensorType) -> tuple[int, ...]:
    """The numpy broadcast of the operands' shapes; QcompError when there is none."""
    try:
        return tuple(np.broadcast_shapes(*(t.shape for t in types)))
    except ValueError:
        shown = ", ".join(str(list(t.shape)) for t in types)
        raise call.fail(f"shapes {shown} do not broadcast") from None


def check_axis(call: Call, axis: int, rank: int) -> int:
    if not 0 <= axis < rank:
        raise call.fail(f"axis {axis} is not one of 0..{rank - 1}", fix="count axes from the first, without negatives")
    return axis


def check_axes(call: Call, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    for axis in axes:
        check_axis(call, axis, rank)
    if len(set(axes)) != len(axes):
        raise call.fail(f"axes {tuple(axes)} repeat one")
    return tuple(axes)


def check_length(call: Call, name: str, length: int) -> tuple[int, ...]:
    """An integer-list attribute that must have `length` entries."""
    values = call.ints(name)
    if len(values) != length:
        raise call.fail(f"{name} {list(values)} must have {length} entries")
    return values


def unquantized(call: Call, type: TensorType) -> TensorType:
    """The type itself; QcompError when it stands for reals: arithmetic on stored integers would mean another thing."""
    if type.quant is not None:
        raise call.fail("arithmetic on a quantized operand", fix="dequantize it first")
    return type


def float_only(call: Call, type: TensorType) -> TensorType:
    if not type.dtype.is_float:
        raise call.fail(f"operand is {type.dtype.value}, not a float", fix="dequantize or cast it first")
    return type


def same_dtype(call: Call, *types: TensorType) -> None:
    names = [t.dtype.value for t in types]
    if len(set(names)) != 1:
        raise call.fail(f"operand types differ: {', '.join(names)}", fix="cast them to one")


def moved_quant(call: Call, type: TensorType, axis_map: dict[int, int]) -> Quantization | None:
    """Quantization of a result that holds the operand's elements, moved.

    Per tensor it stays; per channel its axis must be one that the op keeps whole: `axis_map` gives the kept axes,
    operand axis -> result axis.
    """
    quant = type.quant
    if quant is None or quant.axis is None:
        return quant
    if quant.axis not in axis_map:
        raise call.fail(f"the op breaks up axis {quant.axis}, along which the operand has its scales")
    return Quantization(quant.scale, quant.zero_point, axis_map[quant.axis])
