"""Small encoders as ONNX, as exporters write them: biases as Add, GELU of Erf, a mask computed from integers."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Writer:
    """Collects nodes and initializers; values are names."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(self, kind: str, *operands: str, **attributes: object) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(operands), [name], name=name, **attributes))
        return name

    def linear(self, x: str, inner: int, outer: int, gain: float = 1.0) -> str:
        weights = self.rng.normal(0, gain / math.sqrt(inner), (inner, outer))
        y = self.op("MatMul", x, self.constant(weights))
        return self.op("Add", y, self.constant(self.rng.normal(0, 0.1, outer)))

    def norm(self, x: str, size: int) -> str:
        """A few channels are far larger than the rest, as in trained encoders."""
        scale = self.rng.uniform(0.5, 1.5, size)
        scale[: max(1, size // 64)] *= 8
        sides = [self.constant(scale), self.constant(self.rng.normal(0, 0.2, size))]
        return self.op("LayerNormalization", x, *sides, axis=-1, epsilon=1e-12)

    def gelu(self, x: str) -> str:
        inner = self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2))))
        product = self.op("Mul", x, self.op("Add", inner, self.constant(1.0)))
        return self.op("Mul", product, self.constant(0.5))


def encoder(
    *, layers: int = 2, hidden: int = 32, heads: int = 4, length: int = 12, words: int = 300, classes: int = 3,
    seed: int = 0,
) -> onnx.ModelProto:  # fmt: skip
    """ids, mask i64[1, length] -> logits f32[1, classes]: BERT's shape with random weights."""
    w, depth = Writer(seed), hidden // heads
    rows = w.rng.normal(0, 0.6, (words, hidden)) * w.rng.uniform(0.3, 2, (words, 1))
    x = w.op("Gather", w.constant(rows), "ids")
    x = w.norm(w.op("Add", x, w.constant(w.rng.normal(0, 0.3, (1, length, hidden)))), hidden)
    seen = w.op("Cast", w.op("Unsqueeze", "mask", w.constant([1, 2], np.int64)), to=TensorProto.FLOAT)
    hidden_keys = w.op("Mul", w.op("Sub", w.constant(1.0), seen), w.constant(-10000.0))
    for _ in range(layers):
        split = []
        for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
            part = w.op("Reshape", w.linear(x, hidden, hidden, 1.5), w.constant([1, length, heads, depth], np.int64))
            split.append(w.op("Transpose", part, perm=perm))
        scores = w.op("Div", w.op("MatMul", split[0], split[1]), w.constant(math.sqrt(depth)))
        weights = w.op("Softmax", w.op("Add", scores, hidden_keys), axis=-1)
        mean = w.op("Transpose", w.op("MatMul", weights, split[2]), perm=(0, 2, 1, 3))
        mean = w.op("Reshape", mean, w.constant([1, length, hidden], np.int64))
        x = w.norm(w.op("Add", w.linear(mean, hidden, hidden), x), hidden)
        inner = w.gelu(w.linear(x, hidden, 4 * hidden))
        x = w.norm(w.op("Add", w.linear(inner, 4 * hidden, hidden), x), hidden)
    first = w.op("Gather", x, w.constant(0, np.int64), axis=1)
    y = w.linear(first, hidden, classes)
    graph = helper.make_graph(
        w.nodes, "encoder",
        [helper.make_tensor_value_info(n, TensorProto.INT64, [1, length]) for n in ("ids", "mask")],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, classes])],
        w.constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sentences(count: int, *, length: int = 12, words: int = 300, seed: int = 1) -> dict[str, np.ndarray]:
    """ids and mask [count, 1, length] of sentences of different lengths."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length) < rng.integers(2, length + 1, (count, 1, 1))
    ids = rng.integers(1, words, (count, 1, length)) * mask
    return {"ids": ids.astype(np.int64), "mask": mask.astype(np.int64)}
