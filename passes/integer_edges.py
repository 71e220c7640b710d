"""integer-edges: the model's inputs and outputs are the integers that it computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.graph import Graph, Value
from qcomp.ir.types import DType, TensorType
from qcomp.passes.base import Pass


@dataclass(frozen=True)
class IntegerEdges(Pass):
    """A float input that is only quantized to one int8 grid, and a float output that was int8, become int8.

    Before: input %x: f32[1,3,8,8]
            %q: i8[1,8,8,3] q(0.1, 3) = quantize(%x) {quant = q(0.1, 3), perm = [0, 2, 3, 1]}
            %y = dequantize(%s)                                             s: i8[1,10] q(0.2, -5)
            output %y
    After:  input %x: i8[1,3,8,8] q(0.1, 3)
            %q: i8[1,8,8,3] q(0.1, 3) = transpose(%x) {perm = [0, 2, 3, 1]}
            output %s, named y: i8[1,10] q(0.2, -5)

    Shapes stay; the types say which reals the integers stand for.
    """

    name: ClassVar[str] = "integer-edges"
    keeps_interface: ClassVar[bool] = False

    def run(self, graph: Graph) -> Graph:
        for value in tuple(graph.inputs):
            _take_input(graph, value)
        for index in range(len(graph.outputs)):
            _give_output(graph, index)
        graph.prune()
        return graph


def _take_input(graph: Graph, value: Value) -> None:
    users = graph.users(value)
    if value.dtype is not DType.F32 or graph.is_output(value) or not users:
        return
    if any(user.op.name != "quantize" for user in users):
        return
    grids = {(user.attrs["quant"], user.attrs["dtype"]) for user in users}
    quant = users[0].call.quant("quant")
    if len(grids) != 1 or users[0].call.dtype("dtype") is not DType.I8 or quant.axis is not None:
        return
    value.type = TensorType(DType.I8, value.shape, quant)
    for user in users:
        perm = user.call.ints("perm")
        if perm:
            moved = graph.add("transpose", [value], {"perm": perm}, quants=[quant], names=[user.output.name])
            graph.replace(user, moved.output)
        else:
            graph.replace(user, value)


def _give_output(graph: Graph, index: int) -> None:
    value = graph.outputs[index]
    producer = value.producer
    if producer is None or producer.op.name != "dequantize":
        return
    source = producer.input(0)
    if source.dtype is not DType.I8 or source.is_constant:
        return
    if graph.users(value) or source in graph.inputs or graph.is_output(source) or graph.outputs.count(value) != 1:
        source = graph.add("identity", [source], quants=[source.quant]).output  # it has a name of its own already
    name = value.name
    graph.outputs[index] = source
    if not graph.users(value) and not graph.is_output(value):
        graph.erase(producer)
    else:
        graph.rename(value, graph.fresh_name(f"{name}.real"))
    graph.rename(source, name)
