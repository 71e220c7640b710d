"""The graph: ops as nodes of a networkx MultiDiGraph, uses as its edges, behind a typed face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import networkx as nx
import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.registry import REQUIRED, Attribute, Call, Op, lookup
from qcomp.ir.types import DType, Quantization, TensorType


class Value:
    """One tensor: a graph input, a constant (`data` is set), or the result of a node.

    Identity is the object; `name` is unique in its graph.  Constants are read-only arrays.
    """

    __slots__ = ("data", "index", "name", "producer", "type")

    def __init__(
        self,
        name: str,
        type: TensorType,
        producer: Node | None = None,
        index: int = 0,
        data: np.ndarray | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.producer = producer
        self.index = index
        self.data = data

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def array(self) -> np.ndarray:
        """The data of a constant; QcompError for a value that is computed."""
        if self.data is None:
            raise QcompError(f"value %{self.name} is not a constant")
        return self.data

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def quant(self) -> Quantization | None:
        return self.type.quant

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type.dtype.value}{list(self.type.shape)}"


class Node:
    """One op applied to values.  Created by `Graph.add`; its inputs change through the graph only."""

    __slots__ = ("_inputs", "attrs", "name", "op", "outputs", "serial")

    def __init__(
        self, op: Op, name: str, inputs: tuple[Value | None, ...], attrs: dict[str, Attribute], serial: int
    ) -> None:
        self.op = op
        self.name = name
        self._inputs = inputs
        self.attrs = attrs
        self.outputs: tuple[Value, ...] = ()
        self.serial = serial

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        return self._inputs

    def input(self, index: int) -> Value:
        """A required operand; QcompError when it is absent."""
        value = self._inputs[index] if index < len(self._inputs) else None
        if value is None:
            raise QcompError(f"operand {index} is missing", where=f"{self.op.name} {self.name!r}")
        return value

    def optional(self, index: int) -> Value | None:
        return self._inputs[index] if index < len(self._inputs) else None

    @property
    def output(self) -> Value:
        """The result of a node that has exactly one."""
        (value,) = self.outputs
        return value

    @property
    def call(self) -> Call:
        return Call(
            tuple(None if v is None else v.type for v in self._inputs),
            self.attrs,
            tuple(None if v is None else v.data for v in self._inputs),
            tuple(v.type for v in self.outputs),
            f"{self.op.name} {self.name!r}",
        )

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.name!r}>"


class Graph:
    """A directed acyclic graph of ops.

    Values know their producer, the graph knows their uses; `add`, `replace_all_uses`, `set_input` and `erase`
    keep both true.  Iteration is in a topological order that depends on the structure and the order of
    insertion only, so it is the same on every machine.
    """

    def __init__(self, name: str = "model") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.attrs: dict[str, Attribute] = {"requantize": "float"}
        self._dag: nx.MultiDiGraph = nx.MultiDiGraph()
        self._values: dict[str, Value] = {}
        self._uses: dict[Value, dict[tuple[Node, int], None]] = {}
        self._serial = 0
        self._names: dict[str, int] = {}
        self._order: tuple[Node, ...] | None = None

    # ---- reading -------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, producers before users; ties in the order of insertion."""
        if self._order is None:
            try:
                order = nx.lexicographical_topological_sort(self._dag, key=lambda n: n.serial)
                self._order = tuple(order)
            except nx.NetworkXUnfeasible:
                cycle = " -> ".join(repr(edge[0]) for edge in nx.find_cycle(self._dag))
                raise QcompError(f"the graph has a cycle: {cycle}") from None
        return self._order

    @property
    def constants(self) -> tuple[Value, ...]:
        return tuple(v for v in self._values.values() if v.is_constant)

    @property
    def values(self) -> tuple[Value, ...]:
        return tuple(self._values.values())

    def value(self, name: str) -> Value:
        try:
            return self._values[name]
        except KeyError:
            raise QcompError(f"the graph has no value %{name}") from None

    def has_value(self, name: str) -> bool:
        return name in self._values

    def uses(self, value: Value) -> tuple[tuple[Node, int], ...]:
        """(node, operand index) of every use, in the order the uses were made; graph outputs do not count."""
        return tuple(self._uses.get(value, ()))

    def users(self, value: Value) -> tuple[Node, ...]:
        """Nodes that use the value, each once."""
        return tuple(dict.fromkeys(node for node, _ in self._uses.get(value, ())))

    def is_output(self, value: Value) -> bool:
        return any(v is value for v in self.outputs)

    def sole_user(self, value: Value) -> Node | None:
        """The node that uses the value, if it is the only use of any kind."""
        uses = self._uses.get(value, {})
        if len(uses) != 1 or self.is_output(value):
            return None
        return next(iter(uses))[0]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self._dag)

    # ---- building ------------------------------------------------------------------------------------------

    def fresh_name(self, hint: str) -> str:
        """A name that no value has yet: the hint itself, or the hint with a number."""
        if hint and hint not in self._values:
            return hint
        base = hint or "v"
        while True:
            self._names[base] = self._names.get(base, 0) + 1
            name = f"{base}.{self._names[base]}"
            if name not in self._values:
                return name

    def _adopt(self, value: Value) -> Value:
        if value.name in self._values:
            raise QcompError(f"two values are called %{value.name}")
        self._values[value.name] = value
        self._uses[value] = {}
        return value

    def input(self, name: str, type: TensorType) -> Value:
        """Adds a graph input."""
        value = self._adopt(Value(name, type))
        self.inputs.append(value)
        return value

    def constant(self, array: np.ndarray, name: str = "c", quant: Quantization | None = None) -> Value:
        """Adds a constant; the array is copied to be contiguous and read-only."""
        data = np.array(array, order="C", copy=True)
        data.setflags(write=False)
        return self._adopt(Value(self.fresh_name(name), TensorType.of(data, quant), data=data))

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Attribute] | None = None,
        *,
        names: Sequence[str] = (),
        node_name: str = "",
        quants: Sequence[Quantization | None] = (),
    ) -> Node:
        """Appends a node; result types are inferred, `quants` sets the quantization of integer results.

        `names` are hints for the results' names.  Raises QcompError when operands, attributes or types do not
        fit the op's definition.
        """
        definition = lookup(op)
        operands = tuple(inputs)
        while operands and operands[-1] is None:
            operands = operands[:-1]
        where = f"{op} {node_name or (names[0] if names else '')!r}"
        for value in operands:
            if value is not None and self._values.get(value.name) is not value:
                raise QcompError(f"operand %{value.name} belongs to another graph", where=where)
        full = complete_attributes(definition, attrs or {}, where)
        check_operand_count(definition, operands, where)
        call = Call(
            tuple(None if v is None else v.type for v in operands),
            full,
            tuple(None if v is None else v.data for v in operands),
            (),
            where,
        )
        types = list(definition.infer(call))
        for index, quant in enumerate(quants):
            if quant is not None:
                types[index] = types[index].with_quant(quant)
        self._serial += 1
        first = self.fresh_name(names[0] if names else op)
        node = Node(definition, node_name or first, operands, full, self._serial)
        results = []
        for index, type in enumerate(types):
            hint = first if index == 0 else self.fresh_name(names[index] if index < len(names) else f"{first}_{index}")
            results.append(self._adopt(Value(hint, type, node, index)))
        node.outputs = tuple(results)
        self._dag.add_node(node)
        for index, value in enumerate(operands):
            if value is not None:
                self._link(node, index, value)
        self._order = None
        return node

    def _link(self, node: Node, index: int, value: Value) -> None:
        self._uses[value][(node, index)] = None
        if value.producer is not None:
            self._dag.add_edge(value.producer, node, key=index)

    def _unlink(self, node: Node, index: int, value: Value) -> None:
        del self._uses[value][(node, index)]
        if value.producer is not None:
            self._dag.remove_edge(value.producer, node, key=index)

    # ---- rewriting -----------------------------------------------------------------------------------------

    def set_input(self, node: Node, index: int, value: Value) -> None:
        """Makes `value` the operand at `index` of a node."""
        old = node._inputs[index]
        if old is not None:
            self._unlink(node, index, old)
        node._inputs = (*node._inputs[:index], value, *node._inputs[index + 1 :])
        self._link(node, index, value)
        self._order = None

    def replace_all_uses(self, old: Value, new: Value) -> None:
        """Every use of `old`, graph outputs included, becomes a use of `new`."""
        if old is new:
            return
        for node, index in self.uses(old):
            self.set_input(node, index, new)
        self.outputs = [new if v is old else v for v in self.outputs]

    def replace(self, node: Node, *values: Value) -> None:
        """Results of `node` give way to `values` (their names pass on where the new ones are computed), and it goes."""
        if len(values) != len(node.outputs):
            raise QcompError(f"{node!r} has {len(node.outputs)} results, not {len(values)}")
        old_names = []
        for old, new in zip(node.outputs, values, strict=True):
            keeps_name = self.is_output(new)  # the name of an output is the model's face
            self.replace_all_uses(old, new)
            if new.producer is not None and not keeps_name:
                old_names.append((old.name, new))
        self.erase(node)
        for name, new in old_names:
            if name not in self._values:
                self.rename(new, name)

    def rename(self, value: Value, name: str) -> None:
        if name in self._values:
            raise QcompError(f"two values are called %{name}")
        del self._values[value.name]
        value.name = name
        self._values[name] = value

    def erase(self, node: Node) -> None:
        """Removes a node whose results have no uses left; QcompError otherwise."""
        for value in node.outputs:
            if self._uses[value] or self.is_output(value):
                raise QcompError(f"%{value.name} is still used", where=repr(node))
        for index, operand in enumerate(node._inputs):
            if operand is not None:
                self._unlink(node, index, operand)
        self._dag.remove_node(node)
        for value in node.outputs:
            del self._values[value.name]
            del self._uses[value]
        self._order = None

    def erase_constant(self, value: Value) -> None:
        """Removes a constant without uses."""
        if value.data is None or self._uses[value] or self.is_output(value):
            raise QcompError(f"%{value.name} is not an unused constant")
        del self._values[value.name]
        del self._uses[value]

    def prune(self) -> bool:
        """Removes nodes and constants that nothing uses; graph inputs stay.  True if anything went."""
        changed = False
        for node in reversed(self.nodes):
            if not any(self._uses[v] or self.is_output(v) for v in node.outputs):
                self.erase(node)
                changed = True
        for value in self.constants:
            if not self._uses[value] and not self.is_output(value):
                self.erase_constant(value)
                changed = True
        return changed

    def clone(self) -> Graph:
        """A copy that shares nothing but the (read-only) constant arrays."""
        copy = Graph(self.name)
        copy.attrs = dict(self.attrs)
        mapped: dict[Value, Value] = {}
        for value in self.inputs:
            mapped[value] = copy.input(value.name, value.type)
        for value in self.constants:
            mapped[value] = copy._adopt(Value(value.name, value.type, data=value.data))
        for node in self.nodes:
            copy._serial += 1
            twin = Node(
                node.op,
                node.name,
                tuple(None if v is None else mapped[v] for v in node.inputs),
                dict(node.attrs),
                copy._serial,
            )
            results = []
            for old in node.outputs:
                mapped[old] = copy._adopt(Value(old.name, old.type, twin, old.index))
                results.append(mapped[old])
            twin.outputs = tuple(results)
            copy._dag.add_node(twin)
            for index, operand in enumerate(twin.inputs):
                if operand is not None:
                    copy._link(twin, index, operand)
        copy.outputs = [mapped[v] for v in self.outputs]
        copy._names = dict(self._names)
        return copy


def complete_attributes(op: Op, attrs: Mapping[str, Attribute], where: str) -> dict[str, Attribute]:
    """The attributes in the order of the definition, defaults filled in; QcompError for unknown or missing ones."""
    unknown = [name for name in attrs if name not in op.attributes]
    if unknown:
        raise QcompError(f"{op.name} has no attribute {unknown[0]!r}", where=where)
    full: dict[str, Attribute] = {}
    for name, spec in op.attributes.items():
        if name in attrs:
            full[name] = attrs[name]
        elif spec.default is REQUIRED:
            raise QcompError(f"{op.name} needs attribute {name!r}", where=where)
        else:
            full[name] = spec.default  # type: ignore[assignment]
        if not _fits(full[name], spec.kind):
            raise QcompError(f"attribute {name!r} is {full[name]!r}, not of kind {spec.kind}", where=where)
    return full


def _fits(value: Attribute, kind: str) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, float)
        case "str":
            return isinstance(value, str)
        case "ints":
            return isinstance(value, tuple) and all(isinstance(v, int) for v in value)
        case "floats":
            return isinstance(value, tuple) and all(isinstance(v, float) for v in value)
        case "strs":
            return isinstance(value, tuple) and all(isinstance(v, str) for v in value)
        case "dtype":
            return isinstance(value, DType)
        case "quant":
            return isinstance(value, Quantization)
    raise AssertionError(kind)


def check_operand_count(op: Op, operands: Sequence[Value | None], where: str) -> None:
    """QcompError unless the operands fit the op's signature."""
    variadic = bool(op.operands) and op.operands[-1].endswith("*")
    fixed = op.operands[:-1] if variadic else op.operands
    if len(operands) > len(fixed) and not variadic:
        raise QcompError(f"{op.name} takes {len(fixed)} operands, not {len(operands)}", where=where)
    for index, name in enumerate(fixed):
        present = index < len(operands) and operands[index] is not None
        if not present and not name.endswith("?"):
            raise QcompError(f"{op.name} needs operand {name!r}", where=where)
