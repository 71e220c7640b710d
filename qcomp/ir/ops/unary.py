"""Elementwise functions of one operand: one row each in the table below.

On float32 they are the stated IEEE steps over `qcomp.ir.fixed_math`; min, max and clamps are compare-and-select, so
NaN goes the way of a false comparison.  abs, neg, sign, relu and clip also take integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qcomp.ir import fixed_math as fm
from qcomp.ir.intervals import operand_interval, outward
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.shapes import unquantized
from qcomp.ir.types import DType, TensorType
from qcomp.ir.unary_bounds import (
    SLACK,
    Function,
    Rule,
    abs_rule,
    clip_rule,
    ends_of,
    exact_rising,
    kinked,
    neg_rule,
    reciprocal_rule,
    relu_rule,
    rising,
    valley,
    within,
)


@dataclass(frozen=True)
class Row:
    """One unary op: its name, function on arrays, range rule, attributes and the operand dtypes it takes."""

    name: str
    function: Function
    rule: Rule | None = None
    attributes: Mapping[str, Attr] | None = None
    dtypes: str = "f32"  # "f32", "float", "number" or "bool"
    doc: str = ""


_TAKES: dict[str, Callable[[DType], bool]] = {
    "f32": lambda d: d is DType.F32,
    "float": lambda d: d.is_float,
    "number": lambda d: d is not DType.BOOL,
    "bool": lambda d: d is DType.BOOL,
}


class Unary(Op):
    """y = f(x) elementwise; x any shape, result of the same type."""

    row: ClassVar[Row]

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = unquantized(call, call.type(0))
        if not _TAKES[self.row.dtypes](x.dtype):
            raise call.fail(f"operand is {x.dtype.value}, {self.name} takes {self.row.dtypes}", fix="cast it first")
        return [x]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        with np.errstate(all="ignore"):
            return [np.asarray(self.row.function(call, x), x.dtype)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        if self.row.rule is None:
            return super().interval(call, *operands)
        return [self.row.rule(call, operand_interval(call, operands, 0))]


# ---- functions ---------------------------------------------------------------------------------------------------


def greater(x: np.ndarray, bound: np.generic | np.ndarray) -> np.ndarray:
    """x > bound ? x : bound."""
    return np.where(x > bound, x, bound)


def less(x: np.ndarray, bound: np.generic | np.ndarray) -> np.ndarray:
    """x < bound ? x : bound."""
    return np.where(x < bound, x, bound)


def _f(value: float) -> np.float32:
    return np.float32(value)


ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


def _integer_bound(bound: float, inward: Callable[[float], float], info: np.iinfo[Any]) -> int:
    """The integer of a type nearest to a real clamp bound, on its inner side."""
    if bound <= info.min:
        return int(info.min)
    return int(info.max) if bound >= info.max else int(inward(bound))


def _clip(call: Call, x: np.ndarray) -> np.ndarray:
    lo, hi = call.float("lo"), call.float("hi")
    if x.dtype.kind in "iu":
        info = np.iinfo(x.dtype)
        least, most = (_integer_bound(b, r, info) for b, r in ((lo, np.ceil), (hi, np.floor)))
        return np.asarray(np.clip(x, x.dtype.type(least), x.dtype.type(most)))
    return less(greater(x, x.dtype.type(lo)), x.dtype.type(hi))


def _hard_sigmoid(x: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    return less(greater(x * _f(alpha) + _f(beta), ZERO), ONE)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−x))."""
    return np.asarray(ONE / (ONE + fm.exp(-x)))


def _gelu(call: Call, x: np.ndarray) -> np.ndarray:
    half = x * HALF
    if call.str("approximate") == "tanh":
        inner = (x + ((x * x) * x) * _f(0.044715)) * _f(0.7978845608028654)
        return half * (ONE + fm.tanh(inner))
    return half * (ONE + fm.erf(x * _f(0.7071067811865476)))


def softplus(x: np.ndarray) -> np.ndarray:
    """(x > 0 ? x : 0) + log1p(exp(−|x|)), log1p as `fixed_math.log1p_exp_term`."""
    return np.where(x == x, greater(x, ZERO) + fm.log1p_exp_term(fm.exp(-np.abs(x))), x)


def _mish(x: np.ndarray) -> np.ndarray:
    e = fm.exp(less(x, _f(20.0)))
    n = e * (e + _f(2))
    return x * (n / (n + _f(2)))


def _elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, (fm.exp(x) - ONE) * _f(alpha))


def _celu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, (fm.exp(x / _f(alpha)) - ONE) * _f(alpha))


# ---- the table ---------------------------------------------------------------------------------------------------


def _leaky(call: Call, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * x.dtype.type(call.float("alpha")))


def _selu(call: Call, x: np.ndarray) -> np.ndarray:
    return _elu(x, call.float("alpha")) * _f(call.float("gamma"))


def _plain(function: Callable[[np.ndarray], np.ndarray]) -> Function:
    return lambda call, x: function(x)


def _thresholded(call: Call, x: np.ndarray) -> np.ndarray:
    return np.where(x > _f(call.float("alpha")), x, ZERO)


def _thresholded_rule(call: Call, x: Interval) -> Interval:
    return Interval(np.minimum(x.lo, 0.0), np.maximum(x.hi, 0.0))


def _silu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / (ONE + fm.exp(-x)))


def _hard_swish(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * _hard_sigmoid(x, 1 / 6, 0.5))


ALPHA_ONE = {"alpha": Attr("float", 1.0)}
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875

_ELU: Function = lambda call, x: _elu(x, call.float("alpha"))  # noqa: E731
_CELU: Function = lambda call, x: _celu(x, call.float("alpha"))  # noqa: E731
_HARD_SIGMOID: Function = lambda call, x: _hard_sigmoid(x, call.float("alpha"), call.float("beta"))  # noqa: E731


def _hard_sigmoid_rule(call: Call, x: Interval) -> Interval:
    wide = outward(*ends_of(_HARD_SIGMOID, call, x), SLACK)
    return Interval(np.maximum(wide.lo, 0.0), np.minimum(wide.hi, 1.0))


ROWS = (
    Row("relu", lambda call, x: greater(x, x.dtype.type(0)), relu_rule, dtypes="number", doc="x > 0 ? x : 0"),
    Row(
        "leaky_relu",
        _leaky,
        kinked(_leaky),
        {"alpha": Attr("float", 0.01)},
        dtypes="float",
        doc="x > 0 ? x : x · alpha",
    ),
    Row(
        "clip",
        _clip,
        clip_rule,
        {"lo": Attr("float", -np.inf), "hi": Attr("float", np.inf)},
        dtypes="number",
        doc="t = x > lo ? x : lo; t < hi ? t : hi",
    ),
    Row(
        "hard_sigmoid",
        _HARD_SIGMOID,
        _hard_sigmoid_rule,
        {"alpha": Attr("float", 0.2), "beta": Attr("float", 0.5)},
        doc="clamp(x · alpha + beta, 0, 1)",
    ),
    Row(
        "hard_swish",
        _plain(_hard_swish),
        valley(_plain(_hard_swish), -1.5, -0.375),
        doc="x · clamp(x · float32(1/6) + 0.5, 0, 1)",
    ),
    Row("sigmoid", _plain(sigmoid), rising(_plain(sigmoid), 0.0, 1.0), doc="1 / (1 + exp(−x))"),
    Row("silu", _plain(_silu), valley(_plain(_silu), -1.2784645, -0.2784646), doc="x / (1 + exp(−x))"),
    Row("tanh", _plain(fm.tanh), rising(_plain(fm.tanh), -1.0, 1.0)),
    Row("exp", _plain(fm.exp), rising(_plain(fm.exp), 0.0)),
    Row("log", _plain(fm.log), rising(lambda call, x: fm.log(greater(x, ZERO)))),
    Row("sqrt", _plain(np.sqrt), exact_rising(lambda x: np.sqrt(np.maximum(x, 0.0))), dtypes="float"),
    Row("erf", _plain(fm.erf), rising(_plain(fm.erf), -1.0, 1.0)),
    Row(
        "gelu",
        _gelu,
        valley(_gelu, -0.7517916, -0.1704),
        {"approximate": Attr("str", "none")},
        doc='(x/2) · (1 + erf(x/√2)), or with "tanh" (x/2) · (1 + tanh((x + x³ · 0.044715) · √(2/π)))',
    ),
    Row("softplus", _plain(softplus), rising(_plain(softplus), 0.0)),
    Row("elu", _ELU, kinked(_ELU), ALPHA_ONE, doc="x > 0 ? x : (exp(x) − 1) · alpha"),
    Row(
        "selu",
        _selu,
        kinked(_selu),
        {"alpha": Attr("float", SELU_ALPHA), "gamma": Attr("float", SELU_GAMMA)},
        doc="elu(x, alpha) · gamma",
    ),
    Row("celu", _CELU, kinked(_CELU), ALPHA_ONE, doc="x > 0 ? x : (exp(x / alpha) − 1) · alpha"),
    Row(
        "mish",
        _plain(_mish),
        valley(_plain(_mish), -1.1924648, -0.30884),
        doc="e = exp(x < 20 ? x : 20); n = e · (e + 2); x · (n / (n + 2))",
    ),
    Row(
        "softsign",
        _plain(lambda x: x / (ONE + np.abs(x))),
        rising(_plain(lambda x: x / (ONE + np.abs(x))), -1.0, 1.0),
        doc="x / (1 + |x|)",
    ),
    Row("abs", _plain(np.abs), abs_rule, dtypes="number"),
    Row("neg", _plain(np.negative), neg_rule, dtypes="number"),
    Row("floor", _plain(np.floor), exact_rising(np.floor), dtypes="float"),
    Row("ceil", _plain(np.ceil), exact_rising(np.ceil), dtypes="float"),
    Row("round", _plain(np.rint), exact_rising(np.rint), dtypes="float", doc="to the nearest integer, ties to even"),
    Row("reciprocal", _plain(lambda x: x.dtype.type(1) / x), reciprocal_rule, dtypes="float"),
    Row("sign", _plain(np.sign), exact_rising(np.sign), dtypes="number", doc="−1, 0 or 1"),
    Row("sin", _plain(fm.sin), within(-1.0000002, 1.0000002)),
    Row("cos", _plain(fm.cos), within(-1.0000002, 1.0000002)),
    Row("logical_not", _plain(np.logical_not), within(0, 1), dtypes="bool"),
    Row("thresholded_relu", _thresholded, _thresholded_rule, ALPHA_ONE, doc="x > alpha ? x : 0"),
)


def _define(row: Row) -> None:
    body: dict[str, Any] = {"name": row.name, "attributes": row.attributes or {}, "row": row, "__doc__": row.doc}
    register(type(row.name, (Unary,), body))


for _row in ROWS:
    _define(_row)


@register
class Prelu(Op):
    """x > 0 ? x : x · slope; slope broadcasts against x f32[...], the result has the shape of x."""

    name = "prelu"
    operands = ("x", "slope")

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, slope = unquantized(call, call.type(0)), unquantized(call, call.type(1))
        if not x.dtype.is_float or slope.dtype is not x.dtype:
            raise call.fail(f"operands are {x.dtype.value} and {slope.dtype.value}, not floats of one type")
        try:
            fits = np.broadcast_shapes(x.shape, slope.shape) == x.shape
        except ValueError:
            fits = False
        if not fits:
            raise call.fail(f"slope {list(slope.shape)} does not broadcast to {list(x.shape)}")
        return [x]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        x, slope = operands
        assert x is not None and slope is not None
        with np.errstate(all="ignore"):
            return [np.where(x > 0, x, x * slope)]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        x, slope = operand_interval(call, operands, 0), operand_interval(call, operands, 1)
        below = Interval(np.minimum(x.lo, 0.0), np.minimum(x.hi, 0.0))
        with np.errstate(all="ignore"):
            products = [np.nan_to_num(b * s, nan=0.0) for b in (below.lo, below.hi) for s in (slope.lo, slope.hi)]
        low, high = np.minimum.reduce(np.broadcast_arrays(*products)), np.maximum.reduce(np.broadcast_arrays(*products))
        low = np.where(x.hi > 0, np.minimum(low, np.maximum(x.lo, 0.0)), low)
        high = np.where(x.hi > 0, np.maximum(high, x.hi), high)
        return [outward(low, high)]
