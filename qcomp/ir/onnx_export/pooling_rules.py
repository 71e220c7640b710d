"""Export rules of pools.  onnxruntime loads no pool with padding as wide as its kernel: such padding is written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcomp.ir.graph import Node
from qcomp.ir.onnx_export.emitter import TO_NHWC, Emitter
from qcomp.ir.ops.pool import AvgPool
from qcomp.ir.ops.qpool import QAvgPool


def max_pool(e: Emitter, node: Node) -> None:
    _on_image(e, node, _maximum)


def avg_pool(e: Emitter, node: Node) -> None:
    _on_image(e, node, average)


def _on_image(e: Emitter, node: Node, write: Callable[[Emitter, Node, str, str], str]) -> None:
    x = e.image(node, e.name(node.input(0)))
    if node.attrs["layout"] == "NHWC":
        e.op("Transpose", [write(e, node, x, "")], node.output.name, perm=TO_NHWC)
    else:
        write(e, node, x, node.output.name)


def _maximum(e: Emitter, node: Node, x: str, result: str) -> str:
    window = {**_window(node), "dilations": node.call.ints("dilations")}
    if not _is_wide(node):
        return e.op("MaxPool", [x], result, pads=node.call.ints("pads"), **window)
    dtype = node.input(0).dtype
    lowest = -np.inf if dtype.is_float else dtype.limits[0]
    return e.op("MaxPool", [_padded(e, node, x, np.asarray(lowest, dtype.numpy))], result, **window)


def average(e: Emitter, node: Node, x: str, result: str) -> str:
    """The average pool of a float image in NCHW, for avg_pool and qavg_pool."""
    whole = node.call.bool("count_include_pad")
    if not _is_wide(node):
        pads = node.call.ints("pads")
        return e.op("AveragePool", [x], result, pads=pads, count_include_pad=int(whole), **_window(node))
    x = _padded(e, node, x, np.asarray(0, np.float32))
    if whole:
        return e.op("AveragePool", [x], result, **_window(node))
    assert isinstance(node.op, AvgPool | QAvgPool)
    shares = np.prod(node.call.ints("kernel")) / node.op.counts(node.call)
    mean = e.op("AveragePool", [x], **_window(node))
    return e.op("Mul", [mean, e.tensor(shares.astype(np.float32)[None, None], "shares")], result)


def _window(node: Node) -> dict[str, Any]:
    return {"kernel_shape": node.call.ints("kernel"), "strides": node.call.ints("strides")}


def _is_wide(node: Node) -> bool:
    return any(p >= k for p, k in zip(node.call.ints("pads"), node.call.ints("kernel") * 2, strict=True))


def _padded(e: Emitter, node: Node, x: str, fill: np.ndarray) -> str:
    top, left, bottom, right = node.call.ints("pads")
    return e.op("Pad", [x, e.ints((0, 0, top, left, 0, 0, bottom, right), "pads"), e.tensor(fill, "fill")])
