"""The verifier: what must hold of any graph, before and after every pass."""

from __future__ import annotations

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value, check_operand_count, complete_attributes
from qcomp.ir.text import format_type
from qcomp.ir.types import DType


def verify(graph: Graph) -> None:
    """Raises QcompError, naming the value or node, unless the graph is valid.

    Checked: acyclicity; unique names; producers and uses agree; operands and attributes fit their op; the types
    written on results are what the op infers; quantization has integers to describe, an axis within the shape and
    zero points within the dtype.
    """
    _ = graph.nodes  # raises on a cycle
    known = set(graph.values)
    for value in graph.values:
        _check_value(graph, value)
    for node in graph.nodes:
        _check_node(graph, node, known)
    if not graph.outputs:
        raise QcompError("the graph has no outputs", where=f"graph @{graph.name}")
    for value in graph.outputs:
        if value not in known:
            raise QcompError(f"output %{value.name} is not a value of the graph")


def _check_value(graph: Graph, value: Value) -> None:
    where = f"%{value.name}"
    type = value.type
    if any(not isinstance(d, int) or d < 0 for d in type.shape):
        raise QcompError(f"shape {type.shape} is not static", where=where)
    if value.data is not None:
        if value.data.shape != type.shape or DType.of(value.data.dtype) is not type.dtype:
            raise QcompError(
                f"data is {value.data.dtype}{list(value.data.shape)}, type {format_type(type)}", where=where
            )
    elif value.producer is None and value not in graph.inputs:
        raise QcompError("no node produces it, and it is neither input nor constant", where=where)
    quant = type.quant
    if quant is None:
        return
    if not type.dtype.is_integer:
        raise QcompError(f"{type.dtype.value} values carry no quantization", where=where)
    if quant.axis is not None and not (0 <= quant.axis < type.rank and type.shape[quant.axis] == len(quant.scale)):
        raise QcompError(f"{len(quant.scale)} scales along axis {quant.axis} of shape {type.shape}", where=where)
    low, high = type.dtype.limits
    if any(not low <= z <= high for z in quant.zero_point):
        raise QcompError(f"a zero point is outside {type.dtype.value}", where=where)


def _check_node(graph: Graph, node: Node, known: set[Value]) -> None:
    where = f"{node.op.name} {node.name!r}"
    check_operand_count(node.op, node.inputs, where)
    if complete_attributes(node.op, node.attrs, where) != node.attrs:
        raise QcompError("attributes are not complete", where=where)
    for index, operand in enumerate(node.inputs):
        if operand is None:
            continue
        if operand not in known:
            raise QcompError(f"operand %{operand.name} is not a value of the graph", where=where)
        if (node, index) not in graph.uses(operand):
            raise QcompError(f"the use of %{operand.name} is not recorded", where=where)
    inferred = node.op.infer(node.call)
    if len(inferred) != len(node.outputs):
        raise QcompError(f"{len(inferred)} results inferred, {len(node.outputs)} there", where=where)
    for value, type in zip(node.outputs, inferred, strict=True):
        if value.producer is not node:
            raise QcompError(f"%{value.name} names another producer", where=where)
        same_quant = type.quant is None or type.quant == value.type.quant
        if (type.dtype, type.shape) != (value.type.dtype, value.type.shape) or not same_quant:
            raise QcompError(
                f"%{value.name} is {format_type(value.type)}, the op gives {format_type(type)}", where=where
            )


def check_array(value: Value, array: np.ndarray) -> None:
    """QcompError unless the array has the value's dtype and shape."""
    if DType.of(array.dtype) is not value.type.dtype or tuple(array.shape) != value.type.shape:
        found = f"{DType.of(array.dtype).value}{list(array.shape)}"
        raise QcompError(f"expected {format_type(value.type.with_quant(None))}, got {found}", where=f"%{value.name}")
