"""Well-known networks, to be filled with random weights."""

from __future__ import annotations

from qcomp.zoo.case import Case
from qcomp.zoo.random_networks import INPUT, Architecture, Network

CLASSES = 1000
# A small gain at the end of every residual branch keeps the sum of many branches from growing.
BRANCH_GAIN = 0.3

# MobileNetV2, table 2 (arXiv:1801.04381): expansion, channels, repeats, first stride.
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# ResNet-50, table 1 (arXiv:1512.03385), stride on the 3x3: width, repeats, first stride.
BOTTLENECKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def mobilenet_v2(net: Network) -> str:
    """MobileNetV2, width 1.0; returns the name of the logits, [n, 1000]."""
    x = net.relu6(net.conv(INPUT, (3, 32), 3, stride=2))
    channels = 32
    for expansion, width, repeats, first_stride in INVERTED_RESIDUALS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            inner = channels * expansion
            y = net.relu6(net.conv(x, (channels, inner))) if expansion > 1 else x
            y = net.relu6(net.conv(y, (inner, inner), 3, stride=stride, groups=inner))
            residual = stride == 1 and channels == width
            y = net.conv(y, (inner, width), gain=BRANCH_GAIN if residual else 1.0)
            x = net.node("Add", x, y) if residual else y
            channels = width
    return net.classify(net.relu6(net.conv(x, (channels, 1280))), 1280, CLASSES)


def resnet50(net: Network) -> str:
    """ResNet-50 (version 1.5); returns the name of the logits, [n, 1000]."""
    x = net.node("Relu", net.conv(INPUT, (3, 64), 7, stride=2))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, repeats, first_stride in BOTTLENECKS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            y = net.node("Relu", net.conv(x, (channels, width)))
            y = net.node("Relu", net.conv(y, (width, width), 3, stride=stride))
            y = net.conv(y, (width, 4 * width), gain=BRANCH_GAIN)
            shortcut = net.conv(x, (channels, 4 * width), stride=stride) if repeat == 0 else x
            x = net.node("Relu", net.node("Add", y, shortcut))
            channels = 4 * width
    return net.classify(x, channels, CLASSES)


def resnet8(net: Network) -> str:
    """ResNet-8 of MLPerf Tiny (arXiv:2106.07597) for pictures of 32x32; returns the logits, [n, 10]."""
    x = net.node("Relu", net.conv(INPUT, (3, 16), 3))
    channels = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = net.node("Relu", net.conv(x, (channels, width), 3, stride=stride))
        y = net.conv(y, (width, width), 3)
        shortcut = net.conv(x, (channels, width), stride=stride) if stride > 1 else x
        x = net.node("Relu", net.node("Add", y, shortcut))
        channels = width
    return net.classify(x, channels, 10)


def dscnn(net: Network) -> str:
    """DS-CNN of MLPerf Tiny (arXiv:1711.07128) for 49 frames of 10 coefficients; returns the logits, [n, 12]."""
    x = net.node("Relu", net.conv(INPUT, (1, 64), (10, 4), stride=2, pads=(4, 1, 5, 1)))
    for _ in range(4):
        x = net.node("Relu", net.conv(x, (64, 64), 3, groups=64))
        x = net.node("Relu", net.conv(x, (64, 64)))
    return net.classify(x, 64, 12)


def mobilenet_v2_case() -> Case:
    return Architecture("mobilenet_v2", mobilenet_v2).case()


def resnet50_case() -> Case:
    return Architecture("resnet50", resnet50).case()


def resnet8_case() -> Case:
    return Architecture("resnet8_32", resnet8, (3, 32, 32)).case()


def dscnn_case() -> Case:
    return Architecture("dscnn_49x10", dscnn, (1, 49, 10)).case()
