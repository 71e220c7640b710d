"""Conv and ConvTranspose, in one and two dimensions; one dimension is two with a height of 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.ops.activation import fused_activation
from qcomp.frontends.onnx.table import MICROSOFT, onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.registry import Attribute


@dataclass(frozen=True)
class Window:
    """A sliding window: one entry a spatial dimension."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def pads(self) -> tuple[int, ...]:
        return (*self.begins, *self.ends)

    @property
    def extent(self) -> tuple[int, ...]:
        """Elements from the first tap to the last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def flat(self) -> Window:
        """One dimension as two, the first of size 1."""
        if len(self.kernel) == 2:
            return self
        return Window((1, *self.kernel), (1, *self.strides), (1, *self.dilations), (0, *self.begins), (0, *self.ends))


def spatial_rank(node: OnnxNode, x: Value) -> int:
    """1 or 2; Unsupported for more."""
    rank = len(x.shape) - 2
    if rank not in (1, 2):
        raise node.unsupported(f"{rank} spatial dimensions", "1 and 2 are supported")
    return rank


def read_window(node: OnnxNode, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a convolution or pooling; `sizes` are the input's spatial dimensions."""
    rank = len(sizes)
    strides = node.attr_ints("strides", (1,) * rank)
    dilations = node.attr_ints("dilations", (1,) * rank)
    pads = node.attr_ints("pads", (0,) * 2 * rank)
    kernel = tuple(int(k) for k in kernel)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise node.fail("kernel, strides, dilations and pads do not fit the input's dimensions")
    window = Window(kernel, strides, dilations, pads[:rank], pads[rank:])
    mode = auto_pad(node)
    if mode == "NOTSET":
        return window
    if mode == "VALID":
        return Window(kernel, strides, dilations, (0,) * rank, (0,) * rank)
    begins, ends = [], []
    for size, stride, extent in zip(sizes, strides, window.extent, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return Window(kernel, strides, dilations, tuple(begins), tuple(ends))


def auto_pad(node: OnnxNode) -> str:
    """How padding is chosen: "NOTSET" by the attribute pads, "VALID" none, "SAME_UPPER" or "SAME_LOWER" by size."""
    mode = node.attr_str("auto_pad", "NOTSET") or "NOTSET"
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.fail(f"auto_pad {mode!r} does not exist")
    return mode


def flatten_image(node: OnnxNode, x: Value) -> Value:
    """[N, C, W] -> [N, C, 1, W]; an image stays."""
    return x if len(x.shape) == 4 else node.reshape(x, (*x.shape[:2], 1, *x.shape[2:]))


def unflatten_image(node: OnnxNode, y: Value, rank: int) -> Value:
    return y if rank == 2 else node.reshape(y, (*y.shape[:2], y.shape[3]))


def flatten_weight(node: OnnxNode, w: Value) -> Value:
    """A kernel of one spatial dimension as one of two.

    Integer constants keep their grid: the reshape goes in front of the dequantize, where it folds.
    """
    if len(w.shape) == 4:
        return w
    producer = w.producer
    if producer is not None and producer.op.name in ("dequantize", "fake_quant"):
        source = producer.input(0)
        quant = source.quant if producer.op.name == "dequantize" else None
        if source.data is not None and (quant is None or quant.axis is None or quant.axis < 2):
            shape = (*w.shape[:2], 1, *w.shape[2:])
            wide = node.importer.graph.constant(source.data.reshape(shape), f"{source.name}.2d", quant)
            return node.emit(producer.op.name, [wide], producer.attrs)
    return node.reshape(w, (*w.shape[:2], 1, *w.shape[2:]))


def conv_attributes(node: OnnxNode, window: Window) -> dict[str, Attribute]:
    flat = window.flat()
    return {
        "strides": flat.strides,
        "dilations": flat.dilations,
        "pads": flat.pads,
        "groups": node.attr_int("group", 1),
    }


def checked_kernel(node: OnnxNode, x: Value, w: Value) -> tuple[int, ...]:
    if len(w.shape) != len(x.shape):
        raise node.fail(f"weight has {len(w.shape)} dimensions, input {len(x.shape)}")
    kernel = node.attr_ints("kernel_shape", w.shape[2:])
    if kernel != w.shape[2:]:
        raise node.fail(f"kernel_shape {kernel} is not that of the weight, {w.shape[2:]}")
    return kernel


def convolution(node: OnnxNode, x: Value, w: Value, bias: Value | None) -> Value:
    """conv2d with the node's attributes."""
    rank = spatial_rank(node, x)
    window = read_window(node, x.shape[2:], checked_kernel(node, x, w))
    y = node.emit("conv2d", [flatten_image(node, x), flatten_weight(node, w), bias], conv_attributes(node, window))
    return unflatten_image(node, y, rank)


@onnx_op("Conv")
def conv(node: OnnxNode) -> Value:
    return convolution(node, node.value(0), node.value(1), node.optional(2))


@onnx_op("FusedConv", domain=MICROSOFT)
def fused_conv(node: OnnxNode) -> Value:
    y = convolution(node, node.value(0), node.value(1), node.optional(2))
    addend = node.optional(3)
    if addend is not None:
        y = node.emit("add", [y, addend])
    return fused_activation(node, y)


@onnx_op("ConvInteger")
def conv_integer(node: OnnxNode) -> Value:
    x, w = node.value(0), node.value(1)
    rank = spatial_rank(node, x)
    window = read_window(node, x.shape[2:], checked_kernel(node, x, w))
    operands = [flatten_image(node, x), flatten_weight(node, w), node.optional(2), node.optional(3)]
    return unflatten_image(node, node.emit("conv_integer", operands, conv_attributes(node, window)), rank)


@onnx_op("ConvTranspose")
def conv_transpose(node: OnnxNode) -> Value:
    x, w = node.value(0), node.value(1)
    rank = spatial_rank(node, x)
    kernel = checked_kernel(node, x, w)
    strides = node.attr_ints("strides", (1,) * rank)
    dilations = node.attr_ints("dilations", (1,) * rank)
    output_pads = list(node.attr_ints("output_padding", (0,) * rank))
    pads = node.attr_ints("pads", (0,) * 2 * rank)
    begins, ends = list(pads[:rank]), list(pads[rank:])
    mode = auto_pad(node)
    shape = node.attr_ints("output_shape", ())[-rank:]
    if not shape and mode in ("SAME_UPPER", "SAME_LOWER"):
        shape = tuple(size * stride for size, stride in zip(x.shape[2:], strides, strict=True))
    if not shape and mode == "VALID":
        begins, ends = [0] * rank, [0] * rank
    for d, wanted in enumerate(shape):
        # "ConvTranspose", ONNX operator specification: the padding that gives the wanted output shape.
        full = strides[d] * (x.shape[2 + d] - 1) + output_pads[d] + (kernel[d] - 1) * dilations[d] + 1
        total = full - wanted
        if total < 0:
            output_pads[d] -= total
            total = 0
        begins[d] = total // 2 if mode == "SAME_UPPER" else total - total // 2
        ends[d] = total - begins[d]
    window = Window(kernel, strides, dilations, tuple(begins), tuple(ends))
    attrs = conv_attributes(node, window)
    attrs["output_pads"] = tuple(output_pads) if rank == 2 else (0, *output_pads)
    y = node.emit("conv_transpose2d", [flatten_image(node, x), flatten_weight(node, w), node.optional(2)], attrs)
    return unflatten_image(node, y, rank)
