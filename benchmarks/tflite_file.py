"""Writes .tflite files: one subgraph, as a flatbuffer of ai_edge_litert's schema."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

SIGNATURE = "serving_default"
_VERSION = 3
_TYPES = {np.dtype(np.float32): schema.TensorType.FLOAT32, np.dtype(np.int32): schema.TensorType.INT32}


class TfliteFile:
    """A network under construction: tensors are known by the number that `tensor` and `constant` return."""

    def __init__(self) -> None:
        self._buffers = [schema.BufferT()]  # the first is the empty one of all tensors that are computed
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: list[int] = []

    def tensor(self, name: str, shape: tuple[int, ...], kind: int = schema.TensorType.FLOAT32) -> int:
        """A tensor that is an input or computed."""
        return self._add(name, shape, kind, 0)

    def constant(self, name: str, array: np.ndarray) -> int:
        """A tensor with the numbers of a float32 or int32 array."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self._buffers.append(buffer)
        return self._add(name, array.shape, _TYPES[array.dtype], len(self._buffers) - 1)

    def operator(self, name: str, inputs: list[int], output: int, **options: Any) -> None:
        """One operator by the name of its options' table ("Conv2D"; of several that share one by its own), with fields
        of that table."""
        code = getattr(schema.BuiltinOperator, _OPERATORS[name])
        if code not in self._codes:
            self._codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.index(code)
        operator.inputs, operator.outputs = inputs, [output]
        table = _TABLES.get(name, name)
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{table}Options", 0)
        if operator.builtinOptionsType:
            operator.builtinOptions = getattr(schema, f"{table}OptionsT")()
            for field, value in options.items():
                if not hasattr(operator.builtinOptions, field):
                    raise AttributeError(f"{name}Options has no field {field}")
                setattr(operator.builtinOptions, field, value)
        self._operators.append(operator)

    def finish(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The file, whose one signature takes and gives tensors by these names."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs, signature.outputs = _named(inputs), _named(outputs)
        model = schema.ModelT()
        model.version = _VERSION
        model.operatorCodes = [_code(code) for code in self._codes]
        model.subgraphs, model.buffers, model.signatureDefs = [graph], self._buffers, [signature]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _add(self, name: str, shape: tuple[int, ...], kind: int, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
        self._tensors.append(tensor)
        return len(self._tensors) - 1


def _code(builtin: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), _VERSIONS.get(builtin, 1)
    return code


def _named(tensors: dict[str, int]) -> list[Any]:
    maps = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append(entry)
    return maps


#: the name of an operator's table of options -> its name in the list of operators
_OPERATORS = {
    "Add": "ADD",
    "BatchMatMul": "BATCH_MATMUL",
    "BroadcastTo": "BROADCAST_TO",
    "Cast": "CAST",
    "Concatenation": "CONCATENATION",
    "Conv2D": "CONV_2D",
    "DepthwiseConv2D": "DEPTHWISE_CONV_2D",
    "Div": "DIV",
    "FullyConnected": "FULLY_CONNECTED",
    "Gather": "GATHER",
    "Gelu": "GELU",
    "Logistic": "LOGISTIC",
    "Mean": "MEAN",
    "Pool2D": "MAX_POOL_2D",
    "Mul": "MUL",
    "Pad": "PAD",
    "Relu": "RELU",
    "Relu6": "RELU6",
    "Reshape": "RESHAPE",
    "ResizeNearestNeighbor": "RESIZE_NEAREST_NEIGHBOR",
    "Rsqrt": "RSQRT",
    "Slice": "SLICE",
    "Softmax": "SOFTMAX",
    "SquaredDifference": "SQUARED_DIFFERENCE",
    "Sub": "SUB",
    "Sum": "SUM",
    "Transpose": "TRANSPOSE",
}
_VERSIONS = {schema.BuiltinOperator.BROADCAST_TO: 2}  # there was no first
_TABLES = {"Mean": "Reducer", "Sum": "Reducer"}
