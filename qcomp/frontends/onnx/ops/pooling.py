"""Pooling in one and two dimensions; ceil_mode becomes padding behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.ops.convolution import (
    Window,
    auto_pad,
    flatten_image,
    read_window,
    spatial_rank,
    unflatten_image,
)
from qcomp.frontends.onnx.table import onnx_op
from qcomp.ir.graph import Value


def ceil_ends(window: Window, sizes: Sequence[int]) -> tuple[int, ...]:
    """End padding that adds the partial window of ceil_mode, if it starts inside the input or its front padding."""
    ends = []
    for d, size in enumerate(sizes):
        extent, stride = window.extent[d], window.strides[d]
        room = size + window.begins[d] + window.ends[d] - extent
        count = -(-room // stride) + 1
        if (count - 1) * stride >= size + window.begins[d]:
            count -= 1
        ends.append(max(window.ends[d], (count - 1) * stride + extent - size - window.begins[d]))
    return tuple(ends)


def pooling_window(node: OnnxNode, x: Value) -> tuple[Window, tuple[int, ...]]:
    """The window as written, and its end padding with ceil_mode."""
    window = read_window(node, x.shape[2:], node.attr_ints("kernel_shape"))
    explicit = auto_pad(node) in ("NOTSET", "VALID")
    ends = ceil_ends(window, x.shape[2:]) if node.attr_int("ceil_mode", 0) and explicit else window.ends
    return window, ends


@onnx_op("MaxPool")
def max_pool(node: OnnxNode) -> Value:
    x = node.value(0)
    rank = spatial_rank(node, x)
    if node.wants(1):
        raise node.unsupported("the indices of the maxima (output 1)", "use its first output only")
    window, ends = pooling_window(node, x)
    flat = replace(window, ends=ends).flat()
    y = node.emit(
        "max_pool",
        [flatten_image(node, x)],
        {"kernel": flat.kernel, "strides": flat.strides, "dilations": flat.dilations, "pads": flat.pads},
    )
    return unflatten_image(node, y, rank)


@onnx_op("AveragePool")
def average_pool(node: OnnxNode) -> Value:
    return average(node, node.value(0))


def average(node: OnnxNode, x: Value) -> Value:
    """avg_pool with the node's attributes."""
    rank = spatial_rank(node, x)
    window, ends = pooling_window(node, x)
    count_padding = bool(node.attr_int("count_include_pad", 0))
    flat, wide = window.flat(), replace(window, ends=ends).flat()
    image = flatten_image(node, x)
    if any(d != 1 for d in flat.dilations):
        return unflatten_image(node, _dilated_average(node, image, flat, wide, count_padding), rank)
    if count_padding and wide != flat:
        # Padding counts, what ceil_mode adds does not: write the padding out, then count what is there.
        image = pad_image(node, image, flat)
        nothing = (0, 0)
        wide = replace(wide, begins=nothing, ends=tuple(w - f for w, f in zip(wide.ends, flat.ends, strict=True)))
        count_padding = False
    y = node.emit(
        "avg_pool",
        [image],
        {"kernel": wide.kernel, "strides": wide.strides, "pads": wide.pads, "count_include_pad": count_padding},
    )
    return unflatten_image(node, y, rank)


def pad_image(node: OnnxNode, image: Value, window: Window) -> Value:
    pads = (0, 0, *window.begins, 0, 0, *window.ends)
    return node.emit("pad", [image], {"pads": pads, "mode": "constant", "value": 0.0})


def window_sum(node: OnnxNode, image: Value, window: Window) -> Value:
    """Sum over each window and channel: a depthwise convolution with ones."""
    channels = image.shape[1]
    ones = node.const(np.ones((channels, 1, *window.kernel), np.float32))
    return node.emit(
        "conv2d",
        [image, ones],
        {"strides": window.strides, "dilations": window.dilations, "pads": window.pads, "groups": channels},
    )


def _dilated_average(node: OnnxNode, image: Value, window: Window, wide: Window, count_padding: bool) -> Value:
    """A window sum divided by the number of taps that count, which is known."""
    counted = np.ones((1, 1, *image.shape[2:]), np.float32)
    if count_padding:
        spread = ((0, 0), (0, 0), *zip(window.begins, window.ends, strict=True))
        counted = np.pad(counted, spread, constant_values=1.0)
        rest = replace(wide, begins=(0, 0), ends=tuple(w - f for w, f in zip(wide.ends, window.ends, strict=True)))
    else:
        rest = wide
    taps = window_sum(node, node.const(counted), rest)
    return node.emit("div", [window_sum(node, image, wide), taps])


@onnx_op("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: OnnxNode) -> Value:
    return global_pooling(node, node.value(0), "avg_pool" if "Average" in node.proto.op_type else "max_pool")


def global_pooling(node: OnnxNode, x: Value, op: str) -> Value:
    rank = len(x.shape) - 2
    if rank > 2:
        # Only the extent matters: more dimensions are as good as two.
        x = node.reshape(x, (*x.shape[:2], 1, int(np.prod(x.shape[2:]))))
    image = flatten_image(node, x)
    y = node.emit(op, [image], {"kernel": image.shape[2:], "strides": (1, 1), "pads": (0, 0, 0, 0)})
    return node.reshape(y, (*x.shape[:2], *(1,) * rank))


@onnx_op("LpPool")
def lp_pool(node: OnnxNode) -> Value:
    """(Σ |x|^p)^(1/p) over each window."""
    x = node.value(0)
    rank = spatial_rank(node, x)
    p = node.attr_int("p", 2)
    window, ends = pooling_window(node, x)
    size = node.emit("abs", [flatten_image(node, x)])
    powered = node.emit("pow", [size, node.scalar(p, size)])
    total = window_sum(node, powered, replace(window, ends=ends).flat())
    return unflatten_image(node, node.emit("pow", [total, node.scalar(1.0 / p, total)]), rank)


@onnx_op("GlobalLpPool")
def global_lp_pool(node: OnnxNode) -> Value:
    x, p = node.value(0), node.attr_int("p", 2)
    powered = node.emit("pow", [node.emit("abs", [x]), node.scalar(p, x)])
    axes = tuple(range(2, len(x.shape)))
    total = node.emit("reduce_sum", [powered], {"axes": axes, "keepdims": True})
    return node.emit("pow", [total, node.scalar(1.0 / p, total)])
