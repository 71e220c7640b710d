"""ONNX graph -> Graph: walks the nodes in order, converts each, folds what is constant."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from qcomp.errors import QcompError
from qcomp.frontends.onnx.builder import Builder
from qcomp.frontends.onnx.fallback import evaluate_constants, function_body
from qcomp.frontends.onnx.finite import check_weights
from qcomp.frontends.onnx.hints import all_unsupported, no_converter
from qcomp.frontends.onnx.integers import convert_on_reals
from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.order import in_order
from qcomp.frontends.onnx.scope import Scope
from qcomp.frontends.onnx.shapes import bind_shapes
from qcomp.frontends.onnx.source import Model, open_model
from qcomp.frontends.onnx.table import Converter, converter_for
from qcomp.frontends.onnx.tensors import INTERFACE, element_name, static_dims
from qcomp.frontends.onnx.unsupported import Unsupported
from qcomp.ir.graph import Graph, Value
from qcomp.ir.types import DType, TensorType
from qcomp.ir.verify import verify


def load_onnx(
    source: Path | str | onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    name: str | None = None,
) -> Graph:
    """The graph of an ONNX model (a file, or a ModelProto), with static shapes.

    `shapes` binds the dynamic dimensions of inputs, by input name.  A dynamic first dimension that is the only
    one left open becomes 1; the inputs to which that happened are listed in the graph attribute
    `batch_set_to_1`.  Values keep the names they have in the model.

    Activations between QuantizeLinear and DequantizeLinear become `fake_quant`; integer constants in front of a
    DequantizeLinear become integer constants that carry their quantization.  uint8 grids are written as int8
    grids with the zero point moved by 128 (the same reals), except at the graph's interface: integer inputs and
    outputs keep their dtype.  float16 and float64 are computed in float32, again except at the interface.

    Raises QcompError for files that are no ONNX model, dynamic dimensions left open, ops and element types that
    are not supported (all such ops in one message), and models that contradict the ONNX specification.
    """
    return Importer(open_model(source, name), shapes or {}).run()


class Importer:
    """The state of one import."""

    def __init__(self, model: Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.model = model
        self.folder = model.folder
        self.graph = Graph(model.name)
        self.builder = Builder(self.graph)
        self.scope = Scope(model.opsets, {}, self)
        self.shapes = shapes
        self.unsupported: list[Unsupported] = []
        self.missing: set[str] = set()  # outputs of unsupported nodes: what depends on them is passed over
        self.dequantized: dict[tuple[Value, object], Value] = {}
        self.wanted_names: dict[Value, str] = {}
        self.narrow: dict[Value, int] = {}  # constants of less than eight bits: their element type
        self.readers = Counter(name for n in model.proto.graph.node for name in n.input)
        self.readers.update(o.name for o in model.proto.graph.output)

    def run(self) -> Graph:
        proto = self.model.proto.graph
        self.scope.enter(proto)
        self._enter_inputs(proto)
        self.import_nodes(proto.node, self.scope)
        if self.unsupported:
            raise all_unsupported(self.unsupported)
        for output in proto.output:
            self._enter_output(output)
        if not self.graph.outputs:
            raise QcompError("the model has no outputs", where=f"model {self.graph.name!r}")
        self.graph.prune()
        for value, name in self.wanted_names.items():
            if self.graph.has_value(value.name) and not self.graph.has_value(name):
                self.graph.rename(value, name)
        verify(self.graph)
        check_weights(self.graph)
        return self.graph

    # ---- the interface ---------------------------------------------------------------------------------------

    def _enter_inputs(self, proto: onnx.GraphProto) -> None:
        # Up to IR version 3 every initializer is listed as an input as well: it is a constant all the same.
        inputs = [i for i in proto.input if i.name not in self.scope.initializers]
        for name, count in Counter(i.name for i in inputs).items():
            if count > 1:
                raise QcompError(f"two inputs are called {name!r}", fix="export the model again")
        dims: dict[str, list[int | str]] = {}
        for item in inputs:
            dtype = _interface_dtype(item)
            if not item.type.tensor_type.HasField("shape") and item.name not in self.shapes:
                raise QcompError(
                    f"input {item.name!r} has no shape", fix=f"give one with --shape {item.name}=1,3,224,224"
                )
            if item.type.tensor_type.HasField("shape"):
                dims[item.name] = list(static_dims(item.type.tensor_type))
            else:
                dims[item.name] = list(self.shapes[item.name])
        bound, defaulted = bind_shapes(dims, self.shapes)
        if defaulted:
            self.graph.attrs["batch_set_to_1"] = defaulted
        for item in inputs:
            dtype = _interface_dtype(item)
            value = self.graph.input(item.name, TensorType(dtype, bound[item.name]))
            self.builder.hint = item.name
            if dtype in (DType.F16, DType.F64):
                value = self.builder.emit("cast", [value], {"dtype": DType.F32})
            self.scope.values[item.name] = value

    def _enter_output(self, item: onnx.ValueInfoProto) -> None:
        kind = item.type.WhichOneof("value")
        declared = kind is not None and (kind != "tensor_type" or item.type.tensor_type.elem_type)
        value = self.scope.find(item.name)
        source = next((v for v in self.graph.inputs if v.name == item.name), None)
        if source is not None:
            self.graph.outputs.append(source)
            return
        if declared and _interface_dtype(item) is not value.dtype:
            value = self._convert_output(value, item.name, _interface_dtype(item))
        if value.name != item.name:
            free = not self.graph.has_value(item.name)
            plain = value not in self.graph.inputs and not self.graph.is_output(value)
            if free and plain:
                self.graph.rename(value, item.name)
            elif free:
                value = self._emit_output("identity", value, item.name, {})
            else:
                raise QcompError(f"two values are called {item.name!r}", fix="export the model again")
        elif self.graph.is_output(value):
            raise QcompError(f"two outputs are called {item.name!r}", fix="export the model again")
        self.graph.outputs.append(value)

    def _convert_output(self, value: Value, name: str, dtype: DType) -> Value:
        """float32 as the float type that the output is declared to have."""
        if not (dtype.is_float and value.dtype.is_float):
            raise QcompError(
                f"output {name!r} is declared {dtype.value} and computed as {value.dtype.value}",
                fix="export the model again",
            )
        if value.name == name:
            self.graph.rename(value, self.graph.fresh_name(f"{name}.f32"))
        return self._emit_output("cast", value, name, {"dtype": dtype})

    def _emit_output(self, op: str, value: Value, name: str, attrs: Mapping[str, DType]) -> Value:
        """A node at the graph's interface, which is there even when its operand is constant."""
        return self.graph.add(op, [value], dict(attrs), names=[name]).output

    # ---- nodes -----------------------------------------------------------------------------------------------

    def import_nodes(self, nodes: Sequence[onnx.NodeProto], scope: Scope) -> None:
        """Converts nodes in an order in which producers come first."""
        known = set(scope.values) | set(scope.initializers)
        outer = scope.parent
        while outer is not None:
            known |= set(outer.values) | set(outer.initializers)
            outer = outer.parent
        for proto in in_order(nodes, known | self.missing):
            self._import_node(OnnxNode(self, scope, proto))

    def import_graph(self, proto: onnx.GraphProto, scope: Scope) -> list[Value]:
        """Imports a subgraph in place; the values of its outputs."""
        scope.enter(proto)
        self.import_nodes(proto.node, scope)
        if any(o.name in self.missing for o in proto.output):
            raise _Blocked
        return [scope.find(o.name) for o in proto.output]

    def _import_node(self, node: OnnxNode) -> None:
        proto = node.proto
        converter = converter_for("" if proto.domain == "ai.onnx" else proto.domain, proto.op_type)
        blocked = any(name in self.missing for name in proto.input)
        try:
            if blocked:
                if converter is None:
                    raise no_converter(proto)
                raise _Blocked
            first = next((o for o in proto.output if o), proto.op_type)
            prefix = node.scope.prefix
            with self.builder.on_behalf(node.where, prefix + proto.name if proto.name else "", prefix + first):
                self._name_results(node, self._convert(node, converter))
        except _Blocked:
            self.missing.update(o for o in proto.output if o)
        except Unsupported as error:
            self.unsupported.append(error if node.where in str(error) else Unsupported(str(error), where=node.where))
            self.missing.update(o for o in proto.output if o)
        except QcompError as error:
            if node.where in str(error):
                raise
            fix = "" if "; " in str(error) else "export the model again"
            raise QcompError(str(error), where=node.where, fix=fix) from None
        except (ArithmeticError, LookupError, ValueError) as error:
            # Converters read shapes and attributes as ONNX promises them; a node that breaks the promise ends here.
            reason = " ".join(str(error).split())
            raise QcompError(
                f"its inputs and attributes do not fit together ({reason})",
                where=node.where,
                fix="export the model again",
            ) from error

    def _convert(self, node: OnnxNode, converter: Converter | None) -> list[Value]:
        if converter is None:
            return self._without_converter(node)
        moved = convert_on_reals(node, converter)
        if moved is not None:
            return moved
        results = converter(node)
        return [results] if isinstance(results, Value) else list(results)

    def _without_converter(self, node: OnnxNode) -> list[Value]:
        """Ops outside the table: evaluated if their inputs are constants, else written out as ONNX defines them."""
        arrays = evaluate_constants(node)
        if arrays is not None:
            return [self.builder.constant(a) for a in arrays]
        body = function_body(node)
        if body is None:
            raise no_converter(node.proto)
        inner = Scope(
            {o.domain: o.version for o in body.opset_import} or node.scope.opsets,
            {},
            self,
            prefix=f"{self.builder.hint}/",
        )
        for formal, value in zip(body.input, node.inputs, strict=False):
            if value is not None:
                inner.values[formal] = value
        missing, self.missing = self.missing, set()
        found = len(self.unsupported)
        try:
            self.import_nodes(body.node, inner)
        finally:
            self.missing = missing
        if len(self.unsupported) > found:
            inside = self.unsupported[found]
            del self.unsupported[found:]
            raise Unsupported(f"{node.where}: inside its definition, {inside}")
        wanted = [formal if node.wants(i) else "" for i, formal in enumerate(body.output)]
        while wanted and not wanted[-1]:
            wanted.pop()
        return [inner.find(formal) if formal else inner.find(body.output[0]) for formal in wanted]

    def _name_results(self, node: OnnxNode, values: Sequence[Value]) -> None:
        for name, value in zip(node.proto.output, values, strict=False):
            if not name:
                continue
            if name in node.scope.values and not isinstance(node.scope.values, ChainMap):
                raise QcompError(
                    f"two nodes compute the tensor {name!r}", where=node.where, fix="export the model again"
                )
            target = node.scope.prefix + name
            if value in self.builder.created and value.name != target and not self.graph.has_value(target):
                if value.producer is not None and value.producer.name == value.name:
                    value.producer.name = target  # a node without a name goes by that of its result
                self.graph.rename(value, target)
                self.builder.created.discard(value)
            node.scope.values[name] = value
        for name in node.proto.output[len(values) :]:
            if name:
                raise QcompError(f"its output {name!r} is not computed here", where=node.where)


class _Blocked(Exception):
    """An input of the node comes from something unsupported."""


def _interface_dtype(item: onnx.ValueInfoProto) -> DType:
    kind = item.type.WhichOneof("value")
    if kind != "tensor_type":
        raise Unsupported(
            f"{item.name!r} is a {str(kind or 'value without type').replace('_type', '')}",
            fix="only tensors can be inputs and outputs",
        )
    element = item.type.tensor_type.elem_type
    if element not in INTERFACE:
        raise Unsupported(
            f"{item.name!r} is {element_name(element)}, which is not supported", fix="use FLOAT or an integer type"
        )
    return INTERFACE[element]
