"""What export rules write with: ONNX nodes, initializers and fresh names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.types import DType, Quantization

OPSET = 20
OPSET_INT16 = 21  # QuantizeLinear to 16 bits; left out where not needed, as it is newer than many runtimes

ELEMENT_TYPES = {
    DType.F32: TensorProto.FLOAT,
    DType.F64: TensorProto.DOUBLE,
    DType.F16: TensorProto.FLOAT16,
    DType.I8: TensorProto.INT8,
    DType.U8: TensorProto.UINT8,
    DType.I16: TensorProto.INT16,
    DType.U16: TensorProto.UINT16,
    DType.I32: TensorProto.INT32,
    DType.U32: TensorProto.UINT32,
    DType.I64: TensorProto.INT64,
    DType.U64: TensorProto.UINT64,
    DType.BOOL: TensorProto.BOOL,
}

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def value_info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, ELEMENT_TYPES[value.dtype], list(value.shape))


class Emitter:
    """Collects the ONNX nodes and initializers of one graph; `current` is the node being exported."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.current: Node | None = None
        self.opset = OPSET
        self._names = {v.name for v in graph.values}
        self._count = 0

    def fresh(self, hint: str) -> str:
        """A tensor name that nothing has yet."""
        name = hint
        while name in self._names:
            self._count += 1
            name = f"{hint}_{self._count}"
        self._names.add(name)
        return name

    @contextmanager
    def body(self) -> Iterator[Emitter]:
        """An emitter of the nodes of a loop's body, which may read everything that was written before."""
        inner = copy(self)
        inner.nodes = []
        yield inner
        self._count, self.opset = inner._count, inner.opset

    def name(self, value: Value | None) -> str:
        """The tensor name of an operand: its own (constants are written on first use), "" for an absent one."""
        if value is None:
            return ""
        if value.data is not None and value.name not in self.initializers:
            self.initializers[value.name] = numpy_helper.from_array(value.data, value.name)
        return value.name

    def tensor(self, array: np.ndarray, hint: str = "const") -> str:
        """A new constant."""
        name = self.fresh(f"{self.current.outputs[0].name if self.current else 'model'}__{hint}")
        self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def ints(self, values: Sequence[int], hint: str) -> str:
        return self.tensor(np.asarray(values, np.int64), hint)

    def float(self, value: float, hint: str) -> str:
        return self.tensor(np.asarray(value, np.float32), hint)

    def op(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str] | str = "", /, **attributes: Any
    ) -> str:
        """Writes a node; its (first) result's name.  Without `outputs` the result gets a fresh name."""
        assert self.current is not None
        if not outputs:
            outputs = [self.fresh(f"{self.current.outputs[0].name}__{op_type.lower()}")]
        results = [outputs] if isinstance(outputs, str) else list(outputs)
        operands = list(inputs)
        while operands and not operands[-1]:
            operands.pop()
        attributes = {k: v for k, v in attributes.items() if v != ()}  # ONNX cannot type an empty list
        label = f"{self.current.name}/{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, operands, results, name=label, **attributes))
        return results[0]

    def image(self, node: Node, name: str) -> str:
        """An image operand in NCHW, whatever the node's layout."""
        return self.op("Transpose", [name], perm=TO_NCHW) if node.attrs["layout"] == "NHWC" else name

    def image_op(self, node: Node, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
        """A node on images: its first operand and its result are brought to and from the NCHW of ONNX."""
        operands = [self.image(node, inputs[0]), *inputs[1:]]
        if node.attrs["layout"] == "NHWC":
            self.op("Transpose", [self.op(op_type, operands, **attributes)], node.output.name, perm=TO_NHWC)
        else:
            self.op(op_type, operands, node.output.name, **attributes)

    # ---- quantization --------------------------------------------------------------------------------------------

    def quantize(self, x: str, quant: Quantization, dtype: DType, result: str = "") -> str:
        """QuantizeLinear; 32-bit integers, which it does not write, as Div, Round, Add, Cast."""
        scale = self._scale(quant)
        self._require(dtype)
        if dtype.bits <= 16:
            axis = {} if quant.axis is None else {"axis": quant.axis}
            return self.op("QuantizeLinear", [x, scale, self._zero_point(quant, dtype)], result, **axis)
        if quant.axis is not None or dtype is not DType.I32:
            raise QcompError(f"ONNX cannot quantize to {dtype.value}", where=repr(self.current))
        real = self.op("Round", [self.op("Div", [x, scale])])
        real = self.op("Add", [real, self.float(quant.zero_point[0], "zero_point")])
        return self.op("Cast", [real], result, to=ELEMENT_TYPES[dtype])

    def dequantize(self, q: str, quant: Quantization, dtype: DType, result: str = "") -> str:
        """DequantizeLinear of integers up to 32 bits; 32-bit ones have zero points of 0."""
        axis = {} if quant.axis is None else {"axis": quant.axis}
        if dtype is DType.I32 and not any(quant.zero_point):
            return self.op("DequantizeLinear", [q, self._scale(quant)], result, **axis)
        if dtype.bits > 16:
            raise QcompError(f"ONNX cannot dequantize {dtype.value} with zero points", where=repr(self.current))
        self._require(dtype)
        return self.op("DequantizeLinear", [q, self._scale(quant), self._zero_point(quant, dtype)], result, **axis)

    def _require(self, dtype: DType) -> None:
        if dtype.bits == 16:
            self.opset = OPSET_INT16

    def _scale(self, quant: Quantization) -> str:
        values = np.asarray(quant.scale, np.float32)
        return self.tensor(values.reshape(()) if quant.axis is None else values, "scale")

    def _zero_point(self, quant: Quantization, dtype: DType) -> str:
        values = np.asarray(quant.zero_point).astype(dtype.numpy)
        return self.tensor(values.reshape(()) if quant.axis is None else values, "zero_point")

    def array(self, value: Value) -> np.ndarray:
        """The data of an operand that has to be constant."""
        if value.data is None:
            raise QcompError(f"operand %{value.name} is not a constant", where=repr(self.current))
        return value.data


Rule = Callable[[Emitter, Node], None]


def out_names(node: Node) -> list[str]:
    return [v.name for v in node.outputs]
