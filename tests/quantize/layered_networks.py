"""Small networks of which it is known by construction what int8 does to which layer."""

from __future__ import annotations

import numpy as np

from qcomp.ir import Graph
from qcomp.ir.types import TensorType

CHANNELS = 16
OUTLIER = 400.0


def with_outlier(limited: bool = False) -> Graph:
    """x [1, 16] -> spread -> delicate -> last: three gemms.

    `spread` makes its last channel 400 times as large as the others, and `delicate` takes it back with a small weight:
    a grid over all channels of `delicate`'s input has steps about as large as the values of the others.  limited: a
    clip between, which changes nothing, keeps calibration from moving the factor into the weights.
    """
    generator = np.random.default_rng(7)
    graph = Graph("outlier")
    x = graph.input("x", TensorType.f32(1, CHANNELS))
    spread = np.eye(CHANNELS, dtype=np.float32)
    spread[-1, -1] = OUTLIER
    delicate = generator.standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    delicate[:, -1] /= OUTLIER
    last = generator.standard_normal((5, CHANNELS)).astype(np.float32)
    for name, weights in (("spread", spread), ("delicate", delicate), ("last", last)):
        w = graph.constant(weights, f"{name}.w")
        x = graph.add("gemm", [x, w], {"trans_b": True}, names=[f"{name}.y"], node_name=name).output
        if limited and name == "spread":
            x = graph.add("clip", [x], {"lo": -1e4, "hi": 1e4}, node_name="limit").output
    graph.outputs = [x]
    return graph


def residual() -> Graph:
    """x [1, 3, 6, 6] -> convolutions with a residual, hard_swish, a concat, pooling and a gemm at the end."""
    generator = np.random.default_rng(11)
    graph = Graph("residual")

    def conv(x: object, out: int, into: int, size: int, name: str) -> object:
        w = graph.constant((generator.standard_normal((out, into, size, size)) * 0.4).astype(np.float32), f"{name}.w")
        pads = (size // 2,) * 4
        return graph.add("conv2d", [x, w], {"pads": pads}, names=[f"{name}.y"], node_name=name).output  # type: ignore[list-item]

    def add(op: str, *operands: object, name: str, **attributes: object) -> object:
        return graph.add(op, list(operands), attributes, names=[f"{name}.y"], node_name=name).output  # type: ignore[arg-type]

    x = graph.input("x", TensorType.f32(1, 3, 6, 6))
    a = add("hard_swish", conv(x, 8, 3, 3, "first"), name="swish")
    b = add("relu", conv(a, 8, 8, 1, "second"), name="clamp")
    c = add("add", a, b, name="sum")
    d = add("concat", c, b, name="both", axis=1)
    e = add("reshape", add("avg_pool", d, name="pool", kernel=(6, 6)), name="flat", shape=(1, 16))
    w = graph.constant((generator.standard_normal((5, 16))).astype(np.float32), "head.w")
    graph.outputs = [graph.add("gemm", [e, w], {"trans_b": True}, names=["y"], node_name="head").output]  # type: ignore[list-item]
    return graph


def samples(shape: tuple[int, ...], count: int = 24, seed: int = 5) -> np.ndarray:
    """float32 [count, *shape]."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
