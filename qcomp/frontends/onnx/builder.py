"""Emits ops into a graph, folding at once what depends on constants only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Value, check_operand_count, complete_attributes
from qcomp.ir.registry import Attribute, Call, lookup
from qcomp.ir.types import DType, Quantization, TensorType

# Folding these would turn integers and their grid, which the passes want to see, into plain reals.
_NEVER_FOLDED = frozenset({"fake_quant", "quantize", "dequantize"})


class Builder:
    """Adds nodes to a graph.  `where` and `hint` say on whose behalf: errors and names start with them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.where = ""
        self.node_name = ""
        self.hint = "v"
        self.created: set[Value] = set()

    @contextmanager
    def on_behalf(self, where: str, node_name: str, hint: str) -> Iterator[None]:
        """Ops emitted inside are those of one ONNX node; `created` holds their results."""
        outer = (self.where, self.node_name, self.hint, self.created)
        self.where, self.node_name, self.hint, self.created = where, node_name, hint, set()
        try:
            yield
        finally:
            created = self.created
            self.where, self.node_name, self.hint, self.created = outer
            self.created |= created

    def constant(
        self, data: np.ndarray | np.generic | float | int, dtype: DType | None = None, name: str = ""
    ) -> Value:
        """A constant; a Python number needs its dtype."""
        array = np.asarray(data, None if dtype is None else dtype.numpy)
        value = self.graph.constant(array, name or f"{self.hint}.const")
        self.created.add(value)
        return value

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Attribute] | None = None,
        quant: Quantization | None = None,
    ) -> Value:
        """The only result of an op."""
        return self.emit_all(op, inputs, attrs, quant)[0]

    def emit_all(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Attribute] | None = None,
        quant: Quantization | None = None,
    ) -> tuple[Value, ...]:
        """Every result of an op: constants when all its operands are, else those of a new node."""
        operands = list(inputs)
        present = [v for v in operands if v is not None]
        constant = bool(present) and all(v.is_constant for v in present) and op not in _NEVER_FOLDED
        if not constant:
            operands = [None if v is None else self._computed(v) for v in operands]
        try:
            if constant:
                return self._fold(op, operands, attrs or {})
            node = self.graph.add(
                op, operands, attrs, names=[f"{self.hint}.{op}"], node_name=self.node_name, quants=[quant]
            )
        except QcompError as error:
            raise self._blame(error, op) from None
        self.created.update(node.outputs)
        return node.outputs

    def _computed(self, value: Value) -> Value:
        """float64 takes part in computations at run time as float32."""
        return (
            self.emit("cast", [value], {"dtype": DType.F32})
            if value.dtype is DType.F64 and value.is_constant
            else value
        )

    def _fold(self, op: str, operands: Sequence[Value | None], attrs: Mapping[str, Attribute]) -> tuple[Value, ...]:
        definition = lookup(op)
        full = complete_attributes(definition, attrs, self.where)
        while operands and operands[-1] is None:
            operands = operands[:-1]
        check_operand_count(definition, tuple(operands), self.where)
        call = Call(
            tuple(None if v is None else v.type for v in operands),
            full,
            tuple(None if v is None else v.data for v in operands),
            (),
            self.where,
        )
        types: tuple[TensorType, ...] = tuple(definition.infer(call))
        call = Call(call.types, full, call.constants, types, self.where)
        with np.errstate(all="ignore"):
            arrays = definition.evaluate(call, *call.constants)
        values = []
        for array, type in zip(arrays, types, strict=True):
            value = self.graph.constant(np.asarray(array), f"{self.hint}.{op}", type.quant)
            self.created.add(value)
            values.append(value)
        return tuple(values)

    def _blame(self, error: QcompError, op: str) -> QcompError:
        """The error as one of the ONNX node; the op is named only where its name says something new."""
        text = str(error)
        if not self.where or text.startswith(self.where):
            return error
        text = re.sub(rf"^{op} '[^']*': ", "", text)
        if not self.where.lower().startswith(op.replace("_", "").removesuffix("2d")):
            text += f" (as {op})"
        return QcompError(text, where=self.where, fix="" if "; " in text else "check the shapes given for the inputs")
