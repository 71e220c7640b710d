"""Elementwise functions of two operands with numpy broadcasting, and `where`: one row each in the table below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qcomp.ir import fixed_math as fm
from qcomp.ir.intervals import corners, operand_interval, rounded, union
from qcomp.ir.registry import Call, Interval, Op, full_interval, register
from qcomp.ir.shapes import broadcast, same_dtype, unquantized
from qcomp.ir.types import DType, TensorType

Function = Callable[[np.ndarray, np.ndarray], np.ndarray]
Rule = Callable[[Call, Interval, Interval], Interval]


@dataclass(frozen=True)
class Row:
    """One binary op: `takes` is "number" or "bool" or "any"; `compares` gives bool results."""

    name: str
    function: Function
    rule: Rule | None = None
    takes: str = "number"
    compares: bool = False
    doc: str = ""


class Binary(Op):
    """y = f(a, b) elementwise, operands of one dtype, shapes broadcast as numpy does."""

    operands = ("a", "b")
    row: ClassVar[Row]

    def infer(self, call: Call) -> Sequence[TensorType]:
        a, b = unquantized(call, call.type(0)), unquantized(call, call.type(1))
        same_dtype(call, a, b)
        takes = self.row.takes
        if takes != "any" and (a.dtype is DType.BOOL) != (takes == "bool"):
            raise call.fail(f"operands are {a.dtype.value}, {self.name} takes {takes}", fix="cast them first")
        return [TensorType(DType.BOOL if self.row.compares else a.dtype, broadcast(call, a, b))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        a, b = operands
        assert a is not None and b is not None
        with np.errstate(all="ignore"):
            return [np.asarray(self.row.function(a, b), call.results[0].dtype.numpy)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        if self.row.rule is None:
            return [full_interval(call.results[0])]
        return [self.row.rule(call, operand_interval(call, operands, 0), operand_interval(call, operands, 1))]


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IEEE for floats; integers truncate toward zero, and x / 0 is 0."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = np.floor_divide(a, safe)
    # floor_divide rounds down: one more where the signs differ and there is a remainder
    inexact = (quotient * safe != a) & ((a < 0) != (safe < 0))
    return np.asarray(np.where(b == 0, b.dtype.type(0), quotient + inexact.astype(a.dtype)))


def _modulo(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Floats: the remainder with the sign of a (C fmod, exact).  Integers: with the sign of b; x mod 0 is 0."""
    if a.dtype.kind == "f":
        return np.asarray(np.fmod(a, b))
    safe = np.where(b == 0, b.dtype.type(1), b)
    return np.asarray(np.where(b == 0, b.dtype.type(0), np.mod(a, safe)))


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Floats: `fixed_math.pow` in float32.  Integers: wrapping product; negative exponents truncate 1 / a^-b."""
    a, b = np.broadcast_arrays(a, b)
    if a.dtype.kind == "f":
        return np.asarray(fm.pow(a, b), a.dtype)
    positive = np.power(a, np.where(b < 0, b.dtype.type(0), b))
    odd = (b & 1) == 1
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0)) if a.dtype.kind == "i" else a == 1
    return np.asarray(np.where(b < 0, inverse, positive), a.dtype)


def _sum_rule(call: Call, a: Interval, b: Interval) -> Interval:
    with np.errstate(all="ignore"):
        return rounded(_finite_sum(a.lo, b.lo, -np.inf), _finite_sum(a.hi, b.hi, np.inf), call.results[0])


def _finite_sum(a: np.ndarray, b: np.ndarray, otherwise: float) -> np.ndarray:
    total = a + b
    return np.where(np.isnan(total), otherwise, total)


def _difference_rule(call: Call, a: Interval, b: Interval) -> Interval:
    return _sum_rule(call, a, Interval(-b.hi, -b.lo))


def _product_rule(call: Call, a: Interval, b: Interval) -> Interval:
    bound = corners(np.multiply, a, b)
    return rounded(bound.lo, bound.hi, call.results[0])


def _quotient_rule(call: Call, a: Interval, b: Interval) -> Interval:
    if not call.results[0].dtype.is_float or not (np.all(b.lo > 0) or np.all(b.hi < 0)):
        return full_interval(call.results[0])
    bound = corners(np.divide, a, b)
    # infinity over infinity is any number
    if np.isinf(a.lo).any() or np.isinf(a.hi).any():
        return full_interval(call.results[0])
    return rounded(bound.lo, bound.hi, call.results[0])


def _power_rule(call: Call, a: Interval, b: Interval) -> Interval:
    exponent = call.constant(1)
    if exponent is None or exponent.size != 1 or not call.results[0].dtype.is_float:
        return full_interval(call.results[0])
    power = float(exponent.reshape(-1)[0])
    if power != 2.0:
        return full_interval(call.results[0])
    ends = corners(np.multiply, a, a)
    lo = np.where((a.lo <= 0) & (a.hi >= 0), 0.0, np.minimum(a.lo * a.lo, a.hi * a.hi))
    return rounded(np.maximum(lo, 0.0), ends.hi, call.results[0])


def _select_max(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a > b, a, b)


def _select_min(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a < b, a, b)


def _max_rule(call: Call, a: Interval, b: Interval) -> Interval:
    return Interval(np.maximum(a.lo, b.lo), np.maximum(a.hi, b.hi))


def _min_rule(call: Call, a: Interval, b: Interval) -> Interval:
    return Interval(np.minimum(a.lo, b.lo), np.minimum(a.hi, b.hi))


ROWS = (
    Row("add", np.add, _sum_rule),
    Row("sub", np.subtract, _difference_rule),
    Row("mul", np.multiply, _product_rule),
    Row("div", _divide, _quotient_rule, doc=_divide.__doc__ or ""),
    Row("pow", _power, _power_rule, doc=_power.__doc__ or ""),
    Row("maximum", _select_max, _max_rule, doc="a > b ? a : b"),
    Row("minimum", _select_min, _min_rule, doc="a < b ? a : b"),
    Row("mod", _modulo, doc=_modulo.__doc__ or ""),
    Row("equal", np.equal, takes="any", compares=True),
    Row("less", np.less, compares=True),
    Row("less_equal", np.less_equal, compares=True),
    Row("greater", np.greater, compares=True),
    Row("greater_equal", np.greater_equal, compares=True),
    Row("logical_and", np.logical_and, takes="bool"),
    Row("logical_or", np.logical_or, takes="bool"),
    Row("logical_xor", np.logical_xor, takes="bool"),
)


def _define(row: Row) -> None:
    body: dict[str, Any] = {"name": row.name, "row": row, "__doc__": row.doc}
    register(type(row.name, (Binary,), body))


for _row in ROWS:
    _define(_row)


@register
class Where(Op):
    """cond ? a : b elementwise; cond bool[...], a and b of one type (and one quantization), shapes broadcast."""

    name = "where"
    operands = ("cond", "a", "b")

    def infer(self, call: Call) -> Sequence[TensorType]:
        cond, a, b = call.type(0), call.type(1), call.type(2)
        if cond.dtype is not DType.BOOL:
            raise call.fail(f"condition is {cond.dtype.value}, not bool")
        same_dtype(call, a, b)
        if a.quant != b.quant or (a.quant is not None and a.quant.axis is not None):
            raise call.fail("the two sides must have one quantization, per tensor")
        return [TensorType(a.dtype, broadcast(call, cond, a, b), a.quant)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        cond, a, b = operands
        assert cond is not None and a is not None and b is not None
        return [np.where(cond, a, b)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [union(operand_interval(call, operands, 1), operand_interval(call, operands, 2))]
