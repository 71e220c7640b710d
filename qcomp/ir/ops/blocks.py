"""Moves between channels and blocks of pixels: any dtype, and quantization passes through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcomp.ir.ops.conv import from_nchw, image_shape, image_type, to_nchw
from qcomp.ir.ops.movement import Movement
from qcomp.ir.registry import Attr, Call, register
from qcomp.ir.shapes import moved_quant
from qcomp.ir.types import TensorType


def _check_block(call: Call) -> tuple[int, int, int, int, int]:
    block = call.int("block")
    if block < 1:
        raise call.fail(f"block {block} is not positive")
    return (*image_shape(call, call.type(0)), block)


@register
class DepthToSpace(Movement):
    """Moves channels into block × block pixels, as ONNX DepthToSpace: [N,C,H,W] -> [N,C/b²,H·b,W·b]."""

    name = "depth_to_space"
    attributes = {"block": Attr("int"), "mode": Attr("str", "DCR"), "layout": Attr("str", "NCHW")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        n, c, h, w, b = _check_block(call)
        if call.str("mode") not in ("DCR", "CRD"):
            raise call.fail(f"mode {call.str('mode')!r} is neither DCR nor CRD")
        if c % (b * b):
            raise call.fail(f"{c} channels are not a multiple of {b * b}")
        x = call.type(0).with_quant(moved_quant(call, call.type(0), {0: 0}))
        return [image_type(call, x, n, c // (b * b), h * b, w * b)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        assert operands[0] is not None
        x, b = to_nchw(call, operands[0]), call.int("block")
        n, c, h, w = x.shape
        if call.str("mode") == "DCR":
            y = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        return [from_nchw(call, np.ascontiguousarray(y).reshape(n, c // (b * b), h * b, w * b))]


@register
class SpaceToDepth(Movement):
    """Moves block × block pixels into channels, as ONNX SpaceToDepth: [N,C,H,W] -> [N,C·b²,H/b,W/b]."""

    name = "space_to_depth"
    attributes = {"block": Attr("int"), "layout": Attr("str", "NCHW")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        n, c, h, w, b = _check_block(call)
        if h % b or w % b:
            raise call.fail(f"image {h} x {w} is not a multiple of {b}")
        x = call.type(0).with_quant(moved_quant(call, call.type(0), {0: 0}))
        return [image_type(call, x, n, c * b * b, h // b, w // b)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        assert operands[0] is not None
        x, b = to_nchw(call, operands[0]), call.int("block")
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
        return [from_nchw(call, np.ascontiguousarray(y).reshape(n, c * b * b, h // b, w // b))]
