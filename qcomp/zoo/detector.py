"""A detector of the shape of YOLOv8n, without its decoding of boxes, to be filled with random weights."""

from __future__ import annotations

from qcomp.zoo.case import Case
from qcomp.zoo.random_networks import INPUT, Architecture, Network

SIDE = 320
WIDTHS = (16, 32, 64, 128, 256)
BOX_OUTPUTS, CLASS_OUTPUTS = 64, 80


def yolov8n(net: Network) -> str:
    """Backbone, neck and three heads; returns boxes and classes, [n, 144, 2100]."""
    x = _conv(net, _conv(net, INPUT, 3, 16, 3, 2), 16, 32, 3, 2)
    x = _split_block(net, x, 32, 32, 1, shortcut=True)
    levels = []
    for before, width, repeats in ((32, 64, 2), (64, 128, 2), (128, 256, 1)):
        x = _split_block(net, _conv(net, x, before, width, 3, 2), width, width, repeats, shortcut=True)
        levels.append(x)
    p3, p4, p5 = *levels[:2], _pyramid_pool(net, x, 256)
    n4 = _split_block(net, net.node("Concat", _twice(net, p5), p4, axis=1), 384, 128, 1)
    n3 = _split_block(net, net.node("Concat", _twice(net, n4), p3, axis=1), 192, 64, 1)
    down = _conv(net, n3, 64, 64, 3, 2)
    m4 = _split_block(net, net.node("Concat", down, n4, axis=1), 192, 128, 1)
    down = _conv(net, m4, 128, 128, 3, 2)
    m5 = _split_block(net, net.node("Concat", down, p5, axis=1), 384, 256, 1)
    heads = [_head(net, x, width) for x, width in ((n3, 64), (m4, 128), (m5, 256))]
    return net.node("Concat", *heads, axis=2)


def _conv(net: Network, x: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> str:
    """Convolution, batch normalization, SiLU."""
    x = net.conv(x, (inputs, outputs), kernel, stride=stride)
    return net.node("Mul", x, net.node("Sigmoid", x))


def _split_block(net: Network, x: str, inputs: int, outputs: int, repeats: int, *, shortcut: bool = False) -> str:
    """C2f: one half goes through bottlenecks, and every stage of it into the sum of parts."""
    half = outputs // 2
    x = _conv(net, x, inputs, outputs)
    channels = (net.constant([0]), net.constant([half]), net.constant([outputs]), net.constant([1]))
    zero, middle, end, axis = channels
    parts = [net.node("Slice", x, zero, middle, axis), net.node("Slice", x, middle, end, axis)]
    for _ in range(repeats):
        y = _conv(net, _conv(net, parts[-1], half, half, 3), half, half, 3)
        parts.append(net.node("Add", parts[-1], y) if shortcut else y)
    return _conv(net, net.node("Concat", *parts, axis=1), half * len(parts), outputs)


def _pyramid_pool(net: Network, x: str, channels: int) -> str:
    """SPPF: three poolings of 5x5 in a row, all of them together."""
    parts = [_conv(net, x, channels, channels // 2)]
    for _ in range(3):
        parts.append(net.node("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2, 2, 2, 2]))
    return _conv(net, net.node("Concat", *parts, axis=1), channels * 2, channels)


def _twice(net: Network, x: str) -> str:
    """Nearest neighbours, twice the height and width."""
    sizes = net.constant([1.0, 1.0, 2.0, 2.0], "float32")
    return net.node(
        "Resize", x, "", sizes, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
    )


def _head(net: Network, x: str, width: int) -> str:
    """Boxes and classes of one level, [n, 144, pixels]."""
    boxes = _conv(net, _conv(net, x, width, 64, 3), 64, 64, 3)
    classes = _conv(net, _conv(net, x, width, 80, 3), 80, 80, 3)
    outputs = [net.conv(boxes, (64, BOX_OUTPUTS)), net.conv(classes, (80, CLASS_OUTPUTS))]
    shape = net.constant([0, BOX_OUTPUTS + CLASS_OUTPUTS, -1])
    return net.node("Reshape", net.node("Concat", *outputs, axis=1), shape)


def case() -> Case:
    return Architecture("yolov8n_320", yolov8n, (3, SIDE, SIDE)).case()
