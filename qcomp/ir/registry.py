"""The op registry: one class an op, holding its attributes, type inference, numpy semantics and range rule.

A new op is a new class with `@register` in a file of `qcomp/ir/ops`; nothing else has to know of it.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.types import DType, Quantization, TensorType

Attribute = bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | DType | Quantization
Attributes = Mapping[str, Attribute]

REQUIRED = object()


@dataclass(frozen=True)
class Attr:
    """One attribute: its kind, and its default when it may be left out.

    Kinds: "bool", "int", "float", "str", "ints", "floats", "strs", "dtype", "quant".  A note is for passes: it changes
    neither results nor code.
    """

    kind: str
    default: object = REQUIRED
    note: bool = False


@dataclass(frozen=True)
class Interval:
    """Closed interval of the real values a tensor can take, per tensor or along its last/channel axis.

    `lo` and `hi` are float64 arrays that broadcast against the tensor's shape (scalars for a per-tensor bound).
    For integer tensors they bound the stored integers, not the reals they stand for.
    """

    lo: np.ndarray
    hi: np.ndarray

    @staticmethod
    def of(lo: object, hi: object) -> Interval:
        return Interval(np.asarray(lo, np.float64), np.asarray(hi, np.float64))

    @property
    def span(self) -> tuple[float, float]:
        """The interval that covers every element."""
        return float(self.lo.min()), float(self.hi.max())


@dataclass(frozen=True)
class Call:
    """What an op's functions see of a node: operand types, constant operands, attributes, result types."""

    types: tuple[TensorType | None, ...]
    attrs: Attributes
    constants: tuple[np.ndarray | None, ...] = ()
    results: tuple[TensorType, ...] = ()
    where: str = field(default="", compare=False)

    def type(self, index: int) -> TensorType:
        """Type of a required operand."""
        found = self.types[index] if index < len(self.types) else None
        if found is None:
            raise QcompError(f"operand {index} is missing", where=self.where)
        return found

    def has(self, index: int) -> bool:
        return index < len(self.types) and self.types[index] is not None

    def constant(self, index: builtins.int) -> np.ndarray | None:
        return self.constants[index] if index < len(self.constants) else None

    # Typed attribute access: a wrong kind is a defect of the caller, caught by the verifier.
    def int(self, name: builtins.str) -> builtins.int:
        value = self.attrs[name]
        assert isinstance(value, builtins.int), (name, value)
        return builtins.int(value)

    def float(self, name: builtins.str) -> builtins.float:
        value = self.attrs[name]
        assert isinstance(value, (builtins.int, builtins.float)), (name, value)
        return builtins.float(value)

    def bool(self, name: builtins.str) -> builtins.bool:
        return builtins.bool(self.attrs[name])

    def str(self, name: builtins.str) -> builtins.str:
        value = self.attrs[name]
        assert isinstance(value, builtins.str), (name, value)
        return value

    def ints(self, name: builtins.str) -> tuple[builtins.int, ...]:
        value = self.attrs[name]
        assert isinstance(value, tuple), (name, value)
        return value  # type: ignore[return-value]

    def dtype(self, name: builtins.str) -> DType:
        value = self.attrs[name]
        assert isinstance(value, DType), (name, value)
        return value

    def quant(self, name: builtins.str) -> Quantization:
        value = self.attrs[name]
        assert isinstance(value, Quantization), (name, value)
        return value

    def fail(self, what: builtins.str, fix: builtins.str = "") -> QcompError:
        return QcompError(what, where=self.where, fix=fix)


class Op:
    """Definition of one op.  Subclasses are stateless; one instance is registered.

    `operands` names the inputs in order; "b?" may be absent, "xs*" (last) repeats.  `infer` returns the result
    types and raises QcompError for operands that do not fit.  `evaluate` is the numpy semantics: it gets operand
    arrays (None for absent ones) and returns one array a result, of exactly the inferred dtype and shape.
    `interval` bounds the results from bounds on the operands; the default is the dtype's own range.
    """

    name: ClassVar[str]
    operands: ClassVar[tuple[str, ...]] = ("x",)
    attributes: ClassVar[Mapping[str, Attr]] = {}
    results: ClassVar[int] = 1  # -1: as many as `infer` says

    def infer(self, call: Call) -> Sequence[TensorType]:
        raise NotImplementedError(self.name)

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        raise NotImplementedError(self.name)

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [full_interval(t) for t in call.results]

    def macs(self, call: Call) -> int:
        """Multiply-accumulates of one execution; 0 for ops that are not products."""
        return 0


def full_interval(type: TensorType) -> Interval:
    """Every value that the dtype can hold."""
    if type.dtype.is_float:
        return Interval.of(-np.inf, np.inf)
    if type.dtype is DType.BOOL:
        return Interval.of(0, 1)
    return Interval.of(*type.dtype.limits)


_REGISTRY: dict[str, Op] = {}


def register(op: type[Op]) -> type[Op]:
    """Class decorator: adds the op under its name; two ops of one name are a defect."""
    if op.name in _REGISTRY:
        raise ValueError(f"op {op.name} is registered twice")
    _REGISTRY[op.name] = op()
    return op


def lookup(name: str) -> Op:
    """The op of that name; QcompError with close names when there is none."""
    _load()
    try:
        return _REGISTRY[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, _REGISTRY, n=3)
        raise QcompError(f"no op is called {name!r}", fix=f"did you mean {', '.join(near)}?" if near else "") from None


def op_names() -> tuple[str, ...]:
    _load()
    return tuple(sorted(_REGISTRY))


def _load() -> None:
    import qcomp.ir.ops  # noqa: F401  (its modules register themselves)
