"""One ONNX node as its converter sees it: typed access to inputs and attributes, and ops to emit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from qcomp.errors import QcompError
from qcomp.frontends.onnx.tensors import read_tensor
from qcomp.frontends.onnx.unsupported import Unsupported
from qcomp.ir.graph import Value
from qcomp.ir.registry import Attribute
from qcomp.ir.types import DType, Quantization

if TYPE_CHECKING:
    from qcomp.frontends.onnx.importer import Importer
    from qcomp.frontends.onnx.scope import Scope


class OnnxNode:
    """A NodeProto together with the values of its inputs."""

    def __init__(self, importer: Importer, scope: Scope, proto: onnx.NodeProto) -> None:
        self.importer = importer
        self.scope = scope
        self.proto = proto
        self.attributes: dict[str, onnx.AttributeProto] = {a.name: a for a in proto.attribute}
        self.opset = scope.opsets.get(proto.domain if proto.domain != "ai.onnx" else "", 1)

    @property
    def where(self) -> str:
        """Op type and node name (or first output's name), as errors show them."""
        return describe(self.proto)

    # ---- inputs and outputs ----------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        return tuple(self.scope.find(name) if name else None for name in self.proto.input)

    def value(self, index: int) -> Value:
        """A required input."""
        found = self.optional(index)
        if found is None:
            raise QcompError(f"input {index} is missing", where=self.where, fix="export the model again")
        return found

    def optional(self, index: int) -> Value | None:
        if index >= len(self.proto.input) or not self.proto.input[index]:
            return None
        return self.scope.find(self.proto.input[index])

    def constant(self, index: int, what: str) -> np.ndarray:
        """The data of an input that has to be known at compile time; `what` names it in the error."""
        value = self.value(index)
        if value.data is None:
            raise self.unsupported(
                f"{what} must be a constant, and {self.proto.input[index]!r} is computed at run time",
                "bind dynamic shapes with --shape, or simplify the model first",
            )
        return value.data

    def optional_constant(self, index: int, what: str) -> np.ndarray | None:
        return None if self.optional(index) is None else self.constant(index, what)

    def constant_ints(self, index: int, what: str) -> tuple[int, ...]:
        return tuple(int(v) for v in self.constant(index, what).reshape(-1))

    def wants(self, output: int) -> bool:
        """True if the node's output of that index is named, and so perhaps used."""
        return output < len(self.proto.output) and bool(self.proto.output[output])

    # ---- attributes ------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return name in self.attributes

    def _attribute(self, name: str) -> onnx.AttributeProto:
        try:
            return self.attributes[name]
        except KeyError:
            raise QcompError(f"attribute {name!r} is missing", where=self.where, fix="export the model again") from None

    def attr_int(self, name: str, default: int | None = None) -> int:
        return default if default is not None and name not in self.attributes else int(self._attribute(name).i)

    def attr_float(self, name: str, default: float | None = None) -> float:
        return default if default is not None and name not in self.attributes else float(self._attribute(name).f)

    def attr_str(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self.attributes:
            return default
        return self._attribute(name).s.decode("utf-8", "replace")

    def attr_ints(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        if default is not None and name not in self.attributes:
            return tuple(default)
        return tuple(self._attribute(name).ints)

    def attr_tensor(self, name: str) -> np.ndarray:
        return read_tensor(self._attribute(name).t, self.importer.folder)

    def axis(self, rank: int, default: int, name: str = "axis", *, end: bool = False) -> int:
        """An axis attribute, counted from the front; `end` allows one past the last."""
        return self.normalize(self.attr_int(name, default), rank, end=end)

    def normalize(self, axis: int, rank: int, *, end: bool = False) -> int:
        """An axis counted from the front; QcompError outside the rank."""
        if not -rank <= axis < rank + end and not (rank == 0 and axis in (0, -1)):
            raise self.fail(f"axis {axis} of a tensor with {rank} dimensions")
        return axis + rank if axis < 0 else axis

    # ---- results ---------------------------------------------------------------------------------------------

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Attribute] | None = None,
        quant: Quantization | None = None,
    ) -> Value:
        return self.importer.builder.emit(op, inputs, attrs, quant)

    def emit_all(
        self, op: str, inputs: Sequence[Value | None], attrs: Mapping[str, Attribute] | None = None
    ) -> tuple[Value, ...]:
        return self.importer.builder.emit_all(op, inputs, attrs)

    def const(self, data: np.ndarray | np.generic | float | int, dtype: DType | None = None) -> Value:
        return self.importer.builder.constant(data, dtype)

    def scalar(self, number: float, like: Value) -> Value:
        """A constant of rank 0 in the dtype of another value."""
        return self.const(number, like.dtype)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The value in another shape; itself when it has that shape."""
        if x.shape == tuple(shape):
            return x
        return self.emit("reshape", [x], {"shape": tuple(int(d) for d in shape)})

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.dtype is dtype else self.emit("cast", [x], {"dtype": dtype})

    # ---- errors ----------------------------------------------------------------------------------------------

    def fail(self, what: str, fix: str = "export the model again") -> QcompError:
        """The model contradicts the ONNX specification."""
        return QcompError(what, where=self.where, fix=fix)

    def unsupported(self, what: str, fix: str = "") -> Unsupported:
        """The model is right, and this form is not covered; `fix` is the closest that is."""
        return Unsupported(what, where=self.where, fix=fix)


def describe(proto: onnx.NodeProto) -> str:
    """Op type (with its domain, unless it is ONNX's own) and name of a node."""
    kind = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    name = proto.name or next((o for o in proto.output if o), "")
    return f"{kind} {name!r}"
