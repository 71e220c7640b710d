"""Float transformers as float .tflite files, from qcomp's canonical graph: attention, layer norms and GELUs are nodes
there, whatever pieces an exporter wrote them in.  Tensors lie as in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert.schema_py_generated import TensorType as TfliteType
from tflite_file import TfliteFile

from qcomp.compiler import canonical, import_model
from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, Node, Value

_TYPES = {DType.F32: TfliteType.FLOAT32, DType.I64: TfliteType.INT64, DType.I32: TfliteType.INT32}
Shapes = Mapping[str, tuple[int, ...]]


def transformer_tflite(path: Path, shapes: Shapes) -> bytes:
    """The network of an ONNX file; QcompError that names the first node which has no TFLite form here."""
    graph = canonical(import_model(path, shapes))
    return _Conversion(graph).run()


class _Conversion:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.file = TfliteFile()
        self.tensors: dict[Value, int] = {}
        self.count = 0

    def run(self) -> bytes:
        for value in self.graph.inputs:
            self.result(value)
        for node in self.graph.nodes:
            if node.op.name not in _OPS:
                raise QcompError(f"no TFLite form of {node.op.name} here", where=node.name, fix="leave this model out")
            _OPS[node.op.name](self, node)
        inputs, outputs = ({v.name: self.tensors[v] for v in vs} for vs in (self.graph.inputs, self.graph.outputs))
        return self.file.finish(inputs, outputs)

    def operand(self, value: Value) -> int:
        if value not in self.tensors and value.is_constant:
            self.tensors[value] = self.file.constant(value.name, value.array)
        return self.tensors[value]

    def operands(self, node: Node) -> list[int]:
        return [self.operand(value) for value in node.inputs if value is not None]

    def result(self, value: Value) -> int:
        self.tensors[value] = self.file.tensor(value.name, value.shape, _TYPES[value.dtype])
        return self.tensors[value]

    def part(self, name: str, operator: str, inputs: list[int], shape: tuple[int, ...], **options: object) -> int:
        """An operator whose result only the node at hand needs."""
        self.count += 1
        tensor = self.file.tensor(f"{name}.{self.count}", shape)
        self.file.operator(operator, inputs, tensor, **options)
        return tensor

    def numbers(self, name: str, array: object) -> int:
        self.count += 1
        return self.file.constant(f"{name}.{self.count}", np.asarray(array))


def _same(operator: str) -> Callable[[_Conversion, Node], None]:
    """An op that TFLite has in the same form."""

    def convert(net: _Conversion, node: Node) -> None:
        net.file.operator(operator, net.operands(node), net.result(node.output))

    return convert


def _gemm(net: _Conversion, node: Node) -> None:
    call = node.call
    if call.float("alpha") != 1.0 or call.float("beta") != 1.0 or call.bool("trans_a") or not node.input(1).is_constant:
        raise QcompError("no TFLite form of this gemm here", where=node.name, fix="leave this model out")
    weights = node.input(1).array if call.bool("trans_b") else node.input(1).array.T
    bias = node.optional(2)
    stored = np.zeros(len(weights), np.float32) if bias is None else bias.array.reshape(-1)
    inputs = [net.operand(node.input(0)), net.numbers(f"{node.name}.w", weights), net.numbers(f"{node.name}.b", stored)]
    net.file.operator("FullyConnected", inputs, net.result(node.output))


def _reshape(net: _Conversion, node: Node) -> None:
    shape = [int(size) for size in node.output.shape]
    inputs = [net.operand(node.input(0)), net.numbers(f"{node.name}.shape", np.array(shape, np.int32))]
    net.file.operator("Reshape", inputs, net.result(node.output), newShape=shape)


def _gather(net: _Conversion, node: Node) -> None:
    net.file.operator("Gather", net.operands(node), net.result(node.output), axis=node.call.int("axis"))


def _expand(net: _Conversion, node: Node) -> None:
    shape = net.numbers(f"{node.name}.shape", np.array(node.output.shape, np.int32))
    net.file.operator("BroadcastTo", [net.operand(node.input(0)), shape], net.result(node.output))


def _sum(net: _Conversion, node: Node) -> None:
    axes = net.numbers(f"{node.name}.axes", np.array(node.call.ints("axes"), np.int32))
    keep = node.call.bool("keepdims")
    net.file.operator("Sum", [net.operand(node.input(0)), axes], net.result(node.output), keepDims=keep)


def _gelu(net: _Conversion, node: Node) -> None:
    net.file.operator("Gelu", net.operands(node), net.result(node.output), approximate=False)


def _layer_norm(net: _Conversion, node: Node) -> None:
    x, shape, name = net.operand(node.input(0)), node.output.shape, node.name
    last, row = net.numbers(f"{name}.axis", np.array([len(shape) - 1], np.int32)), (*shape[:-1], 1)
    mean = net.part(name, "Mean", [x, last], row, keepDims=True)
    squares = net.part(name, "SquaredDifference", [x, mean], shape)
    variance = net.part(name, "Mean", [squares, last], row, keepDims=True)
    shifted = net.part(name, "Add", [variance, net.numbers(name, np.float32(node.call.float("epsilon")))], row)
    rate = net.part(name, "Rsqrt", [shifted], row)
    y = net.part(name, "Mul", [net.part(name, "Sub", [x, mean], shape), rate], shape)
    bias = node.optional(2)
    if bias is None:
        net.file.operator("Mul", [y, net.operand(node.input(1))], net.result(node.output))
        return
    y = net.part(name, "Mul", [y, net.operand(node.input(1))], shape)
    net.file.operator("Add", [y, net.operand(bias)], net.result(node.output))


def _attention(net: _Conversion, node: Node) -> None:
    """q [B,M,H,D], k [B,N,H,D], v [B,N,H,E]: heads come first for the products and go back."""
    name, (batch, rows, heads, depth) = node.name, node.input(0).shape
    keys, width = node.input(1).shape[1], node.input(2).shape[3]
    order = net.numbers(f"{name}.perm", np.array([0, 2, 1, 3], np.int32))
    q, k, v = (
        net.part(name, "Transpose", [net.operand(value), order], (batch, heads, value.shape[1], value.shape[3]))
        for value in (node.input(i) for i in range(3))
    )
    q = net.part(name, "Mul", [q, net.numbers(name, np.float32(node.call.float("scale")))], (batch, heads, rows, depth))
    scores = net.part(name, "BatchMatMul", [q, k], (batch, heads, rows, keys), adjY=True)
    mask = node.optional(3)
    if mask is not None:
        scores = net.part(name, "Add", [scores, net.operand(mask)], (batch, heads, rows, keys))
    weights = net.part(name, "Softmax", [scores], (batch, heads, rows, keys), beta=1.0)
    y = net.part(name, "BatchMatMul", [weights, v], (batch, heads, rows, width))
    net.file.operator("Transpose", [y, order], net.result(node.output))


_OPS: Mapping[str, Callable[[_Conversion, Node], None]] = {
    "add": _same("Add"),
    "attention": _attention,
    "cast": _same("Cast"),
    "div": _same("Div"),
    "expand": _expand,
    "gather": _gather,
    "gelu": _gelu,
    "gemm": _gemm,
    "layer_norm": _layer_norm,
    "mul": _same("Mul"),
    "reduce_sum": _sum,
    "relu": _same("Relu"),
    "reshape": _reshape,
}
